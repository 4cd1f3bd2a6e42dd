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

# Transfer characteristics of high dynamic range in ITU-T H.273: PQ and HLG, by ffmpeg's names.
_HDR_TRANSFERS = {16: "smpte2084", 18: "arib-std-b67"}

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
    rate. `hdr` is the transfer function of a picture of high dynamic range, by ffmpeg's name. `video_index` and
    `audio_index` name the streams that a player would choose. `start_us` is the container's start time, in
    microseconds: 0 ms on the clock of everything that is measured on this video. `picture_end_ms` may lie before
    `duration_ms`, where the sound goes on alone.
    """

    duration_ms: int
    picture_end_ms: int
    width: int
    height: int
    frame_rate: Fraction
    variable_frame_rate: bool
    rotation: int
    hdr: str | None
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
    max_duration_ms: int | None = None,
    max_bytes: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> VideoProbe:
    """Read what `path` is, or refuse it. No limit on length and size unless one is given.

    Raises:
        MediaError: it is no video, is cut off, can't be decoded, or is over a limit.
    """
    _refuse_size(path, max_bytes)
    refuse_disguise(path)
    if lacks_index(path):
        raise _cut_off(path, "its index (the moov box, at the end) is missing")
    with opened(path, max_pixels=max_pixels) as container:
        video = _picture(path, container, max_pixels)
        timing = read_timing(path, container, video)
        if timing.encrypted:
            # A decoder conceals errors: now and then it makes a picture of what it can't read.
            raise MediaError(f"{path.name} is encrypted: submit an unprotected copy.", file=path.name)
        _refuse_cut_off(path, timing)
        if timing.first_frame is None:
            raise _undecodable(path, video, max_pixels)
        _refuse_duration(path, timing.duration_ms, max_duration_ms)
        return _described(path, container, video, timing, timing.first_frame)


def _refuse_size(path: Path, max_bytes: int | None) -> None:
    if not path.is_file():
        raise MediaError(f"There is no file {path.name}.", file=path.name)
    size = path.stat().st_size
    if max_bytes is not None and size > max_bytes:
        raise MediaError(
            f"{path.name} has {_shown_size(size)}, over the limit of {_shown_size(max_bytes)}: "
            "submit a smaller encoding of it.",
            bytes=size,
            limit=max_bytes,
        )


def _shown_size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


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


def _undecodable(path: Path, video: VideoStream, max_pixels: int) -> MediaError:
    """Why not even the first picture came out."""
    name, codec = path.name, video.codec_context.name
    if not video.width:
        return MediaError(
            f"{name} has pictures of no size, or over the limit of {max_pixels} pixels: submit a smaller encoding.",
            codec=codec,
            limit=max_pixels,
        )
    return MediaError(
        f"{name} has no picture that can be decoded ({codec}): fetch it again, or convert it.", codec=codec
    )


def _refuse_cut_off(path: Path, timing: Timing) -> None:
    missing = missing_bytes(path)
    if not missing and not timing.stops_early:
        return
    ends = f"its data ends at {clock(timing.end_ms)}"
    if timing.declared_ms is not None and timing.declared_ms // 1000 > timing.end_ms // 1000:
        ends = f"its header says {clock(timing.declared_ms)} and {ends}"
    raise _cut_off(path, ends, missing_bytes=missing, declared_ms=timing.declared_ms, end_ms=timing.end_ms)


def _cut_off(path: Path, evidence: str, **facts: object) -> MediaError:
    return MediaError(f"{path.name} is cut off: {evidence}; fetch it again.", file=path.name, **facts)


def _refuse_duration(path: Path, duration_ms: int, max_duration_ms: int | None) -> None:
    if duration_ms <= 0:
        raise MediaError(f"{path.name} has no length: fetch it again.", file=path.name)
    if max_duration_ms is not None and duration_ms > max_duration_ms:
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
        picture_end_ms=timing.picture_end_ms,
        width=width,
        height=height,
        frame_rate=timing.frame_rate,
        variable_frame_rate=timing.variable_frame_rate,
        rotation=first.rotation % 360,
        hdr=_HDR_TRANSFERS.get(int(first.color_trc)),
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
