"""A small copy of a clip for models that watch: what any decoder makes of it is exact, edit lists or none."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from moments_core.errors import MediaError
from moments_core.time import to_seconds
from moments_resources.media.container import compiled, guarded_input, opened, picture_stream
from moments_resources.media.runner import FfmpegRunner, Finished, ProgressCallback, whole_file

#: Names how a proxy is made: part of what a reply depends on. A change below is a change here.
PROXY_RECIPE = "proxy-1"

# A boundary can be told to a quarter of a second, which is about as exact as a viewer notices. Qwen-VL looks at 2
# pictures a second: every second one of these, at its own time.
_RATE = Fraction(4)

# 5 minutes at 4/s. Models take 768 pictures or fewer; a longer clip gets half the rate, or a quarter, so that every
# picture stays at a multiple of 250 ms.
_MOST_FRAMES = 1200

# Vision models cut a picture into patches of 28x28 and spend some 100 to 300 tokens on one of this size.
_LONGEST_SIDE = 480

# A decoder that seeks finds a key frame within 5 s.
_KEY_FRAME_S = 5

# Nearly all of it is decoding, which runs at 5-20 times real time at 1080p on one core.
_TIMEOUT_S = 120.0
_TIMEOUT_PER_SECOND = 5.0


@dataclass(frozen=True, slots=True)
class ProxyReport:
    """A proxy as it was written: picture k starts at exactly k / `fps` seconds. `cpu_s`: what ffmpeg took."""

    bytes: int
    duration_ms: int
    frames: int
    fps: Fraction
    width: int
    height: int
    cpu_s: float


def make_proxy(
    runner: FfmpegRunner, clip: Path, target: Path, *, on_progress: ProgressCallback | None = None
) -> ProxyReport:
    """Write the pictures of `clip` (as `cut_clip` makes it) as a small silent MP4 without edit list and B-frames.

    The picture at a time is the one that the clip shows at that time. It lasts as long as the clip, less what does
    not fill a picture: so no time in it lies after the clip's end. No part of `target` is left behind by a failure.

    Raises:
        MediaError: the clip can't be decoded.
    """
    shape = _shape_of(clip)
    with whole_file(target) as part:
        finished = _encoded(runner, clip, part, shape, on_progress)
        return ProxyReport(
            bytes=part.stat().st_size,
            duration_ms=int(shape.frames * 1000 / shape.rate),
            frames=shape.frames,
            fps=shape.rate,
            width=shape.width,
            height=shape.height,
            cpu_s=finished.cpu_s,
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """How a proxy will look; `duration_ms` is its clip's."""

    duration_ms: int
    frames: int
    rate: Fraction
    width: int
    height: int


def shape_of(duration_ms: int, width: int, height: int) -> Shape:
    """The shape for a clip of this length and size: never enlarged, even sizes, as many pictures as are allowed."""
    rate = _RATE
    while duration_ms * rate / 1000 > _MOST_FRAMES:
        rate /= 2
    shrink = max(Fraction(1), Fraction(max(width, height), _LONGEST_SIDE))
    return Shape(
        duration_ms=duration_ms,
        frames=max(1, int(duration_ms * rate / 1000)),
        rate=rate,
        width=max(2, 2 * round(width / shrink / 2)),
        height=max(2, 2 * round(height / shrink / 2)),
    )


def proxy_command(clip: Path, target: Path, shape: Shape) -> list[str]:
    steady = (
        guarded_input(clip)["v:0"]
        # Rounded up, a picture comes at the first multiple at or after its time: what is shown at a multiple is then
        # what the clip shows there, never what comes up to half a picture later.
        .filter("fps", f"{shape.rate.numerator}/{shape.rate.denominator}", start_time=0, round="up")
        .filter("trim", end_frame=shape.frames)
        .filter("scale", shape.width, shape.height, flags="area")
    )
    return compiled([silent_mp4(steady, target, shape.rate)])


def silent_mp4(picture: Any, target: Path, rate: Fraction) -> Any:
    """`picture` (a node, at a constant `rate` from 0 on) as an output that every decoder reads with the same times."""
    import ffmpeg

    return ffmpeg.output(
        picture.filter("setsar", 1).filter("format", "yuv420p"),
        f"file:{target}",
        format="mp4",
        vcodec="libx264",
        preset="veryfast",
        crf=28,
        # Decoders of models ignore edit lists. Without B-frames none is needed, and the muxer is told to write none.
        bf=0,
        use_editlist=0,
        g=max(1, round(_KEY_FRAME_S * rate)),
        movflags="+faststart",
        map_metadata=-1,
        map_chapters=-1,
        # The same clip gives the same bytes, and so the same object key.
        fflags="+bitexact",
    )


def _encoded(
    runner: FfmpegRunner, clip: Path, target: Path, shape: Shape, on_progress: ProgressCallback | None
) -> Finished:
    timeout_s = _TIMEOUT_S + _TIMEOUT_PER_SECOND * to_seconds(shape.duration_ms)
    try:
        finished = runner.run(proxy_command(clip, target, shape), timeout_s=timeout_s, on_progress=on_progress)
    except MediaError as error:
        raise MediaError(f"The clip {clip.name} can't be decoded: cut it again.", **error.evidence) from error
    if finished.frames != shape.frames:
        raise MediaError(
            f"The clip {clip.name} does not decode to its end: cut it again.",
            frames=finished.frames,
            expected=shape.frames,
        )
    return finished


def _shape_of(clip: Path) -> Shape:
    with opened(clip) as container:
        video = picture_stream(container)
        if video is None or video.duration is None or video.time_base is None:
            raise MediaError(f"The clip {clip.name} holds no picture: cut it again.", file=clip.name)
        return shape_of(int(video.duration * video.time_base * 1000), video.width, video.height)
