"""Chunks of one sound that were heard one by one, joined to one stream of words.

Where a sound had to be cut inside of speech, both chunks hear the seconds around the cut. There most words are heard
twice, at times that differ by a frame or two, and those at a chunk's edge are damaged. So the stream changes once from
the first hearing to the second, about the middle of what both heard. Each side's own times can't tell where: a word
that one side puts before the middle and the other behind it would be lost or doubled. The two hearings are laid side
by side first, word by word and also where they spell a word differently ("two", "2"), and the change comes between two
words of that one row.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import TypeAlias

from moments_core.heard import HeardWord
from moments_core.time import Span

# A recogniser's frame lasts 80 ms, and the same word moves by one or two of them with what is heard around it. Six
# frames still tell a repeated word from itself: two equal words seldom begin within half a second.
SAME_WORD_MS = 500
MOST_COMPARED = 200  # words of an overlap on each side: seconds hold a dozen, a server that lies could name thousands

# The same word spelled in two ways begins within five frames, as each side may be two off; two words side by side that
# only one of both heard each are rarer than that.
RESPELLED_MS = 400

# What a pair is worth, less the squares of the milliseconds by which its words differ in start and in length: many
# small differences are likelier than one large one. Of "no, nah" beside "nah, no" the two that lie together are
# paired, not the two that read the same; and a pair of two spellings is worth more than two words without a partner.
_ALIKE, _RESPELLED = 700**2, 600**2
_MOST_LONGER_MS = 300  # counted of a difference in length: an edge may have cut off any part of a word

_Chain: TypeAlias = "tuple[int, int, _Chain] | None"  # pairs of indexes, the last one first


@dataclass(frozen=True, slots=True)
class HeardChunk:
    """What was heard in `span` of the video; the words' times count from the chunk's start, in the order spoken."""

    span: Span
    words: tuple[HeardWord, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """One word as the two sides heard it, None for the side that did not. `alike`: both heard the same."""

    before: HeardWord | None
    after: HeardWord | None
    alike: bool = False

    @property
    def start_ms(self) -> int:
        return min(word.start_ms for word in (self.before, self.after) if word)

    @property
    def end_ms(self) -> int:
        return max(word.end_ms for word in (self.before, self.after) if word)

    @property
    def middle_ms(self) -> int:
        """The middle of both hearings: of a long word that both edges cut, the longer half then stays."""
        return (self.start_ms + self.end_ms) // 2


def joined(chunks: Sequence[HeardChunk]) -> list[HeardWord]:
    """The words of all chunks in the video's milliseconds, each word once and in the order spoken.

    Chunks are in time order and may overlap, but a third never reaches into the overlap of two others.
    """
    words: list[HeardWord] = []
    end_ms = 0
    for chunk in chunks:
        new = _in_video(chunk)
        shared = Span(chunk.span.start_ms, end_ms) if chunk.span.start_ms < end_ms else None
        words = _sewn(words, new, shared) if shared else words + new
        end_ms = chunk.span.end_ms
    return words


def _in_video(chunk: HeardChunk) -> list[HeardWord]:
    words = [word.later(chunk.span.start_ms) for word in chunk.words]
    if words:  # a segment has to end where its chunk does, but the sentence may go on
        words[-1] = replace(words[-1], ends_segment=False)
    return words


def _sewn(before: list[HeardWord], after: list[HeardWord], shared: Span) -> list[HeardWord]:
    first = next((at for at, word in enumerate(before) if word.end_ms > shared.start_ms - SAME_WORD_MS), len(before))
    first = max(first, len(before) - MOST_COMPARED)
    end = next((at for at, word in enumerate(after) if word.start_ms >= shared.end_ms + SAME_WORD_MS), len(after))
    end = min(end, MOST_COMPARED)
    seam_ms = (shared.start_ms + shared.end_ms) // 2
    row = _side_by_side(before[first:], after[:end])
    change = _change(row, seam_ms, shared.length_ms // 4)
    left = [place.before for place in row[:change] if place.before]
    right = [place.after for place in row[change:] if place.after]
    return before[:first] + left + right + [word for word in after[end:] if word.middle_ms >= seam_ms]


def _change(row: Sequence[_Place], seam_ms: int, detour_ms: int) -> int:
    """How many places come from the side before: those up to the seam, give or take what makes the change sure.

    It is sure beside a word that both heard alike, and in a pause. Elsewhere the sides may have heard another number
    of words ("twofold", "2 fold"), of which some would be lost. `detour_ms` is how far it may be moved for that.
    """
    too_late = list(accumulate((place.middle_ms - seam_ms for place in row), max, initial=0))
    too_early = list(accumulate((seam_ms - place.middle_ms for place in reversed(row)), max, initial=0))[::-1]
    costs = [max(too_late[at], too_early[at]) + (0 if _is_sure(row, at) else detour_ms) for at in range(len(row) + 1)]
    return max(range(len(costs)), key=lambda at: (-costs[at], at))


def _is_sure(row: Sequence[_Place], at: int) -> bool:
    left, right = row[max(at - 1, 0) : at], row[at : at + 1]
    if any(place.before is None for place in left) or any(place.after is None for place in right):
        return False  # a word would be left out, which the other side may have heard as its neighbour
    if any(place.alike for place in (*left, *right)):
        return True
    return bool(left and right) and right[0].start_ms - left[0].end_ms >= SAME_WORD_MS


def _side_by_side(before: Sequence[HeardWord], after: Sequence[HeardWord]) -> list[_Place]:
    row: list[_Place] = []
    left, right = 0, 0
    for pair in [*_aligned(before, after), (len(before), len(after))]:
        ours = [_Place(word, None) for word in before[left : pair[0]]]
        theirs = [_Place(None, word) for word in after[right : pair[1]]]
        row += heapq.merge(ours, theirs, key=lambda place: place.middle_ms)  # each side keeps its own order
        if pair[0] < len(before):
            one, other = before[pair[0]], after[pair[1]]
            row.append(_Place(one, other, alike=_key(one.text) == _key(other.text)))
        left, right = pair[0] + 1, pair[1] + 1
    return row


def _aligned(one: Sequence[HeardWord], other: Sequence[HeardWord]) -> list[tuple[int, int]]:
    """Index pairs of words that are the same, both rising: those that are worth the most in all. Some 15 a side."""
    keys, other_keys = [_key(word.text) for word in one], [_key(word.text) for word in other]
    best: dict[tuple[int, int], tuple[int, _Chain]] = {}
    nothing: tuple[int, _Chain] = (0, None)
    for left, right in product(range(len(one)), range(len(other))):
        choices = [best.get((left - 1, right), nothing), best.get((left, right - 1), nothing)]
        worth = _worth(one[left], other[right], alike=keys[left] == other_keys[right])
        if worth > 0:
            score, pairs = best.get((left - 1, right - 1), nothing)
            choices.append((score + worth, (left, right, pairs)))
        best[left, right] = max(choices, key=lambda choice: choice[0])
    return _unchained(best[len(one) - 1, len(other) - 1][1]) if one and other else []


def _worth(one: HeardWord, other: HeardWord, *, alike: bool) -> int:
    apart_ms = abs(one.start_ms - other.start_ms)
    if apart_ms >= (SAME_WORD_MS if alike else RESPELLED_MS):
        return 1 if _are_of_one_sound(one, other) else 0
    longer_ms = min(abs(_length_ms(one) - _length_ms(other)), _MOST_LONGER_MS)
    return (_ALIKE if alike else _RESPELLED) - apart_ms**2 - longer_ms**2


def _length_ms(word: HeardWord) -> int:
    return word.end_ms - word.start_ms


def _are_of_one_sound(one: HeardWord, other: HeardWord) -> bool:
    both_ms = min(one.end_ms, other.end_ms) - max(one.start_ms, other.start_ms)
    return 2 * both_ms > min(_length_ms(one), _length_ms(other))


def _unchained(chain: _Chain) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    while chain:
        left, right, chain = chain
        pairs.append((left, right))
    return pairs[::-1]


def _key(text: str) -> str:
    """What is compared: a recogniser that lacks what comes before writes "Then" for "then," or "then" for "then."."""
    return "".join(filter(str.isalnum, text.casefold())) or text
