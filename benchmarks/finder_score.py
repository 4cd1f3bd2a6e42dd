"""How well found moments match chapters made by people: boundary F1, chapter F1, precision at IoU 0.5, Pk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]

# COCO's ladder of overlaps, 0.5 to 0.95; chapter F1 is the mean over it.
IOU_STEPS = tuple(0.5 + 0.05 * step for step in range(10))


@dataclass(frozen=True, slots=True)
class Scores:
    """Each in 0..1; `pk` is an error (lower is better), the others are better when higher."""

    chf1: float
    f1_10s: float
    p_50: float
    pk: float


def score(
    sentence_starts: Sequence[float], chapters: Sequence[int], duration: float, found: Sequence[Interval]
) -> Scores:
    """Compare `found` intervals (seconds) with chapters given by the index of their first sentence."""
    first = sentence_starts[0]
    wanted = [index for index in chapters if index > 0]
    wanted_s = [sentence_starts[index] for index in wanted]
    found_s = sorted({round(start, 2) for start, _ in found if start > first + 1})
    truth = list(zip([first, *wanted_s], [*wanted_s, duration], strict=True))
    table = [[_iou(chapter, interval) for interval in found] for chapter in truth]
    return Scores(
        chf1=sum(_interval_f1(table, step) for step in IOU_STEPS) / len(IOU_STEPS),
        f1_10s=boundary_f1(wanted_s, found_s, tolerance=10.0),
        p_50=_share(max(column) >= 0.5 for column in zip(*table, strict=True)),
        pk=pk(len(sentence_starts), wanted, sorted({_nearest(sentence_starts, time) for time in found_s} - {0})),
    )


def boundary_f1(wanted: Sequence[float], found: Sequence[float], *, tolerance: float) -> float:
    """F1 of boundaries matched one to one, nearest pairs first, within `tolerance` seconds."""
    pairs = sorted((abs(w - f), i, j) for i, w in enumerate(wanted) for j, f in enumerate(found))
    used_wanted: set[int] = set()
    used_found: set[int] = set()
    for distance, i, j in pairs:
        if distance <= tolerance and i not in used_wanted and j not in used_found:
            used_wanted.add(i)
            used_found.add(j)
    return 2 * len(used_found) / (len(wanted) + len(found)) if wanted or found else 0.0


def pk(sentences: int, wanted: Sequence[int], found: Sequence[int]) -> float:
    """Beeferman's Pk: how often two sentences half a chapter apart are wrongly taken to be in one or two segments."""
    reach = max(2, round(sentences / (len(wanted) + 1) / 2))
    wrong = [_apart(wanted, at, reach) != _apart(found, at, reach) for at in range(sentences - reach)]
    return _share(wrong)


def _apart(boundaries: Sequence[int], at: int, reach: int) -> bool:
    return any(at < boundary <= at + reach for boundary in boundaries)


def _interval_f1(table: Sequence[Sequence[float]], step: float) -> float:
    precision = _share(max(column) >= step - 1e-9 for column in zip(*table, strict=True))
    recall = _share(max(row) >= step - 1e-9 for row in table)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share(hits: Iterable[bool]) -> float:
    listed = list(hits)
    return sum(listed) / len(listed) if listed else 0.0


def _iou(one: Interval, other: Interval) -> float:
    both = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return both / max(1e-9, (one[1] - one[0]) + (other[1] - other[0]) - both)


def _nearest(times: Sequence[float], time: float) -> int:
    return min(range(len(times)), key=lambda index: abs(times[index] - time))
