"""Where to cut: dynamic programming over passages, bounded in time and memory for talks of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

# Chapters a talk of so many seconds has: fitted to talks with human chapters, 12.9 in the first hour.
COUNT_FACTOR, COUNT_POWER = 0.0431, 0.70
# Those talks lasted 19 min and more. Carried on to a clip of 3 min, the law gives one cut: editors of short videos
# cut more often, so below 11 min a moment every 45 s, up to four.
SHORT_S, SHORT_COUNT = 45.0, 4.0
LONGEST_OF_USUAL = 5.0  # times the usual length; 3 of 496 chapters set by people last longer
# What a segment more than usual must save: more than the evidence of words alone can give (`WORDS_MOST`), so that
# only what is seen or heard besides can add one. At most two more, from eight segments on a quarter.
EXTRA_COST, EXTRA_COUNT, EXTRA_SHARE = 4.5, 2, 0.25
# Bounds of the evidence of words, in deviations: beyond, one odd sentence would outweigh all others.
WORDS_LEAST, WORDS_MOST = -2.0, 4.0
# Passages one segment can hold. Bounds the work at count x this, whatever the captions.
MOST_PASSAGES = 1_000
# Segments that may have come more or less than expected by any point; exact for talks under 1 h 15.
BAND = 16


@dataclass(frozen=True, slots=True)
class Costs:
    """How much each thing counts in a segmentation.

    `spread`: squared error within a segment; `boundary`: the evidence for its first passage; `length`: the squared
    log of its length over the usual one; `extra`: what a segment more than usual must save.
    """

    spread: float = 2.0
    boundary: float = 1.0
    length: float = 0.5
    extra: float = EXTRA_COST


@dataclass(frozen=True, slots=True)
class Track:
    """Passages in time order, as the segmenter sees them.

    `topics`: a row each; `evidence`: log-odds of a new moment at each; `bounds_s`: the start of each, strictly
    rising, and the end of the last. `elastic`: the evidence is good enough for more segments than usual.
    """

    topics: Matrix
    evidence: Vector
    bounds_s: Vector
    elastic: bool = False

    def part(self, first: int, last: int) -> Track:
        """Passages `first` up to, not including, `last`."""
        return Track(self.topics[first:last], self.evidence[first:last], self.bounds_s[first : last + 1], self.elastic)

    @property
    def length_s(self) -> float:
        return float(self.bounds_s[-1]) - float(self.bounds_s[0])


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds that a segment may last, and usually does."""

    least_s: float
    usual_s: float
    most_s: float


def bounded(evidence: Vector) -> Vector:
    """Evidence of words or levels, in deviations, kept within what it may count."""
    import numpy as np

    return np.clip(evidence, WORDS_LEAST, WORDS_MOST)


def usual_count(seconds: float) -> float:
    """Moments that a video of this length usually has; at least 1."""
    short = min(SHORT_COUNT, seconds / SHORT_S)
    return max(1.0, short, COUNT_FACTOR * float(max(0.0, seconds) ** COUNT_POWER))


def segment(track: Track, *, least_s: float, most_s: float | None = None, costs: Costs | None = None) -> list[int]:
    """Indices of the passages that open a segment, the first always 0.

    First chapters of the usual length; then each one longer than `most_s` is cut again. Two steps, because
    the memory of one is passages x segments: a 10 h talk in 15 s pieces would take 300 MB at once.
    """
    costs = costs or Costs()
    usual_s = max(track.length_s / usual_count(track.length_s), 1.5 * least_s)
    chapters = _cut(track, Lengths(least_s, usual_s, LONGEST_OF_USUAL * usual_s), costs)
    if most_s is None:
        return chapters
    return [
        start
        for first, last in _pairs(chapters, len(track.topics))
        for start in _capped(track, first, last, least_s, most_s, costs)
    ]


def _pairs(starts: list[int], count: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], count], strict=True))


def _capped(track: Track, first: int, last: int, least_s: float, most_s: float, costs: Costs) -> list[int]:
    part = track.part(first, last)
    if part.length_s <= most_s or last - first == 1:
        return [first]
    usual_s = max(0.75 * most_s, (least_s + most_s) / 2)
    return [first + start for start in _cut(part, Lengths(least_s, usual_s, most_s), costs)]


def _cut(track: Track, lengths: Lengths, costs: Costs) -> list[int]:
    """The cheapest cut; where the lengths can't be kept (a long pause, one long sentence), the nearest that can."""
    for least_s, most_s in (
        (lengths.least_s, lengths.most_s),
        (lengths.least_s / 2, lengths.most_s),
        (0.0, lengths.most_s),
    ):
        starts = _cheapest(track, Lengths(least_s, lengths.usual_s, most_s), costs)
        if starts:
            return starts
    return _even(track, lengths.usual_s)


def _even(track: Track, usual_s: float) -> list[int]:
    """The last resort: the first passage of each usual length."""
    import numpy as np

    marks = track.bounds_s[0] + usual_s * np.arange(max(1, round(track.length_s / usual_s)))
    return sorted({int(start) for start in np.searchsorted(track.bounds_s[:-1], marks) if start < len(track.topics)})


def _cheapest(track: Track, lengths: Lengths, costs: Costs) -> list[int]:
    """Exact dynamic program over (end of segment, segments so far); empty where no cut keeps the lengths.

    Takes the number of segments that is possible and nearest to the track's length over the usual one, pauses
    left out.
    """
    import numpy as np

    size = len(track.topics)
    # A pause of an hour is no place for segments: no passage counts for more than one.
    expected = np.append(0.0, np.cumsum(np.minimum(np.diff(track.bounds_s) / lengths.usual_s, 1.0)))
    wanted = max(1, round(expected[-1]), size // MOST_PASSAGES)
    most = min(size, max(2 * wanted, wanted + 2))
    best = np.full((size + 1, most + 1), np.inf)
    best[0, 0] = 0.0
    steps = np.zeros((size + 1, most + 1), dtype=np.int32)
    prices = _Prices(track, lengths, costs)
    for end in range(1, size + 1):
        begin = prices.begins(end)
        if not len(begin):
            continue
        low = max(0, int(expected[end]) - BAND)
        high = min(most, int(expected[end]) + BAND)
        total = best[begin[0] : begin[-1] + 1, low:high] + prices.of(begin, end)[:, None]
        choice = total.argmin(axis=0)
        best[end, low + 1 : high + 1] = total[choice, np.arange(high - low)]
        steps[end, low + 1 : high + 1] = end - begin[choice]
    possible = np.flatnonzero(np.isfinite(best[size]))
    if not len(possible):
        return []
    nearest = int(possible[np.argmin(np.abs(possible - wanted))])
    return _walk_back(steps, size, _grown(best[size], nearest, costs) if track.elastic else nearest)


def _grown(prices: Vector, count: int, costs: Costs) -> int:
    """The count from `count` on that is cheapest, where each segment above it costs `extra`."""
    import numpy as np

    above = prices[count : count + max(EXTRA_COUNT, int(EXTRA_SHARE * count)) + 1]
    return count + int(np.argmin(above + costs.extra * np.arange(len(above))))


def _walk_back(steps: NDArray[np.int32], end: int, count: int) -> list[int]:
    starts = []
    while end > 0:
        end -= int(steps[end, count])
        count -= 1
        starts.append(end)
    return starts[::-1]


class _Prices:
    """Price of any segment, from running sums: no matrix of passages x passages."""

    def __init__(self, track: Track, lengths: Lengths, costs: Costs) -> None:
        import numpy as np

        self._bounds, self._lengths, self._costs = track.bounds_s, lengths, costs
        self._gain = costs.boundary * track.evidence
        self._sums = np.vstack([np.zeros((1, track.topics.shape[1])), np.cumsum(track.topics, axis=0)])
        self._squares = np.append(0.0, np.cumsum((track.topics**2).sum(axis=1)))
        self._norms = (self._sums**2).sum(axis=1)

    def begins(self, end: int) -> NDArray[np.int_]:
        """Passages at which a segment that ends before `end` may begin; a single long passage always may."""
        import numpy as np

        first = int(np.searchsorted(self._bounds, self._bounds[end] - self._lengths.most_s))
        first = max(min(first, end - 1), end - MOST_PASSAGES)
        last = int(np.searchsorted(self._bounds, self._bounds[end] - self._lengths.least_s, side="right"))
        return np.arange(first, min(last, end))

    def of(self, begin: NDArray[np.int_], end: int) -> Vector:
        import numpy as np

        run = slice(int(begin[0]), int(begin[-1]) + 1)
        between = self._norms[end] + self._norms[run] - 2 * (self._sums[run] @ self._sums[end])
        spread = self._squares[end] - self._squares[run] - between / (end - begin)
        length = np.log((self._bounds[end] - self._bounds[run]) / self._lengths.usual_s) ** 2
        price = self._costs.spread * spread - self._gain[run] + self._costs.length * length
        return np.asarray(price)
