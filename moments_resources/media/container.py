"""How a hostile file is opened, by ffmpeg and by PyAV alike.

A playlist that is named `.mp4` made ffmpeg open other local files although `protocol_whitelist` held `file`
alone; with the list of formats as well it opened none. Both lists go with every input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moments_core.errors import MediaError, ResourceError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Containers that hold their own data. No playlist (hls, dash, concat), no image sequence, no virtual device. The
# audio-only ones are here so that the user hears "has sound but no picture" instead of "can't be read".
FORMATS = "mov,matroska,avi,flv,mpegts,mpeg,mpegvideo,ogg,asf,mp3,flac,wav,aac"

# 8K (DCI). A 198 KB file that claimed more took 709 MB of memory.
MAX_PIXELS = 8192 * 4320


@cache
def ffmpeg_exe() -> str:
    """Path of the ffmpeg that comes with the environment (imageio-ffmpeg's wheel).

    Raises ResourceError where it can't be started.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        # It starts the program once to see whether it runs: a start that was killed, or for which there was no
        # memory, looks to it as if there were no program.
        raise ResourceError(
            "ffmpeg could not be started: free some memory, or see what `moments doctor` says, then run this again."
        ) from error


def guarded_input(source: Path, **options: object) -> Any:
    """`source` as an input node of ffmpeg-python, that can open nothing but this file."""
    import ffmpeg

    return ffmpeg.input(
        f"file:{source}",
        protocol_whitelist="file",
        format_whitelist=FORMATS,
        max_pixels=MAX_PIXELS,
        **options,
    )


def compiled(outputs: list[Any], *, log_level: str = "error", options: tuple[str, ...] = ()) -> list[str]:
    """The command that writes `outputs` (nodes of ffmpeg-python) in one pass; `options` are global ones."""
    import ffmpeg

    head = [ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", "-v", log_level, *options]
    node = outputs[0] if len(outputs) == 1 else ffmpeg.merge_outputs(*outputs)
    return list(map(str, ffmpeg.compile(node, cmd=head)))


@contextmanager
def opened(path: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[InputContainer]:
    """`path` opened by PyAV under the same guards.

    Raises:
        MediaError: there is no such file, or it is none of `FORMATS`.
    """
    import av

    if not path.is_file():
        raise MediaError(f"There is no file {path.name}.", file=path.name)
    pixels = {"max_pixels": str(max_pixels)}
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS, **pixels}
    try:
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise MediaError(
            f"{path.name} can't be read as a video: its format is unknown or it is damaged; fetch it again, "
            "or convert it to MP4.",
            file=path.name,
            cause=str(error),
        ) from error
    with container:
        for stream in container.streams.video:
            # `options` guard the decoders of the probing alone, not those that decode for us.
            if stream.codec_context is not None:
                stream.codec_context.options = pixels
        yield container


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The video stream that a player would show; cover art is none."""
    from av.stream import Disposition

    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return max(pictures, key=_preference, default=None)


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The audio stream that a player would play."""
    return max(container.streams.audio, key=_preference, default=None)


def start_us(container: InputContainer) -> int:
    """Timestamp of the presentation's start, in microseconds; every time that leaves this package counts from it."""
    return container.start_time or 0


def _preference(stream: VideoStream | AudioStream) -> tuple[bool, bool, int, int]:
    from av.stream import Disposition

    known = stream.codec_context is not None
    area = getattr(stream, "width", 0) * getattr(stream, "height", 0) if known else 0
    return known, bool(stream.disposition & Disposition.default), area, -stream.index
