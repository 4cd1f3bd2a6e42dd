"""Headings for the parts of a video, made of what each says and the others don't."""

from __future__ import annotations

from collections.abc import Sequence

from moments_core.finder.passages import Passage
from moments_core.finder.phrases import Phrase, PhraseBook
from moments_core.finder.salience import Part
from moments_core.time import clock

LONGEST = 80  # characters
MOST_WORDS = 8
# Of the best phrase's worth, for a second one to stand beside it: one word alone says little, so it takes more.
SECOND_BESIDE_WORD, SECOND_BESIDE_PHRASE = 0.35, 0.8
# Of a word's worth, for a phrase that holds it, or another, to stand in its place.
FULLER, INSTEAD = 0.4, 0.8
NEAR = 2  # passages between the two at most, at their nearest


def titles(parts: Sequence[Part], said: Sequence[Passage]) -> list[str]:
    """A heading for each part; no two the same, none empty, none over 80 characters."""
    book = PhraseBook([said[part.first : part.last] for part in parts])
    used: set[str] = set()
    named = []
    for number, part in enumerate(parts, start=1):
        title = next((t for t in _headings(book.candidates(number - 1)) if t.lower() not in used), "")
        title = title or f"Part {number}, {clock(said[part.first].start_ms)}"
        used.add(title.lower())
        named.append(title)
    return named


def _headings(candidates: Sequence[Phrase]) -> list[str]:
    """Headings from the best down: each phrase with the one that belongs beside it, or alone."""
    headings = []
    for index, phrase in enumerate(candidates):
        others = [other for other in candidates[index + 1 :] if _goes_with(other, phrase)]
        pairs = [f"{phrase.shown} and {other.shown}" for other in others[:1]]
        for heading in [*_fuller(phrase, candidates), *pairs, phrase.shown]:
            if len(heading) <= LONGEST and len(heading.split()) <= MOST_WORDS:
                headings.append(_sentence_case(heading))
    return headings


def _fuller(phrase: Phrase, candidates: Sequence[Phrase]) -> list[str]:
    """Where `phrase` is one word, the phrase to stand in its place: one that holds it, else one nearly as good."""
    if len(phrase.key) > 1:
        return []
    longer = [one for one in candidates if len(one.key) > 1]
    holding = [one for one in longer if phrase.key[0] in one.key and one.worth >= FULLER * phrase.worth]
    instead = [one for one in longer if one.worth >= INSTEAD * phrase.worth]
    return [one.shown for one in [*holding[:1], *instead[:1]]]


def _goes_with(other: Phrase, phrase: Phrase) -> bool:
    """Whether two phrases are of like worth, on different things, and said near one another."""
    share = SECOND_BESIDE_WORD if len(phrase.key) == 1 else SECOND_BESIDE_PHRASE
    return other.worth >= share * phrase.worth and not _alike(other, phrase) and _together(other, phrase)


def _alike(other: Phrase, phrase: Phrase) -> bool:
    """Whether they share a word, or one is the other written apart (stable coins, stablecoins)."""
    short, long = sorted(("".join(other.key), "".join(phrase.key)), key=len)
    return bool(set(other.key) & set(phrase.key)) or short in long


def _together(other: Phrase, phrase: Phrase) -> bool:
    return any(abs(one - two) <= NEAR for one in phrase.places for two in other.places)


def _sentence_case(text: str) -> str:
    """First letter large, unless the word is written its own way (iPhone, eBay)."""
    first = text.split(" ", 1)[0]
    return text if first[1:] != first[1:].lower() else text[0].upper() + text[1:]
