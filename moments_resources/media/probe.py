"""What a video file is: read from its headers, its first picture and its last packets, by PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moments_core.errors import MediaError
from moments_core.time import clock
from moments_resources.media.container import MAX_PIXELS, opened, picture_stream, sound_stream
from moments_resources.media.structure import lacks_index, missing_bytes, refuse_disguise
from moments_resources.media.timing import Timing, read_timing

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# 12 h: the longest upload that the large video sites take.
MAX_DURATION_MS = 12 * 3600 * 1000
# 12 h of video at 20 Mbit/s, rounded up.
MAX_BYTES = 128 * 1024**3

# SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG) in ITU-T H.273's table of transfer characteristics.
_HDR_TRANSFERS = frozenset({16, 18})

StreamKind = Literal["video", "audio", "subtitle", "data", "attachment", "picture", "unknown"]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a container. `bitrate` in bit/s, None where the container does not tell."""

    index: int
    kind: StreamKind
    codec: str | None
    language: str | None
    bitrate: int | None


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """What is known of a video without decoding more than its first picture.

    `width` and `height` are those of the shown picture: rotated, and with square pixels. `fps` is the mean
    rate. `video_index` and `audio_index` name the streams that a player would choose. `start_us` is the
    container's start time, in microseconds: 0 ms on the clock of everything that is measured on this video.
    """

    duration_ms: int
    width: int
    height: int
    frame_rate: Fraction
    variable_frame_rate: bool
    rotation: int
    hdr: bool
    bytes: int
    container: str
    video_codec: str
    audio_codec: str | None
    video_index: int
    audio_index: int | None
    start_us: int
    streams: tuple[StreamInfo, ...]

    @property
    def fps(self) -> float:
        return float(self.frame_rate)

    @property
    def has_audio(self) -> bool:
        return self.audio_index is not None


def probe_video(
    path: Path,
    *,
    max_duration_ms: int = MAX_DURATION_MS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> VideoProbe:
    """Read what `path` is, or refuse it.

    Raises:
        MediaError: it is no video, is cut off, can't be decoded, or is over a limit.
    """
    _refuse_size(path, max_bytes)
    refuse_disguise(path)
    if lacks_index(path):
        raise _cut_off(path, "its index (the moov box, at the end) is missing")
    with opened(path, max_pixels=max_pixels) as container:
        video = _picture(path, container, max_pixels)
        timing = read_timing(container, video)
        if timing.first_frame is None:
            raise _undecodable(path, container, video)
        _refuse_cut_off(path, timing)
        _refuse_duration(path, timing.duration_ms, max_duration_ms)
        return _described(path, container, video, timing, timing.first_frame)


def _refuse_size(path: Path, max_bytes: int) -> None:
    if not path.is_file():
        raise MediaError(f"There is no file {path.name}.", file=path.name)
    size = path.stat().st_size
    if size > max_bytes:
        raise MediaError(
            f"{path.name} has {size / 1e9:.1f} GB, over the limit of {max_bytes / 1e9:.1f} GB: "
            "submit a smaller encoding of it.",
            bytes=size,
            limit=max_bytes,
        )


def _picture(path: Path, container: InputContainer, max_pixels: int) -> VideoStream:
    """The stream to show, if it can be decoded and is not too large."""
    video = picture_stream(container)
    if video is None:
        what = "has sound but no picture" if container.streams.audio else "holds neither picture nor sound"
        raise MediaError(f"{path.name} {what}: submit a video.", file=path.name)
    if video.codec_context is None:
        raise MediaError(
            f"{path.name} is encoded in a format that can't be decoded here: convert it to H.264.", file=path.name
        )
    pixels = video.width * video.height
    if pixels > max_pixels:
        raise MediaError(
            f"{path.name} has pictures of {video.width}x{video.height}, over the limit of {max_pixels} pixels: "
            "submit a smaller encoding of it.",
            pixels=pixels,
            limit=max_pixels,
        )
    return video


def _undecodable(path: Path, container: InputContainer, video: VideoStream) -> MediaError:
    tag = video.codec_context.codec_tag
    if tag in {"encv", "drmi"} or "encryption" in container.metadata:
        return MediaError(f"{path.name} is encrypted: submit an unprotected copy.", codec_tag=tag)
    return MediaError(
        f"{path.name} has no picture that can be decoded ({video.codec_context.name}): fetch it again, or convert it.",
        codec=video.codec_context.name,
        codec_tag=tag,
    )


def _refuse_cut_off(path: Path, timing: Timing) -> None:
    missing = missing_bytes(path)
    if missing:
        raise _cut_off(path, _ends(timing), missing_bytes=missing)
    if timing.stops_early:
        raise _cut_off(path, _ends(timing))


def _ends(timing: Timing) -> str:
    says = "nothing of its length" if timing.declared_ms is None else clock(timing.declared_ms)
    return f"its header says {says} and its data ends at {clock(timing.end_ms)}"


def _cut_off(path: Path, evidence: str, **facts: object) -> MediaError:
    return MediaError(f"{path.name} is cut off: {evidence}. Fetch it again.", file=path.name, **facts)


def _refuse_duration(path: Path, duration_ms: int, max_duration_ms: int) -> None:
    if duration_ms <= 0:
        raise MediaError(f"{path.name} has no length: fetch it again.", file=path.name)
    if duration_ms > max_duration_ms:
        raise MediaError(
            f"{path.name} lasts {clock(duration_ms)}, over the limit of {clock(max_duration_ms)}: "
            "submit it in shorter parts.",
            duration_ms=duration_ms,
            limit=max_duration_ms,
        )


def _described(
    path: Path, container: InputContainer, video: VideoStream, timing: Timing, first: VideoFrame
) -> VideoProbe:
    audio = sound_stream(container)
    width, height = shown_size(first, video.sample_aspect_ratio)
    return VideoProbe(
        duration_ms=timing.duration_ms,
        width=width,
        height=height,
        frame_rate=timing.frame_rate,
        variable_frame_rate=timing.variable_frame_rate,
        rotation=first.rotation % 360,
        hdr=int(first.color_trc) in _HDR_TRANSFERS,
        bytes=path.stat().st_size,
        container=container.format.name,
        video_codec=video.codec_context.name,
        audio_codec=audio.codec_context.name if audio is not None and audio.codec_context is not None else None,
        video_index=video.index,
        audio_index=audio.index if audio is not None and audio.codec_context is not None else None,
        start_us=timing.start_us,
        streams=tuple(_stream_info(stream) for stream in container.streams),
    )


def shown_size(frame: VideoFrame, pixel_shape: Fraction | None) -> tuple[int, int]:
    """Width and height of a decoded frame as a player shows it: square pixels, upright."""
    width, height = max(1, round(frame.width * (pixel_shape or 1))), frame.height
    return (height, width) if frame.rotation % 180 else (width, height)


def _stream_info(stream: Stream) -> StreamInfo:
    from av.stream import Disposition

    context = stream.codec_context
    return StreamInfo(
        index=stream.index,
        kind="picture" if stream.disposition & Disposition.attached_pic else stream.type,
        codec=context.name if context is not None else None,
        language=stream.language,
        bitrate=(getattr(context, "bit_rate", None) or None),
    )
