"""Where the picture changes at once: shots of a film, slides of a talk."""

from __future__ import annotations

from pathlib import Path

from moments_core.time import to_seconds
from moments_resources.media.changes import HEIGHT, WIDTH, ChangeMeter, SceneCut, cuts_among
from moments_resources.media.clock import clock_keepers, constant_rate
from moments_resources.media.container import compiled, guarded_input
from moments_resources.media.probe import VideoProbe, probe_video
from moments_resources.media.runner import FfmpegRunner, ProgressCallback

__all__ = ["SceneCut", "scene_command", "scene_cuts"]

# Decoding alone runs at 20-60 times real time at 1080p; a hundred times slower under full load still makes it.
_TIMEOUT_S = 300.0
_TIMEOUT_PER_SECOND = 2.0


def scene_cuts(
    runner: FfmpegRunner,
    source: Path,
    probe: VideoProbe | None = None,
    *,
    on_progress: ProgressCallback | None = None,
) -> list[SceneCut]:
    """Cuts in time order, at least `MIN_GAP_MS` apart and from the start.

    `probe` is what `probe_video` said of `source`; asked for anew where it is left out.

    Raises:
        MediaError: the picture can't be decoded.
    """
    probe = probe or probe_video(source)
    meter = ChangeMeter()
    runner.run(
        scene_command(source, probe),
        timeout_s=_TIMEOUT_S + _TIMEOUT_PER_SECOND * to_seconds(probe.duration_ms),
        on_progress=on_progress,
        on_stdout=meter.add,
    )
    return cuts_among(meter.changes, frame_ms=float(1000 / constant_rate(probe)))


def scene_command(source: Path, probe: VideoProbe) -> list[str]:
    """One pass that writes every frame, small and raw, to stdout; frame `n` at `n / constant_rate(probe)`."""
    # Frames that no other refers to may stay unsmoothed: no error spreads from them.
    node = guarded_input(source, skip_loop_filter="noref")
    rate = constant_rate(probe)
    small = (
        node[str(probe.video_index)]
        .filter("scale", WIDTH, HEIGHT, flags="fast_bilinear")
        .filter("format", "yuv420p")
        .filter("fps", f"{rate.numerator}/{rate.denominator}", start_time=0)
        # A timestamp that jumps hours ahead would be filled with copies: hence the limit.
        .output("pipe:1", format="rawvideo", t=to_seconds(probe.duration_ms))
    )
    return compiled([small, *clock_keepers(node, probe, used={probe.video_index})])
