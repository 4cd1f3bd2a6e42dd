"""Cuts a span out of a video, exact to the frame, as a file that any player shows alike."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from moments_core.errors import MediaError
from moments_core.time import Span, clock, to_seconds
from moments_resources.media.clock import clock_keepers
from moments_resources.media.container import compiled, guarded_input, opened, picture_stream
from moments_resources.media.probe import VideoProbe
from moments_resources.media.runner import FfmpegRunner, ProgressCallback, whole_file

# Rates between these are kept. More than 60/s no common screen shows. A slower one is multiplied by a whole
# number: the frames stay where they are, and the end of the clip is exact to 1/24 s.
_LOWEST_RATE, _HIGHEST_RATE = 24, 60

# Formats without an index of key frames: a seek lands anywhere, and decoding can only start at the next key frame.
# Broadcasts have one at least every 2-5 s, common encoders every 250 frames (10 s).
_UNINDEXED = frozenset({"mpegts", "mpeg", "mpegvideo", "flv", "ogg", "asf"})
_UNINDEXED_PREROLL_MS = 12_000

_SAMPLE_RATE = 48_000

# libx264 "veryfast" runs at 3-10 times real time at 1080p on 2 cores; ten times slower still makes it.
_TIMEOUT_S = 300.0
_TIMEOUT_PER_SECOND = 10.0


@dataclass(frozen=True, slots=True)
class ClipReport:
    """A clip as it was written. Both streams start at 0 and last `duration_ms`."""

    frames: int
    duration_ms: int
    width: int
    height: int
    bytes: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came out when a whole clip was decoded."""

    frames: int
    duration_ms: int


def cut_clip(
    runner: FfmpegRunner,
    source: Path,
    span: Span,
    target: Path,
    probe: VideoProbe,
    *,
    on_progress: ProgressCallback | None = None,
) -> ClipReport:
    """Encode `span` of `source` anew as MP4 (H.264, 8 bit, AAC), exact to one frame.

    Where the picture ends before the span does, its last frame is held; missing sound is silence. No part of
    `target` is left behind by a failure.

    Raises:
        MediaError: `span` starts after the end of the video, or it can't be decoded.
    """
    if span.start_ms >= probe.duration_ms:
        raise MediaError(
            f"The clip {span} starts after the end of {source.name} ({clock(probe.duration_ms)}).",
            duration_ms=probe.duration_ms,
        )
    with whole_file(target) as part:
        finished = runner.run(
            clip_command(source, span, part, probe),
            timeout_s=_TIMEOUT_S + _TIMEOUT_PER_SECOND * to_seconds(span.length_ms),
            on_progress=on_progress,
        )
        return _clip_report(part, finished.cpu_s)


def check_clip(runner: FfmpegRunner, path: Path) -> Decoded:
    """Decode a whole clip and count.

    Raises:
        MediaError: a part of it can't be decoded.
    """
    finished = runner.run(check_command(path), timeout_s=_TIMEOUT_S + path.stat().st_size / 1e5)
    if finished.stderr_text.strip():
        raise MediaError(
            f"The clip {path.name} does not decode cleanly: cut it again.", stderr_tail=finished.stderr_text[-1000:]
        )
    return Decoded(frames=finished.frames, duration_ms=finished.out_time_ms)


def check_command(path: Path) -> list[str]:
    """Decodes everything, and stops at the first error."""
    output = guarded_input(path).output("-", format="null", map=0)
    return compiled([output], options=("-xerror",))


def output_rate(probe: VideoProbe) -> Fraction:
    """Constant frame rate of clips of this video, 24..60."""
    rate = probe.frame_rate
    if probe.variable_frame_rate:
        # Slides last seconds and then a cursor moves: the mean says little, so the picture may change every 1/30 s.
        rate = max(rate, Fraction(30))
    if rate > _HIGHEST_RATE:
        return rate / ceil(rate / _HIGHEST_RATE)
    return rate * ceil(_LOWEST_RATE / rate)


def clip_command(source: Path, span: Span, target: Path, probe: VideoProbe) -> list[str]:
    """Seeks to a key frame before `span`, and lets filters, which count in time, do the exact cut."""
    preroll = _UNINDEXED_PREROLL_MS if probe.container in _UNINDEXED else 0
    seek_ms = max(0, span.start_ms - preroll)
    # ffmpeg's own exact seek drops the frame that is on screen when the span starts: on a slide of 10 s the clip
    # began with the next slide. At 0 no seek at all: in MPEG-TS it went to the second key frame.
    seek: dict[str, object] = {"ss": to_seconds(seek_ms), "noaccurate_seek": None} if seek_ms else {}
    node = guarded_input(source, **seek)
    offset_s, length_s = to_seconds(span.start_ms - seek_ms), to_seconds(span.length_ms)
    rate = output_rate(probe)
    used = {probe.video_index} | ({probe.audio_index} if probe.audio_index is not None else set())
    streams = [_picture(node[str(probe.video_index)], probe, rate, offset_s, span)]
    if probe.audio_index is not None:
        streams.append(_sound(node[str(probe.audio_index)], offset_s, length_s))
    return compiled(
        [
            _encoded(streams, target, rate),
            *clock_keepers(node, probe, used=used, t=offset_s + length_s),
        ]
    )


def _picture(node: Any, probe: VideoProbe, rate: Fraction, offset_s: float, span: Span) -> Any:
    frames = max(1, round(span.length_ms * rate / 1000))
    width, height = _even(probe.width), _even(probe.height)
    return (
        node.filter("fps", f"{rate.numerator}/{rate.denominator}")
        # The last picture stays for as long as anybody asks; then the second `fps` starts the clip at the span's
        # own start, with the frame that is on screen then.
        .filter("tpad", stop=-1, stop_mode="clone")
        .filter("fps", f"{rate.numerator}/{rate.denominator}", start_time=offset_s)
        .filter("setpts", "PTS-STARTPTS")
        .filter("trim", end_frame=frames)
        .filter("scale", width, height)
        .filter("setsar", 1)
        .filter("format", "yuv420p")
    )


def _sound(node: Any, offset_s: float, length_s: float) -> Any:
    return (
        node.filter("aresample", _SAMPLE_RATE, **{"async": 1, "first_pts": round(offset_s * _SAMPLE_RATE)})
        .filter("asetpts", "PTS-STARTPTS")
        .filter("aformat", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", end=length_s)
    )


def _encoded(streams: list[Any], target: Path, rate: Fraction) -> Any:
    import ffmpeg

    return ffmpeg.output(
        *streams,
        f"file:{target}",
        format="mp4",
        vcodec="libx264",
        preset="veryfast",
        crf=23,
        # Without B-frames the picture starts at 0 with no edit list, which many decoders of models ignore.
        bf=0,
        g=ceil(2 * rate),
        acodec="aac",
        audio_bitrate="128k",
        movflags="+faststart",
        map_metadata=-1,
        map_chapters=-1,
        # No version or date inside: the same span gives the same bytes, and so the same object key.
        fflags="+bitexact",
        **{"flags:v": "+bitexact", "flags:a": "+bitexact"},
    )


def _even(pixels: int) -> int:
    """H.264 in 4:2:0 has no odd sizes."""
    return max(2, pixels + pixels % 2)


def _clip_report(path: Path, cpu_s: float) -> ClipReport:
    with opened(path) as container:
        video = picture_stream(container)
        if video is None or not video.frames or video.duration is None or video.time_base is None:
            raise MediaError(f"The clip {path.name} holds no picture: the video can't be decoded there.")
        return ClipReport(
            frames=video.frames,
            duration_ms=round(video.duration * video.time_base * 1000),
            width=video.width,
            height=video.height,
            bytes=path.stat().st_size,
            cpu_s=cpu_s,
        )
