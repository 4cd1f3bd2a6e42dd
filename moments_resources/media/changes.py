"""How much each picture differs from the one before, and which of these differences are cuts: pure arithmetic."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The picture is looked at in 160x90, YUV 4:2:0: colour counts as well, slides may differ in nothing else.
WIDTH, HEIGHT = 160, 90
_FRAME_BYTES = WIDTH * HEIGHT * 3 // 2

# A sample counts as changed from 16 of 255 on. Key frames renew the coding noise of the whole picture by 1-8, a
# line of text changes few samples by 50-200.
_CHANGED = 16

# Changes are the sum over all changed samples, in percent of full scale. Measured: coding noise and a small moving
# pointer stay below 0.1; a single line of a white slide that moves gives 0.25-0.6, a new slide 1-10, a cut of a
# film 5-50, a moving camera 0.5-3 in every frame.
_LEAST_CHANGE = 0.18
# A cut stands out of the movement around it: in one shot with a moving camera the liveliest frame reached 3.5
# times the mean of the second around it.
_TIMES_MOVEMENT = 4.0
# To each side: half a second at 25 frames/s.
_NEIGHBOURS = 12

# Two boundaries closer than this are one to a viewer (a flash, a fade).
MIN_GAP_MS = 500


@dataclass(frozen=True, slots=True)
class SceneCut:
    """The first frame of a new picture. `score` 0..1: mean change of the picture's samples."""

    time_ms: int
    score: float


class ChangeMeter:
    """Takes raw frames (`WIDTH` x `HEIGHT`, yuv420p) as they come; keeps 8 bytes a frame (7 MB for 10 h)."""

    def __init__(self) -> None:
        self.changes: array[float] = array("d")
        self._rest = b""
        self._last: NDArray[np.uint8] | None = None

    def add(self, chunk: bytes) -> None:
        import numpy as np

        data = self._rest + chunk
        whole = len(data) - len(data) % _FRAME_BYTES
        self._rest = data[whole:]
        for frame in np.frombuffer(data[:whole], np.uint8).reshape(-1, _FRAME_BYTES):
            self.changes.append(0.0 if self._last is None else _change(self._last, frame))
            self._last = frame


def cuts_among(changes: array[float], *, frame_ms: float) -> list[SceneCut]:
    """Cuts in time order, `MIN_GAP_MS` or more apart and from the start.

    `changes` holds one value a frame, in percent of full scale; frame `n` is shown from `n * frame_ms` on.
    """
    import numpy as np

    if not changes:
        return []
    values = np.asarray(changes)
    threshold = _LEAST_CHANGE + _TIMES_MOVEMENT * _movement_around(values)
    candidates = np.flatnonzero(values >= threshold)
    return _thinned([SceneCut(round(int(i) * frame_ms), round(float(values[i]) / 100, 4)) for i in candidates])


def _change(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    import numpy as np

    # The larger minus the smaller: the difference of unsigned bytes without widening them.
    difference = np.maximum(before, after) - np.minimum(before, after)
    return float(difference[difference >= _CHANGED].sum(dtype=np.uint32)) / (_FRAME_BYTES * 2.55)


def _movement_around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the `_NEIGHBOURS` values on each side of each value, itself left out."""
    import numpy as np

    sums = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(len(values))
    low, high = np.maximum(index - _NEIGHBOURS, 0), np.minimum(index + _NEIGHBOURS + 1, len(values))
    return np.asarray((sums[high] - sums[low] - values) / np.maximum(high - low - 1, 1))


def _thinned(cuts: list[SceneCut]) -> list[SceneCut]:
    """Of cuts that lie too close together the strongest; none at the start."""
    kept: list[SceneCut] = []
    for cut in cuts:
        if cut.time_ms < MIN_GAP_MS:
            continue
        if not kept or cut.time_ms - kept[-1].time_ms >= MIN_GAP_MS:
            kept.append(cut)
        elif cut.score > kept[-1].score:
            kept[-1] = cut
    return kept
