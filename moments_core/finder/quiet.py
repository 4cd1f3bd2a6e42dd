"""Moments of a video in which nobody speaks: from scene cuts and loudness."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from moments_core.content import VideoContent
from moments_core.finder.features import zscored
from moments_core.finder.segmenter import Track, bounded, segment
from moments_core.moment import Moment
from moments_core.time import Span, clock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

NOTE = "No speech was found: moments follow scene changes and loudness."
MOST_UNITS = 2_000  # pieces of the video that are weighed; longer videos get coarser ones, from 1 s up
SILENT_DB = -60.0  # dBFS; room noise of a quiet room recorded well lies above
CUT, LOUDER = 2.0, 1 / 6  # evidence of a scene cut, and of a change of level by one dB
SPREAD_DB = 10.0  # change of level within a moment that costs as much as a change of topic


def quiet_moments(content: VideoContent, *, least_s: float, most_s: float | None) -> list[Moment]:
    """Moments that tile the video, in time order; the whole video where neither cuts nor levels are known."""
    edges = _edges(content)
    if not content.scene_cuts_ms and not content.rms_db:
        edges = [0, content.duration_ms] if most_s is None else edges
    levels = _levels(edges, content)
    starts = segment(_track(edges, levels, set(content.scene_cuts_ms)), least_s=least_s, most_s=most_s)
    bounds = [edges[start] for start in starts] + [content.duration_ms]
    spans = [Span(start, end) for start, end in pairwise(bounds)]
    return _titled(spans, _levels(bounds, content), heard=bool(content.rms_db))


def _edges(content: VideoContent) -> list[int]:
    """Where a moment may begin, and the end: scene cuts, and a grid where there are none; strictly rising."""
    step = max(1_000, -(-content.duration_ms // MOST_UNITS))
    edges = [0]
    for cut in [*sorted(cut for cut in content.scene_cuts_ms if 0 < cut < content.duration_ms), content.duration_ms]:
        edges.extend(range(edges[-1] + step, cut - step + 1, step))
        if cut - edges[-1] >= step // 2 or cut == content.duration_ms:
            edges.append(cut)
    return edges


def _levels(edges: Sequence[int], content: VideoContent) -> Vector:
    """Mean level in dBFS between each two edges; -120 where none is known."""
    import numpy as np

    if not content.rms_db:
        return np.full(len(edges) - 1, -120.0)
    known = np.clip(np.nan_to_num(np.array(content.rms_db, float), nan=-120.0), -120.0, 0.0)
    sums = np.append(0.0, np.cumsum(known))
    first = np.minimum(np.array(edges[:-1]) // 1000, len(known) - 1)
    last = np.maximum(np.minimum(-(-np.array(edges[1:]) // 1000), len(known)), first + 1)
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _track(edges: Sequence[int], levels: Vector, cuts: set[int]) -> Track:
    import numpy as np

    is_cut = np.array([edge in cuts for edge in edges[:-1]], float)
    change = np.abs(np.diff(levels, prepend=levels[0]))
    evidence = bounded(zscored(CUT * is_cut + LOUDER * change))
    return Track(levels[:, None] / SPREAD_DB, evidence, np.array(edges, float) / 1000)


def _titled(spans: Sequence[Span], levels: Vector, *, heard: bool) -> list[Moment]:
    import numpy as np

    scores = 1 / (1 + np.exp(-zscored(levels)))
    loudest = int(levels.argmax()) if heard and len(spans) > 1 and levels.max() > SILENT_DB else -1
    return [
        Moment(
            span, _title(number, span, silent=level < SILENT_DB, loudest=number - 1 == loudest), round(float(score), 3)
        )
        for number, (span, level, score) in enumerate(zip(spans, levels, scores, strict=True), start=1)
    ]


def _title(number: int, span: Span, *, silent: bool, loudest: bool) -> str:
    kind = "Silent scene" if silent else "Scene"
    return f"{kind} {number} at {clock(span.start_ms)}{', loudest part' if loudest else ''}"


def silence_at_end(span: Span, silences: Sequence[Span], *, from_ms: int) -> int | None:
    """Where the silence begins that lasts to the end of `span`, if it begins at or after `from_ms`.

    `silences` are in time order and don't overlap.
    """
    at = bisect_right(silences, span.end_ms, key=lambda silence: silence.start_ms) - 1
    if at < 0 or silences[at].end_ms < span.end_ms - 500 or silences[at].start_ms < from_ms:
        return None
    return silences[at].start_ms
