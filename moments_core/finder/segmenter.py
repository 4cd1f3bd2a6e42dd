"""Where to cut: dynamic programming over passages, bounded in time and memory for talks of any length."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

# Chapters a talk of so many seconds has: fitted to talks with human chapters, 12.9 in the first hour.
COUNT_FACTOR, COUNT_POWER = 0.0431, 0.70
LONGEST_OF_USUAL = 5.0  # times the usual length; no chapter of the tuning talks was longer
# Passages one segment can hold. Bounds the work at count x this: 20,000 one-word captions stay under 10 s.
MOST_PASSAGES = 1_500


@dataclass(frozen=True, slots=True)
class Costs:
    """How much each thing counts in a segmentation.

    `spread`: squared error within a segment; `boundary`: the evidence for its first passage, clipped to
    `lowest`..`highest`; `length`: the squared log of its length over the usual one.
    """

    spread: float = 2.0
    boundary: float = 1.0
    length: float = 0.5
    lowest: float = -2.0
    highest: float = 4.0


@dataclass(frozen=True, slots=True)
class Track:
    """Passages in time order, as the segmenter sees them.

    `topics`: a row each; `evidence`: for a new moment at each, in standard deviations; `bounds_s`: the start of
    each, strictly rising, and the end of the last.
    """

    topics: Matrix
    evidence: Vector
    bounds_s: Vector

    def part(self, first: int, last: int) -> Track:
        """Passages `first` up to, not including, `last`."""
        return Track(self.topics[first:last], self.evidence[first:last], self.bounds_s[first : last + 1])

    @property
    def length_s(self) -> float:
        return float(self.bounds_s[-1]) - float(self.bounds_s[0])


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds that a segment may last, and usually does."""

    least_s: float
    usual_s: float
    most_s: float


def usual_count(seconds: float) -> float:
    """Moments that a talk of this length usually has; at least 1."""
    return max(1.0, COUNT_FACTOR * max(0.0, seconds) ** COUNT_POWER)


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
    return [0]


def _cheapest(track: Track, lengths: Lengths, costs: Costs) -> list[int]:
    """Exact dynamic program over (end of segment, segments so far); empty where no cut keeps the lengths.

    Takes the number of segments that is possible and nearest to the track's length over the usual one.
    """
    import numpy as np

    size = len(track.topics)
    wanted = max(1, round(track.length_s / lengths.usual_s))
    most = min(size, max(2 * wanted, wanted + 2, ceil(2 * size / MOST_PASSAGES)))
    best = np.full((size + 1, most + 1), np.inf)
    best[0, 0] = 0.0
    steps = np.zeros((size + 1, most + 1), dtype=np.int32)
    prices = _Prices(track, lengths, costs)
    for end in range(1, size + 1):
        begin = prices.begins(end)
        if not len(begin):
            continue
        total = best[begin, :-1] + prices.of(begin, end)[:, None]
        choice = total.argmin(axis=0)
        best[end, 1:] = total[choice, np.arange(most)]
        steps[end, 1:] = end - begin[choice]
    possible = np.flatnonzero(np.isfinite(best[size]))
    if not len(possible):
        return []
    return _walk_back(steps, size, int(possible[np.argmin(np.abs(possible - wanted))]))


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
        self._gain = costs.boundary * np.clip(track.evidence, costs.lowest, costs.highest)
        self._sums = np.vstack([np.zeros((1, track.topics.shape[1])), np.cumsum(track.topics, axis=0)])
        self._squares = np.append(0.0, np.cumsum((track.topics**2).sum(axis=1)))

    def begins(self, end: int) -> NDArray[np.int_]:
        """Passages at which a segment that ends before `end` may begin; a single long passage always may."""
        import numpy as np

        first = int(np.searchsorted(self._bounds, self._bounds[end] - self._lengths.most_s))
        first = max(min(first, end - 1), end - MOST_PASSAGES)
        last = int(np.searchsorted(self._bounds, self._bounds[end] - self._lengths.least_s, side="right"))
        return np.arange(first, min(last, end))

    def of(self, begin: NDArray[np.int_], end: int) -> Vector:
        import numpy as np

        inside = ((self._sums[end] - self._sums[begin]) ** 2).sum(axis=1) / (end - begin)
        spread = self._squares[end] - self._squares[begin] - inside
        length = np.log((self._bounds[end] - self._bounds[begin]) / self._lengths.usual_s) ** 2
        price = self._costs.spread * spread - self._gain[begin] + self._costs.length * length
        return np.asarray(price)
