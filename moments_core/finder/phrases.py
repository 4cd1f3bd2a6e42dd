"""Candidate headings: runs of content words that a part says more often than the rest of the video."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from math import log
from typing import Final

from moments_core.finder.passages import Passage
from moments_core.finder.text import WORD, stem
from moments_core.finder.vocabulary import noise, word_list

MOST_WORDS = 4
_CLAUSE: Final = re.compile(r"[.,;:!?()\[\]{}\"“”…–—]+(?:\s|$)|\s[-–—]\s|[()\[\]\"“”]")
# A phrase of two or three words says what is meant; one word is vague, four are often a chance run.
_LENGTH_WORTH: Final = {1: 0.5, 2: 1.0, 3: 1.05, 4: 0.9}

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A candidate: its stems, how it is written, and its worth as a heading of one part."""

    key: Key
    shown: str
    worth: float


@dataclass(slots=True)
class _Tally:
    """What is known of a phrase in one part."""

    count: int = 0
    after_determiner: int = 0
    early: int = 0
    passages: set[int] = field(default_factory=set)


class PhraseBook:
    """Every phrase of a video, counted by part, and how each word is usually written."""

    def __init__(self, said_by_part: Sequence[Sequence[Passage]]) -> None:
        self._shut = noise() | word_list("never_in_title") | _common_words(said_by_part)
        self._spelling: dict[str, Counter[str]] = defaultdict(Counter)
        self._forms: dict[Key, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._tallies = [self._counted(part) for part in said_by_part]
        self._total: Counter[Key] = Counter()
        for tally in self._tallies:
            self._total.update({key: one.count for key, one in tally.items()})
        self._sizes = [max(1, sum(len(passage.terms) for passage in part)) for part in said_by_part]

    def candidates(self, part: int) -> list[Phrase]:
        """Phrases of the part, best first; a phrase that mostly stands within a longer one is left out."""
        tallies = self._tallies[part]
        worth = {key: self._worth(key, tally, self._sizes[part]) for key, tally in tallies.items()}
        nested = _mostly_nested(tallies)
        ranked = sorted((key for key in worth if key not in nested), key=lambda key: (-worth[key], key))
        return [Phrase(key, self._shown(key), worth[key]) for key in ranked[:40]]

    def _counted(self, part: Sequence[Passage]) -> dict[Key, _Tally]:
        tallies: dict[Key, _Tally] = defaultdict(_Tally)
        for place, passage in enumerate(part):
            for before, run in self._runs(passage.text):
                for phrase, left in _grams(run, before):
                    tally = tallies[tuple(stem(word.lower()) for word in phrase)]
                    self._forms[tuple(stem(word.lower()) for word in phrase)][tuple(w.lower() for w in phrase)] += 1
                    tally.count += 1
                    tally.after_determiner += left in word_list("determiners")
                    tally.early += place < max(3, len(part) // 8)
                    tally.passages.add(place)
        return tallies

    def _runs(self, text: str) -> Iterator[tuple[str, list[str]]]:
        """Maximal runs of words that may stand in a heading, each with the word before it."""
        for clause in _CLAUSE.split(text.replace("’", "'")):
            before, run = "", list[str]()
            for index, word in enumerate(WORD.findall(clause)):
                lower = word.lower()
                if index:
                    self._spelling[lower][word] += 1
                else:
                    self._spelling[lower][word if _is_name(word) else lower] += 0
                if self._may_stand(lower):
                    run.append(word)
                    continue
                if run:
                    yield before, run
                before, run = lower, []
            if run:
                yield before, run

    def _may_stand(self, lower: str) -> bool:
        return lower not in self._shut and len(lower) <= 30 and not lower.endswith("n't")

    def _worth(self, key: Key, tally: _Tally, size: int) -> float:
        elsewhere = self._total[key] - tally.count
        others = max(1, sum(self._sizes) - size)
        contrast = log(1 + (tally.count / size) / ((elsewhere + 0.5) / (others + size)))
        often = log(1 + len(tally.passages)) ** 1.5
        noun = 0.7 + 0.5 * tally.after_determiner / tally.count
        early = 1.0 + 0.4 * min(1.0, tally.early)
        generic: float = 0.5 ** sum(word in word_list("generic") for word in key)
        return often * contrast * noun * early * generic * self._name_bonus(key) * _LENGTH_WORTH[len(key)]

    def _name_bonus(self, key: Key) -> float:
        return 1.25 if any(_is_name(word) for word in self._shown(key).split()) else 1.0

    def _shown(self, key: Key) -> str:
        form = max(self._forms[key].items(), key=lambda item: (item[1], item[0]))[0]
        return " ".join(self.spelled(word) for word in form)

    def spelled(self, lower: str) -> str:
        """The word as it is mostly written within a sentence, so that names and acronyms keep their capitals."""
        seen = self._spelling[lower]
        return max(seen.items(), key=lambda item: (item[1], item[0]))[0] if seen else lower


def _common_words(said_by_part: Sequence[Sequence[Passage]]) -> Set[str]:
    """Where our list of stop words knows few of the words (another language), the most frequent short ones."""
    counts = Counter(word.lower() for part in said_by_part for passage in part for word in WORD.findall(passage.text))
    total = counts.total()
    known = sum(count for word, count in counts.items() if word in noise())
    if known >= 0.25 * total:
        return frozenset()
    return {word for word, count in counts.items() if count >= max(3, 0.01 * total) and len(word) <= 4}


def _grams(run: Sequence[str], before: str) -> Iterator[tuple[Sequence[str], str]]:
    """Every phrase of up to four words within a run that could be a heading, with the word before it."""
    for first in range(len(run)):
        for last in range(first + 1, min(len(run), first + MOST_WORDS) + 1):
            phrase = run[first:last]
            if _reads_well([word.lower() for word in phrase]):
                yield phrase, run[first - 1].lower() if first else before


def _reads_well(phrase: Sequence[str]) -> bool:
    if len(set(phrase)) < len(phrase) or all(word.isdecimal() for word in phrase):
        return False
    if phrase[-1].endswith("ly") or (
        len(phrase) == 1 and (len(phrase[0]) < 3 or stem(phrase[0]) in word_list("generic"))
    ):
        return False
    return not phrase[0].isdecimal()


def _mostly_nested(tallies: dict[Key, _Tally]) -> set[Key]:
    nested = set()
    for key, tally in tallies.items():
        for shorter in _inner(key):
            if shorter in tallies and tally.count >= 2 and tally.count >= 0.6 * tallies[shorter].count:
                nested.add(shorter)
    return nested


def _inner(key: Key) -> Iterable[Key]:
    for size in range(1, len(key)):
        for first in range(len(key) - size + 1):
            yield key[first : first + size]


def _is_name(word: str) -> bool:
    """Capitals or digits inside a word (UTXO, LoRa, v30) or a capital first."""
    return word != word.lower()
