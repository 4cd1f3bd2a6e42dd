"""Pictures of a video at given times, and a strip of them for a preview. All in this process, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core.errors import MediaError
from moments_resources.media.container import opened, picture_stream, start_us
from moments_resources.media.probe import shown_size

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

# Decoding 2 s forward costs less than a seek, which decodes half a group of pictures (1-5 s) on average.
_FORWARD_MS = 2000

# Tried in turn: the key frame before the time; group of pictures of a broadcast; of common encoders.
_STEPS_BACK_MS = (0, 3000, 12_000)

# MJPEG quantisers: 2 is visually lossless, 31 the coarsest.
_STILL_QUANTISER = 4
_STRIP_QUANTISERS = (6, 10, 16, 24, 31)
_STRIP_HEIGHTS = (90, 60, 40, 24)


@dataclass(frozen=True, slots=True)
class Still:
    """A JPEG. `time_ms` is the time of its frame, not the one that was asked for."""

    path: Path
    time_ms: int
    width: int
    height: int


def stills(source: Path, times_ms: Sequence[int], folder: Path, *, width: int = 320) -> list[Still]:
    """One JPEG for each of `times_ms`, in their order: the first frame at or after it, else the last one.

    Raises:
        MediaError: no picture could be decoded.
    """
    made: dict[int, Still] = {}
    with _FrameReader(source) as reader:
        for time_ms in sorted(set(times_ms)):
            frame = reader.at(time_ms)
            picture = _upright(frame, width, reader.video.sample_aspect_ratio)
            path = folder / f"still-{time_ms:09}.jpg"
            path.write_bytes(_jpeg(picture, _STILL_QUANTISER))
            made[time_ms] = Still(path, reader.time_ms(frame), picture.shape[1], picture.shape[0])
    return [made[time_ms] for time_ms in times_ms]


def filmstrip(jpeg_paths: Sequence[Path], *, max_bytes: int = 20_000) -> bytes:
    """One JPEG with the pictures side by side, as large and fine as `max_bytes` allows.

    Raises:
        ValueError: no picture was given, or they are too many for `max_bytes`.
    """
    import numpy as np

    if not jpeg_paths:
        raise ValueError("a filmstrip needs at least one picture")
    for height in _STRIP_HEIGHTS:
        strip = np.concatenate([_read_jpeg(path, height) for path in jpeg_paths], axis=1)
        for quantiser in _STRIP_QUANTISERS:
            data = _jpeg(strip, quantiser)
            if len(data) <= max_bytes:
                return data
    raise ValueError(f"{len(jpeg_paths)} pictures do not fit into {max_bytes} bytes")


class _FrameReader:
    """Frames at rising times: decodes on from where it is, or seeks where the way is long."""

    video: VideoStream

    def __init__(self, source: Path) -> None:
        self._source = source
        self._files = ExitStack()
        self._last: VideoFrame | None = None

    def __enter__(self) -> _FrameReader:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def time_ms(self, frame: VideoFrame) -> int:
        time = (frame.pts or 0) * (frame.time_base or Fraction(1))
        return max(0, round(time * 1000 - Fraction(self._start_us, 1000)))

    def at(self, time_ms: int) -> VideoFrame:
        """The first frame at or after `time_ms`; the last of the video where there is none."""
        if self._last is not None and self.time_ms(self._last) >= time_ms:
            return self._last
        if self._last is None or time_ms - self.time_ms(self._last) > _FORWARD_MS:
            self._seek(time_ms)
        for frame in self._frames:
            self._last = frame
            if self.time_ms(frame) >= time_ms:
                break
        if self._last is None:
            raise MediaError(f"{self._source.name} has no picture that can be decoded.", file=self._source.name)
        return self._last

    def _open(self) -> None:
        """At the start of the file, whatever was read before."""
        self._files.close()
        self._container = self._files.enter_context(opened(self._source))
        video = picture_stream(self._container)
        if video is None:
            self._files.close()
            raise MediaError(f"{self._source.name} has no picture: submit a video.", file=self._source.name)
        video.thread_type = "AUTO"
        self.video, self._start_us = video, start_us(self._container)
        self._frames: Iterator[VideoFrame] = _decodable(self._container, video)

    def _seek(self, time_ms: int) -> None:
        """Go to where decoding gives a frame at or before `time_ms`, or to the video's first frame.

        In a file without an index of key frames (MPEG-TS) a seek lands anywhere, in some it fails: the first
        frame shows whether it was far enough back, and what is left is to read from the start.
        """
        for back_ms in _STEPS_BACK_MS:
            if time_ms > back_ms and self._seek_container(time_ms - back_ms):
                first = next(self._frames, None)
                if first is not None and self.time_ms(first) <= time_ms:
                    self._frames, self._last = chain([first], self._frames), first
                    return
        self._open()

    def _seek_container(self, target_ms: int) -> bool:
        import av

        try:
            self._container.seek(self._start_us + target_ms * 1000, backward=True)
        except av.error.FFmpegError:
            return False
        self._frames = _decodable(self._container, self.video)
        return True


def _decodable(container: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """Frames up to the end; packets that don't decode are passed over, as a player does."""
    import av

    for packet in container.demux(video):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _upright(frame: VideoFrame, width: int, pixel_shape: Fraction | None) -> NDArray[np.uint8]:
    """`frame` as RGB, `width` pixels wide as shown: rotated, with square pixels."""
    import numpy as np

    shown_width, shown_height = shown_size(frame, pixel_shape)
    height = max(1, round(width * shown_height / shown_width))
    turned = bool(frame.rotation % 180)
    scaled = frame.reformat(*((height, width) if turned else (width, height)), format="rgb24")
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), k=frame.rotation // 90))


def _jpeg(picture: NDArray[np.uint8], quantiser: int) -> bytes:
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
    encoder.options = {"qmin": str(quantiser), "qmax": str(quantiser)}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p", dst_color_range="JPEG")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _read_jpeg(path: Path, height: int) -> NDArray[np.uint8]:
    import av
    import numpy as np

    decoder = av.CodecContext.create("mjpeg", "r")
    frame = [*decoder.decode(av.Packet(path.read_bytes())), *decoder.decode(None)][0]
    width = max(1, round(frame.width * height / frame.height))
    return np.asarray(frame.reformat(width, height, format="rgb24").to_ndarray(), np.uint8)
