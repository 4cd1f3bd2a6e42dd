"""Where the picture changes at once: shots of a film, slides of a talk."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core.time import to_ms, to_seconds
from moments_resources.media.clock import clock_keepers
from moments_resources.media.container import compiled, guarded_input
from moments_resources.media.probe import VideoProbe
from moments_resources.media.runner import FfmpegRunner, ProgressCallback

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Differences are mean absolute ones over the picture, in percent of full scale, at 160x90.
# Measured: a still talk's coding noise stays below 0.1; one line of a white slide that moves gives 0.3-0.8, a
# whole slide 2-10, a cut of a film 10-50, camera movement 1-5 in every frame.
_LEAST_CHANGE = 0.25
# A cut stands out of the movement around it: of one shot with a moving camera the liveliest frame reached 3.5
# times the mean of its half second.
_TIMES_MOVEMENT = 4.0
# Half a second to each side at 25 frames/s.
_NEIGHBOURS = 12
# Two boundaries closer than this are one to a viewer (a flash, a fade).
MIN_GAP_MS = 500

_WIDTH, _HEIGHT = 160, 90
_METADATA = "lavfi.scd.mafd"

# Decoding alone costs 20-60 times real time at 1080p; ten times slower than that under full load still makes it.
_TIMEOUT_S = 300.0
_TIMEOUT_PER_SECOND = 2.0


@dataclass(frozen=True, slots=True)
class SceneCut:
    """The first frame of a new picture. `score` 0..1: mean change of the picture's samples."""

    time_ms: int
    score: float


def scene_cuts(
    runner: FfmpegRunner,
    source: Path,
    probe: VideoProbe,
    *,
    on_progress: ProgressCallback | None = None,
) -> list[SceneCut]:
    """Cuts in time order, at least `MIN_GAP_MS` apart and from the start.

    Raises:
        MediaError: the picture can't be decoded.
    """
    differences = _Differences()
    runner.run(
        scene_command(source, probe),
        timeout_s=_TIMEOUT_S + _TIMEOUT_PER_SECOND * to_seconds(probe.duration_ms),
        on_progress=on_progress,
        on_stdout=differences.add,
    )
    return cuts_among(differences.times_ms, differences.values)


def scene_command(source: Path, probe: VideoProbe) -> list[str]:
    """One pass that prints each frame's time and its difference from the frame before."""
    # Frames that no other refers to may stay unsmoothed: no error spreads from them.
    node = guarded_input(source, skip_loop_filter="noref")
    printed = (
        node[str(probe.video_index)]
        .filter("scale", _WIDTH, _HEIGHT, flags="fast_bilinear")
        # Planes of colour too: slides of equal brightness differ in nothing else.
        .filter("format", "rgb24")
        .filter("scdet")
        .filter("metadata", "print", key=_METADATA, file="-")
        .output("-", format="null", fps_mode="passthrough")
    )
    return compiled([printed, *clock_keepers(node, probe, used={probe.video_index})])


def cuts_among(times_ms: array[int], differences: array[float]) -> list[SceneCut]:
    """Cuts among frames at `times_ms`, whose `differences` from the frame before are in percent of full scale."""
    import numpy as np

    if len(differences) == 0:
        return []
    values = np.asarray(differences)
    threshold = _LEAST_CHANGE + _TIMES_MOVEMENT * _movement_around(values)
    candidates = np.flatnonzero(values >= threshold)
    return _thinned([SceneCut(int(times_ms[i]), round(float(values[i]) / 100, 4)) for i in candidates])


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


class _Differences:
    """Reads what ffmpeg's `metadata=print` writes; 16 bytes a frame are kept (14 MB for 10 h at 25/s)."""

    def __init__(self) -> None:
        self.times_ms: array[int] = array("q")
        self.values: array[float] = array("d")
        self._rest = b""
        self._time_ms = 0

    def add(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._read(line)

    def _read(self, line: bytes) -> None:
        _, is_frame, time = line.partition(b"pts_time:")
        if is_frame:
            self._time_ms = to_ms(float(time))
        elif line.startswith(_METADATA.encode()):
            self.times_ms.append(self._time_ms)
            self.values.append(float(line.partition(b"=")[2]))
