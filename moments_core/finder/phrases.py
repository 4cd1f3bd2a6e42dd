"""Candidate headings: runs of content words that a part says more often than the rest of the video."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from math import exp, log
from typing import Final

from moments_core.finder.passages import Passage
from moments_core.finder.roles import Roles
from moments_core.finder.text import WORD, stem
from moments_core.finder.vocabulary import CUES, noise, word_list

MOST_WORDS = 4
MOST_CANDIDATES = 40  # of one part; more never reached a title
_CLAUSE: Final = re.compile(r"[.,;:!?…]+(?:\s|$)|\s[-–—]+\s|[—()\[\]{}\"“”]")
# A phrase of two or three words says what is meant; one word is vague, four are often a chance run.
_LENGTH_WORTH: Final = {1: 0.42, 2: 1.0, 3: 1.05, 4: 0.9}
_ADJECTIVE: Final = re.compile(r"(?:^new|ous|ful|able|ible|less|ive|ed|ish)$")
_LONE_ADJECTIVE: Final = re.compile(_ADJECTIVE.pattern.replace("ish", "ish|al|ic|ing|er|est"))

# What a phrase gains, in parts of its worth, at the start of its part, fading over `SETTLED` passages, and where a cue
# announces it. Chosen by the share of words that titles have in common with those of people (tuning talks: 0.24 with
# 0.4 for all of the first passages, 0.28 with these): people name a part after what it opens with.
EARLY, SETTLED, ANNOUNCED = 2.5, 2.0, 2.0
CUE_REACH = 4  # small words between a cue and what it announces
OFTEN, TOPICAL = 1.5, 1.5  # powers of how often a phrase is said, and its words
EVERYWHERE = 0.6  # of its worth stays to a word that half of the parts say
LINK: Final = "of"  # the one small word that a heading may hold inside: center of mass

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A candidate: its stems, how it is written, and its worth as a heading of one part."""

    key: Key
    shown: str
    worth: float
    places: frozenset[int]


@dataclass(slots=True)
class _Tally:
    """What is known of a phrase in one part."""

    count: int = 0
    after_determiner: int = 0
    ends_run: int = 0
    introduced: float = 0.0
    places: set[int] = field(default_factory=set)

    def add(self, place: int, *, determined: bool, ends_run: bool, introduced: float) -> None:
        self.count += 1
        self.after_determiner += determined
        self.ends_run += ends_run
        self.introduced = max(self.introduced, introduced)
        self.places.add(place)


class PhraseBook:
    """Every phrase of a video, counted by part, and how each word is usually written."""

    def __init__(self, said_by_part: Sequence[Sequence[Passage]]) -> None:
        clauses = [[[list(clause) for clause in _clauses(p.text)] for p in part] for part in said_by_part]
        flat = [clause for part in clauses for passage in part for clause in passage]
        lowered = [[word.lower() for word in clause] for clause in flat]
        self._shut = noise() | word_list("never_in_title", "verbs") | _common_words(lowered)
        self._roles = Roles(lowered)
        self._spelling = _spellings(flat)
        self._forms: dict[Key, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._tallies = [self._tallied(part, said) for part, said in zip(clauses, said_by_part, strict=True)]
        self._total: Counter[Key] = Counter()
        for tallies in self._tallies:
            self._total.update({key: tally.count for key, tally in tallies.items()})
        self._sizes = [max(1, sum(len(passage.terms) for passage in part)) for part in said_by_part]

    def candidates(self, part: int) -> list[Phrase]:
        """Phrases of the part, best first; a phrase that mostly stands within a longer one is left out."""
        tallies = self._tallies[part]
        nested = _mostly_nested(tallies)
        forms = {key: self._form(key) for key in tallies if key not in nested}
        worth = {key: self._worth(key, form, part) * self._topical(key, part) for key, form in forms.items()}
        ranked = sorted(worth, key=lambda key: (-worth[key], key))[:MOST_CANDIDATES]
        return [
            Phrase(key, " ".join(forms[key]).removesuffix("'s"), worth[key], frozenset(tallies[key].places))
            for key in ranked
            if worth[key] > 0
        ]

    def _tallied(self, part: Sequence[Sequence[list[str]]], said: Sequence[Passage]) -> dict[Key, _Tally]:
        tallies: dict[Key, _Tally] = defaultdict(_Tally)
        for place, (clauses, passage) in enumerate(zip(part, said, strict=True)):
            early, announced = EARLY * exp(-place / SETTLED), _announced(passage.text, self._shut)
            for clause in clauses:
                spelled = [self._spelling.get(clause[0].lower(), clause[0].lower()), *clause[1:]]
                for gram in _grams(spelled, self._shut):
                    key = tuple(stem(word.lower()) for word in gram.words)
                    self._forms[key][gram.words] += 1
                    tallies[key].add(
                        place,
                        determined=gram.determined,
                        ends_run=gram.ends_run,
                        introduced=early + ANNOUNCED * all(word.lower() in announced for word in gram.words),
                    )
        return tallies

    def _form(self, key: Key) -> tuple[str, ...]:
        """The words of the phrase as most often written, so that New York and a new wallet keep their own case."""
        return max(self._forms[key].items(), key=lambda item: (item[1], item[0]))[0]

    def _worth(self, key: Key, form: Sequence[str], part: int) -> float:
        tally = self._tallies[part][key]
        # 0.05: what the whole video speaks of is no heading of one part.
        contrast = max(0.05, log(0.5 + tally.count / (self._expected(key, part) + 0.5 * self._share(part))))
        often = float(log(1 + len(tally.places)) ** OFTEN)
        worth = often * contrast * (1.0 + tally.introduced) * self._as_noun(form, tally) * _LENGTH_WORTH[len(form)]
        return worth * (EVERYWHERE if len(form) == 1 and self._is_everywhere(key) else 1.0)

    def _is_everywhere(self, key: Key) -> bool:
        """Whether half of the parts speak of it: the subject of the whole video names no part of it."""
        return len(self._tallies) > 2 and 2 * sum(key in tallies for tallies in self._tallies) >= len(self._tallies)

    def _share(self, part: int) -> float:
        """The part's size over that of the whole video."""
        return self._sizes[part] / sum(self._sizes)

    def _expected(self, key: Key, part: int) -> float:
        """How often the part would say the phrase if it said it as often as the rest of the video."""
        tally = self._tallies[part].get(key)
        elsewhere = self._total[key] - (tally.count if tally else 0)
        return elsewhere * self._share(part)

    def _topical(self, key: Key, part: int) -> float:
        """How much more the part says the phrase's words, alone or in others: a barrel lid gains from rain barrels."""
        singles = [(word,) for word in key if word != LINK]
        counts = [self._tallies[part][one].count if one in self._tallies[part] else 0 for one in singles]
        excess = [max(0.0, n - self._expected(one, part)) for n, one in zip(counts, singles, strict=True)]
        return float((sum(log(2 + more) for more in excess) / len(singles)) ** TOPICAL)

    def _as_noun(self, form: Sequence[str], tally: _Tally) -> float:
        """How much the phrase behaves as one that names something."""
        named = any(map(_is_name, form))
        if len(form) == 1 and not named and not _names_alone(form[0], tally):
            return 0.0
        generic: float = 0.5 ** sum(stem(word.lower()) in word_list("generic") for word in form)
        adjective = 0.4 if not named and (_ADJECTIVE if len(form) > 1 else _LONE_ADJECTIVE).search(form[-1]) else 1.0
        whole = 0.6 + 0.4 * tally.ends_run / tally.count
        determined = 0.7 + 0.5 * tally.after_determiner / tally.count
        nouns = self._roles.nounness(form[0].lower()) * self._roles.nounness(form[-1].lower())
        return generic * adjective * whole * determined * nouns * (1.25 if named else 1.0)


def _names_alone(word: str, tally: _Tally) -> bool:
    """Whether one word behaves as a noun: after a determiner, and mostly with no other content word after it."""
    return tally.after_determiner > 0 and tally.ends_run >= 0.5 * tally.count and not _ADJECTIVE.search(word)


@dataclass(frozen=True, slots=True)
class _Gram:
    """A phrase as it stands once. `determined`: it or the run that it ends follows a determiner."""

    words: tuple[str, ...]
    determined: bool
    ends_run: bool


def _clauses(text: str) -> Iterator[list[str]]:
    for clause in _CLAUSE.split(text.replace("’", "'")):
        if found := WORD.findall(clause):
            yield found


def _grams(clause: Sequence[str], shut: Set[str]) -> Iterator[_Gram]:
    """Phrases of up to four words within a clause that could be a heading."""
    words = [word.lower() for word in clause]
    first_shut = [index for index, word in enumerate(words) if word in shut or len(word) > 30 or word.endswith("n't")]
    determiners = word_list("determiners")
    determined = [before in determiners for before in ("", *words)]
    for start, end in zip([-1, *first_shut], [*first_shut, len(words)], strict=True):
        for first in range(start + 1, end):
            for last in range(first + 1, min(end, first + MOST_WORDS) + 1):
                if _reads_well(words[first:last]):
                    led = determined[first] or (last == end and determined[start + 1])
                    yield _Gram(tuple(clause[first:last]), led, ends_run=last == end)
    for at in first_shut:
        if _links(clause, at, first_shut):
            yield _Gram(
                tuple(clause[at - 1 : at + 2]), determined[at - 1], ends_run=at + 2 in (*first_shut, len(words))
            )


def _links(clause: Sequence[str], at: int, first_shut: Sequence[int]) -> bool:
    """Whether the word at `at` is an `of` between two words that make a heading with it."""
    if clause[at].lower() != LINK or not 0 < at < len(clause) - 1 or at - 1 in first_shut or at + 1 in first_shut:
        return False
    head, whole = clause[at - 1].lower(), clause[at + 1].lower()
    if _LONE_ADJECTIVE.search(whole) and not _is_name(clause[at + 1]):
        return False
    return _reads_well([head, LINK, whole]) and not whole.isdecimal() and not _is_vague(head)


def _announced(text: str, shut: Set[str]) -> Set[str]:
    """What a sentence says next after its cue: roses, after "the first question is about"."""
    lowered = text.lower()
    ends = [cue.end() for name in ("topic", "transition") for cue in CUES[name].finditer(lowered)]
    after = WORD.findall(lowered[max(ends) :]) if ends else []
    opens = next((index for index, word in enumerate(after) if word not in shut), len(after))
    closes = next((index for index in range(opens, len(after)) if after[index] in shut), len(after))
    return frozenset(after[opens:closes]) if opens <= CUE_REACH else frozenset()


def _reads_well(phrase: Sequence[str]) -> bool:
    if len(set(phrase)) < len(phrase) or phrase[0].isdecimal() or phrase[-1].endswith("ly"):
        return False
    if "per" in (phrase[0], phrase[-1]) or phrase[-1] == "new":
        return False
    if len(phrase) > 1:
        return True
    return len(phrase[0]) > 2 and not phrase[0][0].isdecimal() and not _is_vague(phrase[0])


def _is_vague(word: str) -> bool:
    """A word that says nothing alone, and nothing before `of`: part of, kind of, piece of."""
    return stem(word) in word_list("generic")


def _spellings(clauses: Iterable[Sequence[str]]) -> dict[str, str]:
    """Each word as it is mostly written within a clause, so that names and acronyms keep their capitals.

    A clause's first word only counts where it is written with more than a capital first (UTXO, v30).
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for clause in clauses:
        for index, word in enumerate(clause):
            if index or word[1:] != word[1:].lower():
                seen[word.lower()][word] += 1
    return {lower: max(forms.items(), key=lambda item: (item[1], item[0]))[0] for lower, forms in seen.items()}


def _common_words(clauses: Iterable[Sequence[str]]) -> Set[str]:
    """Where our list of stop words knows few of the words (another language), the most frequent short ones."""
    counts = Counter(word for clause in clauses for word in clause)
    total = counts.total()
    known = sum(count for word, count in counts.items() if word in noise())
    if known >= 0.25 * total:
        return frozenset()
    return {word for word, count in counts.items() if count >= max(3, 0.01 * total) and len(word) <= 4}


def _mostly_nested(tallies: dict[Key, _Tally]) -> set[Key]:
    nested = set()
    for key, tally in tallies.items():
        for shorter in _inner(key):
            if tally.count >= 2 and shorter in tallies and tally.count >= 0.6 * tallies[shorter].count:
                nested.add(shorter)
    return nested


def _inner(key: Key) -> Iterator[Key]:
    for size in range(1, len(key)):
        for first in range(len(key) - size + 1):
            yield key[first : first + size]


def _is_name(word: str) -> bool:
    """A capital or digit anywhere (Lightning, UTXO, v30)."""
    return word != word.lower() or any(letter.isdigit() for letter in word)
