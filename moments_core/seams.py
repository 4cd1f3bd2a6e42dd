"""Chunks of one sound that were heard one by one, joined to one stream of words.

Where a sound had to be cut inside of speech, both chunks hear the seconds around the cut. There most words are heard
twice, at times that differ by a frame or two, and those at a chunk's edge are damaged. So each word is taken from the
side of the middle, the seam, on which it lies. Deciding that by each side's own times would double or lose a word
which one side puts before the seam and the other behind it: the two hearings are aligned by what they say first, and
a word that both heard is one word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product, takewhile

from moments_core.heard import HeardWord
from moments_core.time import Span

# A recogniser's frame lasts 80 ms, and the same word moves by one or two of them with what is heard around it. Six
# frames still tell a repeated word from itself: two equal words seldom begin within half a second.
SAME_WORD_MS = 500
MOST_COMPARED = 200  # words of an overlap on each side: seconds hold a dozen, a server that lies could name thousands


@dataclass(frozen=True, slots=True)
class HeardChunk:
    """What was heard in `span` of the video; the words' times count from the chunk's start, in the order spoken."""

    span: Span
    words: tuple[HeardWord, ...]


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
    pairs = [(first + left, right) for left, right in _aligned(before[first:], after[: min(end, MOST_COMPARED)])]
    seam_ms = (shared.start_ms + shared.end_ms) // 2
    early = list(takewhile(lambda pair: before[pair[0]].middle_ms + after[pair[1]].middle_ms < 2 * seam_ms, pairs))
    # What both heard comes from the side whose edge is farther away: the other may have cut it, "so" for "so."
    last = early[-1] if early else (-1, -1)
    next_pair = pairs[len(early)] if len(early) < len(pairs) else (len(before), len(after))
    between = _parted(before[last[0] + 1 : next_pair[0]], after[last[1] + 1 : next_pair[1]], seam_ms)
    return before[: last[0] + 1] + between + after[next_pair[1] :]


def _parted(before: list[HeardWord], after: list[HeardWord], seam_ms: int) -> list[HeardWord]:
    """Each word by its middle against the seam; of two for the same sound, one cut word heard twice, the longer."""
    left = [word for word in before if word.middle_ms < seam_ms]
    right = [word for word in after if word.middle_ms >= seam_ms]
    if left and right and _are_of_one_sound(left[-1], right[0]):
        if _length_ms(left[-1]) < _length_ms(right[0]):
            left.pop()
        else:
            right.pop(0)
    return left + right


def _are_of_one_sound(one: HeardWord, other: HeardWord) -> bool:
    both_ms = min(one.end_ms, other.end_ms) - max(one.start_ms, other.start_ms)
    return 2 * both_ms > min(_length_ms(one), _length_ms(other))


def _length_ms(word: HeardWord) -> int:
    return word.end_ms - word.start_ms


def _aligned(one: Sequence[HeardWord], other: Sequence[HeardWord]) -> list[tuple[int, int]]:
    """Index pairs of words that are the same, both rising: those that lie closest together in all.

    The longest common subsequence, each pair counted by how well its times agree: of "no, no, no" heard three times
    here and twice there, the right two are paired. Some 15 words a side.
    """
    keys, other_keys = [_key(word.text) for word in one], [_key(word.text) for word in other]
    best: dict[tuple[int, int], tuple[int, tuple[tuple[int, int], ...]]] = {}
    nothing: tuple[int, tuple[tuple[int, int], ...]] = (0, ())
    for left, right in product(range(len(one)), range(len(other))):
        choices = [best.get((left - 1, right), nothing), best.get((left, right - 1), nothing)]
        merit = SAME_WORD_MS - abs(one[left].start_ms - other[right].start_ms)
        if merit > 0 and keys[left] == other_keys[right]:
            score, pairs = best.get((left - 1, right - 1), nothing)
            choices.append((score + merit, (*pairs, (left, right))))
        best[left, right] = max(choices, key=lambda choice: choice[0])
    return list(best[len(one) - 1, len(other) - 1][1]) if one and other else []


def _key(text: str) -> str:
    """What is compared: a recogniser that lacks what comes before writes "Then" for "then," or "then" for "then."."""
    return "".join(filter(str.isalnum, text.casefold())) or text
