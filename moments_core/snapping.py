"""Refining without a model: a moment's boundaries move to where an editor would cut.

Every place to cut has a price: what is wrong with it (in milliseconds) plus how far away it is, and each boundary
takes the cheapest. Distance obeys the triangle inequality, so the place that was chosen is also the cheapest seen
from itself: refining twice changes nothing. The prices are the budgets: from a word, a sentence is worth up to
`WORD - SENTENCE` = 5 s outwards, a scene cut or a pause 1 s; half of that into the moment.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar, TypeVar

from moments_core.content import ShownMoment, VideoContent
from moments_core.errors import CheckError
from moments_core.moment import Moment, Refined
from moments_core.time import Span
from moments_core.transcript import TimedText

SENTENCE = 0  # nothing is wrong with a whole sentence
SCENE_CUT = 4_000  # the picture agrees, what is said may not
PAUSE = 4_000  # nobody is cut off, but a thought may be
WORD = 5_000  # somewhere in a sentence; 5 s are 13 words, so most sentences are in reach, other moments are not
EDGE = 5_800  # hard on a word, without the pause beside it: only where that pause is out of reach
STAY = 6_000  # nowhere in particular, between two words
INWARD = 2  # what is cut away may be what the finder meant; what is added only costs time

LEAD_MS = 250  # before the first word: a breath, and recognisers hear a soft start late
TAIL_MS = 350  # after the last word: its sound dies away, and a viewer takes leave
NEAR_MS = 1_000  # a scene cut or a measured silence this near to a word goes with it
MIN_LENGTH_MS = 1_000  # shorter than that nothing can be understood

T = TypeVar("T")
_start = attrgetter("start_ms")
_end = attrgetter("end_ms")


@dataclass(frozen=True, slots=True)
class _Place:
    """Somewhere to cut. `price`: what is wrong with it, in milliseconds of distance."""

    at_ms: int
    price: int
    name: str


class LocalRefiner:
    """Snaps to sentences, words, pauses and scene cuts; the same input always gives the same boundaries.

    Takes words, sentences, silences and scene cuts in time order, as every committed asset has them.
    """

    recipe: ClassVar[str] = "local-snap-1"

    def refine_all(
        self,
        shown: Sequence[ShownMoment],
        content: VideoContent,
        *,
        on_progress: Callable[[float], None] | None = None,  # noqa: ARG002 - done in milliseconds
    ) -> list[Refined]:
        """Each moment with boundaries that cut no word, inside its clip."""
        return [self.refine(item.moment, content, within=item.plan.clip) for item in shown]

    def refine(self, moment: Moment, content: VideoContent, *, within: Span) -> Refined:
        """The moment with boundaries that cut no word, inside `within`.

        Never leaves less than a second, or than there was. A word is cut only where `within` cuts it. Raises
        CheckError where the moment lies outside of `within`.
        """
        asked = moment.span.clamped(within)
        if asked is None:
            raise CheckError(
                f"The moment {moment.span} lies outside of its clip ({within}): cut the clips again.",
                moment=str(moment.span),
                within=str(within),
            )
        around = _Surroundings(content, within)
        shortest = min(MIN_LENGTH_MS, asked.length_ms)
        start = around.best_start(asked.start_ms, before_ms=within.end_ms - shortest)
        end = around.best_end(asked.end_ms, after_ms=start.at_ms + shortest)
        span = Span(start.at_ms, end.at_ms) if end.at_ms - start.at_ms >= shortest else asked
        return Refined(span, _note(moment.span, span, start, end))


def _note(before: Span, after: Span, start: _Place, end: _Place) -> str:
    moved = [
        f"{side} to {place.name if place.at_ms == new else 'its clip'} ({(new - old) / 1000:+.2f} s)".replace("-", "−")
        for side, place, old, new in (
            ("start", start, before.start_ms, after.start_ms),
            ("end", end, before.end_ms, after.end_ms),
        )
        if new != old
    ]
    if moved:
        return "; ".join(moved)
    if (start.at_ms, end.at_ms) != (before.start_ms, before.end_ms):
        return "unchanged: nothing would be left of it"
    return f"unchanged: start at {start.name}, end at {end.name}"


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What lies around a boundary; every look-up is a bisection, so an hour costs what a minute costs."""

    content: VideoContent
    within: Span

    @property
    def spoken(self) -> Sequence[TimedText]:
        return self.content.words or self.content.sentences

    def best_start(self, at_ms: int, *, before_ms: int) -> _Place:
        return self._cheapest(at_ms, self._starts, self.within.start_ms, before_ms, outward=-1)

    def best_end(self, at_ms: int, *, after_ms: int) -> _Place:
        return self._cheapest(at_ms, self._ends, after_ms, self.within.end_ms, outward=1)

    def _cheapest(
        self, at_ms: int, places: Callable[[int, int], Iterator[_Place]], first_ms: int, last_ms: int, *, outward: int
    ) -> _Place:
        """The cheapest place in first_ms..last_ms; `at_ms` itself where there is none."""
        stay = _Place(at_ms, STAY, "no word, pause or scene cut nearby")
        cut_word = self._word_over(at_ms)
        # An edge of a word that is cut costs no more than this; what costs more was not searched for exhaustively.
        most = EDGE + INWARD * cut_word.span.length_ms if cut_word else STAY

        def cost(place: _Place) -> tuple[int, int, int]:
            away = (place.at_ms - at_ms) * outward
            return place.price + max(away, -INWARD * away), abs(away), place.at_ms

        allowed = (
            place
            for place in (stay, *places(at_ms, most))
            if first_ms <= place.at_ms <= last_ms and cost(place)[0] <= most and not self._word_over(place.at_ms)
        )
        return min(allowed, key=cost, default=stay)

    def _starts(self, at_ms: int, most: int) -> Iterator[_Place]:
        for sentence in _around(self.content.sentences, at_ms, most - SENTENCE, _start):
            yield _Place(self._lead_in(sentence.start_ms), SENTENCE, "the start of a sentence")
        for silence in _around(self.content.silences, at_ms, most - PAUSE, _end):
            yield _Place(silence.end_ms - min(LEAD_MS, silence.length_ms // 2), PAUSE, "the end of a pause")
        for word in _around(self.content.words, at_ms, most - WORD, _start):
            yield _Place(self._lead_in(word.start_ms), WORD, "the start of a word")
        yield from self._either(at_ms, most)

    def _ends(self, at_ms: int, most: int) -> Iterator[_Place]:
        for sentence in _around(self.content.sentences, at_ms, most - SENTENCE, _end):
            yield _Place(self._lead_out(sentence.end_ms), SENTENCE, "the end of a sentence")
        for silence in _around(self.content.silences, at_ms, most - PAUSE, _start):
            yield _Place(silence.start_ms + min(TAIL_MS, silence.length_ms // 2), PAUSE, "a pause")
        for word in _around(self.content.words, at_ms, most - WORD, _end):
            yield _Place(self._lead_out(word.end_ms), WORD, "the end of a word")
        yield from self._either(at_ms, most)

    def _either(self, at_ms: int, most: int) -> Iterator[_Place]:
        """Places that suit a start and an end alike."""
        for cut in _around(self.content.scene_cuts_ms, at_ms, most - SCENE_CUT, int):
            yield _Place(cut, SCENE_CUT, "a scene cut")
        for word in _around(self.spoken, at_ms, most - EDGE, _start):
            yield _Place(word.start_ms, EDGE, "the edge of a word")
        for word in _around(self.spoken, at_ms, most - EDGE, _end):
            yield _Place(word.end_ms, EDGE, "the edge of a word")

    def _word_over(self, at_ms: int) -> TimedText | None:
        """The word that a cut here would go through."""
        index = bisect_left(self.spoken, at_ms, key=_start) - 1
        return self.spoken[index] if index >= 0 and at_ms < self.spoken[index].end_ms else None

    def _lead_in(self, word_ms: int) -> int:
        """Where to start before a word that begins at `word_ms`: at a scene cut near by, else a little earlier.

        Never before the middle of the pause: the other half is of the words before it.
        """
        index = bisect_left(self.spoken, word_ms, key=_start) - 1
        free_from = min(max(self.spoken[index].end_ms if index >= 0 else 0, self.within.start_ms), word_ms)
        near = max(free_from, word_ms - NEAR_MS)
        cut = bisect_right(self.content.scene_cuts_ms, word_ms) - 1
        if cut >= 0 and self.content.scene_cuts_ms[cut] >= near:
            return self.content.scene_cuts_ms[cut]
        silence = bisect_left(self.content.silences, word_ms, key=_start) - 1
        if silence >= 0 and (quiet := _common(self.content.silences[silence], near, word_ms)):
            return quiet.end_ms - min(LEAD_MS, quiet.length_ms // 2)
        return word_ms - min(LEAD_MS, (word_ms - free_from) // 2)

    def _lead_out(self, word_ms: int) -> int:
        """Where to end after a word that ends at `word_ms`; the mirror image of `_lead_in`."""
        index = bisect_left(self.spoken, word_ms, key=_start)
        free_to = self.spoken[index].start_ms if index < len(self.spoken) else self.content.duration_ms
        free_to = max(min(free_to, self.within.end_ms), word_ms)
        near = min(free_to, word_ms + NEAR_MS)
        cut = bisect_left(self.content.scene_cuts_ms, word_ms)
        if cut < len(self.content.scene_cuts_ms) and self.content.scene_cuts_ms[cut] <= near:
            return self.content.scene_cuts_ms[cut]
        silence = bisect_right(self.content.silences, word_ms, key=_end)
        if silence < len(self.content.silences) and (quiet := _common(self.content.silences[silence], word_ms, near)):
            return quiet.start_ms + min(TAIL_MS, quiet.length_ms // 2)
        return word_ms + min(TAIL_MS, (free_to - word_ms) // 2)


def _around(items: Sequence[T], at_ms: int, reach_ms: int, time: Callable[[T], int]) -> Sequence[T]:
    return items[bisect_left(items, at_ms - reach_ms, key=time) : bisect_right(items, at_ms + reach_ms, key=time)]


def _common(span: Span, start_ms: int, end_ms: int) -> Span | None:
    first, last = max(span.start_ms, start_ms), min(span.end_ms, end_ms)
    return Span(first, last) if first < last else None
