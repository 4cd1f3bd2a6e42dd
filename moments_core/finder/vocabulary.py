"""Closed word lists, and what speakers say where one topic gives way to the next.

Only function words, phrases of spoken English and words too general to name a subject: the lists hold for talks on
any. In other languages they match little and the finder leans on word statistics alone.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Final, Literal

WordList = Literal[
    "stop_words",
    "fillers",
    "determiners",
    "generic",
    "never_in_title",
    "verbs",
    "before_verb",
    "after_verb",
    "before_noun",
]


@cache
def word_list(*names: WordList) -> frozenset[str]:
    """The words of one or more lists of words.json, in lower case; read once."""
    lists = json.loads(resources.files("moments_core.finder").joinpath("words.json").read_bytes())
    return frozenset(word for name in names for line in lists[name]["words"] for word in line.split())


def noise() -> frozenset[str]:
    """Words that carry no topic: stop words and spoken fillers."""
    return word_list("stop_words", "fillers")


_LEAD_IN = r"^(?:(?:yeah|okay|ok|alright|all right|right|well|and|but|so|now|cool|great),? )*"

# Each pattern is looked for in a sentence in lower case; what begins with ^ stands for how the sentence opens.
CUES: Final[dict[str, re.Pattern[str]]] = {
    "opener": re.compile(r"^(?:so|ok|okay|alright|all right|now|well|right|cool|great|awesome|anyway|anyways)\b"),
    "so": re.compile(_LEAD_IN + r"so\b"),
    "transition": re.compile(
        r"\b(?:let'?s (?:talk|get|go|move|start|turn|look|switch|dive|begin|jump|do|see|take|step|back)"
        r"|mov(?:e|ing) on|next (?:up|topic|question|one|thing|section|part|slide|item|point|step)|speaking of"
        r"|going back|go back to|coming back|come back to|turn(?:ing)? to|switch(?:ing)? gears|dive in(?:to)?"
        r"|last (?:thing|question|topic|one|point|item)|final (?:thing|question|topic|point|section)|segue"
        r"|another (?:thing|topic|question|one|point|item|interesting)|different (?:topic|subject|question)"
        r"|get(?:ting)? into|jump(?:ing)? (?:in|into|to)|change (?:the )?(?:topic|subject)|wrap(?:ping)? up"
        r"|first (?:of all|thing|up|topic|question)|start(?:ing)? with|begin with|i (?:also )?want(?:ed)? to"
        r"|i'?d (?:like|love) to|we(?:'re| are) going to|i(?:'m| am) going to|brings? (?:us|me)|back to)\b"
    ),
    "topic": re.compile(
        r"\b(?:talk(?:ing)? about|question|topic|discuss|explain|mention(?:ed)?|section|chapter|slide|part"
        r"|tell (?:us|me)|describe|introduce|overview|summary|what about|how about|curious|wonder(?:ing)?"
        r"|thoughts on|walk us)\b"
    ),
    "ask": re.compile(
        _LEAD_IN + r"(?:what|how|why|when|where|who|which|do you|did you|can you|could you|are you|is there|is it"
        r"|are there|does|would you|have you)\b"
    ),
    "count": re.compile(
        r"\b(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|fourth|fifth|finally|lastly"
        r"|number (?:one|two|three|four|five))\b"
    ),
    "link": re.compile(
        r"^(?:it|it's|that|that's|this|they|they're|he|she|because|which|but|or|and|then|also|like|for example|if"
        r"|there)\b"
    ),
    "reply": re.compile(
        r"^(?:yeah|yes|yep|no|exactly|right|sure|correct|i think|i mean|absolutely|mm|mhm|uh|um|totally"
        r"|definitely)\b"
    ),
    "close": re.compile(
        r"\b(?:thank you|thanks|makes? sense|that's (?:great|awesome|cool|it|interesting|a good)|interesting|applause"
        r"|perfect|fair enough|got it|gotcha|sounds good|wonderful|excellent|good point)\b"
    ),
    "greet": re.compile(
        r"\b(?:welcome|hello|hi everyone|good (?:morning|afternoon|evening)|my name is|today|this episode|goodbye"
        r"|bye)\b"
    ),
}
