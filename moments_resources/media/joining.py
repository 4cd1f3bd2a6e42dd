"""Picture and sound that a site keeps in two files, as one file; nothing is encoded anew."""

from __future__ import annotations

from pathlib import Path

from moments_resources.media.container import compiled, guarded_input
from moments_resources.media.runner import FfmpegRunner, ProgressCallback, whole_file

_TIMEOUT_S = 3600.0  # copying is bound by the disk: 20 GB at 10 MB/s take half an hour


def join_streams(
    runner: FfmpegRunner, picture: Path, sound: Path, target: Path, *, on_progress: ProgressCallback | None = None
) -> None:
    """Write the picture of one file and the sound of another to `target`, a Matroska file: it takes every codec.

    Raises:
        MediaError: one of them has no such stream, or can't be read.
        ResourceError: the disk is full.
    """
    with whole_file(target) as part:
        runner.run(join_command(picture, sound, part), timeout_s=_TIMEOUT_S, on_progress=on_progress)


def join_command(picture: Path, sound: Path, target: Path) -> list[str]:
    """Copies the first video stream of `picture` and the first audio stream of `sound`."""
    import ffmpeg

    streams = (guarded_input(picture)["v:0"], guarded_input(sound)["a:0"])
    return compiled([ffmpeg.output(*streams, f"file:{target}", c="copy", format="matroska")])
