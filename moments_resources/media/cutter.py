"""Cuts a span out of a video, exact to the frame, as a file that any player shows alike."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from moments_core.errors import MediaError
from moments_core.time import Span, clock, to_seconds
from moments_resources.media.clock import clock_keepers, constant_rate
from moments_resources.media.container import compiled, guarded_input, opened, picture_stream
from moments_resources.media.probe import VideoProbe
from moments_resources.media.runner import FfmpegRunner, ProgressCallback, whole_file

_LOWEST_RATE = 24

# Formats without an index of key frames: a seek lands anywhere, and decoding can only start at the next key frame.
# Broadcasts have one at least every 2-5 s, common encoders every 250 frames (10 s).
_UNINDEXED = frozenset({"mpegts", "mpeg", "mpegvideo", "flv", "ogg", "asf"})
_UNINDEXED_PREROLL_MS = 12_000

# Where the sound outlasts the picture, reading starts this far before the picture's end: 1 s holds a frame in
# nearly every video, and the key frame before it is found anyway.
_LAST_PICTURE_MS = 1000

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
    """Constant frame rate of clips of this video: about 24..60.

    A slower one is multiplied by a whole number: the frames stay where they are, and the end of a clip is exact
    to 1/24 s.
    """
    rate = constant_rate(probe)
    return rate * ceil(_LOWEST_RATE / rate)


def clip_command(source: Path, span: Span, target: Path, probe: VideoProbe) -> list[str]:
    """Seeks to a key frame before `span`, and lets filters, which count in time, do the exact cut."""
    seek_ms = _seek_ms(span, probe)
    # ffmpeg's own exact seek drops the frame that is on screen when the span starts: on a slide of 10 s the clip
    # began with the next slide. At 0 no seek at all: in MPEG-TS it went to the second key frame.
    seek: dict[str, object] = {"ss": to_seconds(seek_ms), "noaccurate_seek": None} if seek_ms else {}
    node = guarded_input(source, **seek)
    rate, inside = output_rate(probe), Span(span.start_ms - seek_ms, span.end_ms - seek_ms)
    streams = [_picture(node[str(probe.video_index)], inside, rate, probe)]
    used = {probe.video_index}
    if probe.audio_index is not None:
        streams.append(_sound(node[str(probe.audio_index)], inside))
        used.add(probe.audio_index)
    others = clock_keepers(node, probe, used=used, t=to_seconds(inside.end_ms))
    return compiled([_encoded(streams, target, rate), *others])


def _seek_ms(span: Span, probe: VideoProbe) -> int:
    """Where to start to read: at or before the span, and where there is a picture to decode."""
    preroll = _UNINDEXED_PREROLL_MS if probe.container in _UNINDEXED else 0
    return max(0, min(span.start_ms, probe.picture_end_ms - _LAST_PICTURE_MS) - preroll)


def _picture(node: Any, inside: Span, rate: Fraction, probe: VideoProbe) -> Any:
    frames = max(1, round(inside.length_ms * rate / 1000))
    constant = f"{rate.numerator}/{rate.denominator}"
    steady = (
        # The span's start becomes 0, and so a point of the grid of constant frames.
        node.filter("setpts", f"PTS-{to_seconds(inside.start_ms)}/TB")
        .filter("fps", constant)
        # The last picture stays for as long as anybody asks.
        .filter("tpad", stop=-1, stop_mode="clone")
        # Drops what lies before 0; where the picture starts later, its first frame fills the time up to it.
        .filter("fps", constant, start_time=0)
        .filter("trim", end_frame=frames)
    )
    shown = _tone_mapped(steady, probe.hdr).filter("scale", *_even_size(probe))
    return shown.filter("setsar", 1).filter("format", "yuv420p")


def _tone_mapped(node: Any, hdr: str | None) -> Any:
    """High dynamic range (of transfer function `hdr`) brought to a normal screen's."""
    if hdr is None:
        return node
    return (
        # 203 cd/m2 is the white of graphics in HDR (ITU-R BT.2408): it becomes the white of the clip.
        node.filter("zscale", transferin=hdr, primariesin="bt2020", matrixin="bt2020nc", transfer="linear", npl=203)
        .filter("format", "gbrpf32le")
        .filter("zscale", primaries="bt709")
        .filter("tonemap", "mobius", desat=0)
        .filter("zscale", transfer="bt709", matrix="bt709", range="tv")
    )


def _sound(node: Any, inside: Span) -> Any:
    start_s = to_seconds(inside.start_ms)
    return (
        # Not by `first_pts`: asked to drop 5.5 s, the resampler dropped 6.
        node.filter("atrim", start=start_s)
        .filter("asetpts", f"PTS-{start_s}/TB")
        .filter("aresample", _SAMPLE_RATE, **{"async": 1, "first_pts": 0})
        .filter("aformat", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", end=to_seconds(inside.length_ms))
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


def _even_size(probe: VideoProbe) -> tuple[int, int]:
    """H.264 in 4:2:0 has no odd sizes: one pixel is added."""
    return max(2, probe.width + probe.width % 2), max(2, probe.height + probe.height % 2)


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
