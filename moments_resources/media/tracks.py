"""Captions that come inside a video, as WebVTT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from moments_resources.media.container import compiled, guarded_input, opened
from moments_resources.media.runner import FfmpegRunner

if TYPE_CHECKING:
    from av.stream import Stream

# Text codecs; the others (DVD, Blu-ray, DVB) are pictures of text.
_TEXT_CODECS = frozenset({"mov_text", "webvtt", "subrip", "srt", "ass", "ssa", "text"})

# Reading 128 GB from a disk at 100 MB/s takes 21 min.
_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class EmbeddedCaptions:
    """One caption track. `language` as the file names it (mostly ISO 639-2), None where it doesn't."""

    language: str | None
    text: str


def embedded_captions(runner: FfmpegRunner, source: Path) -> list[EmbeddedCaptions]:
    """The caption tracks of a video as WebVTT, in the file's order; those without a line are left out.

    Raises:
        MediaError: a track can't be read.
    """
    tracks = _text_tracks(source)
    if not tracks:
        return []
    with TemporaryDirectory(prefix="captions-") as folder:
        targets = {index: Path(folder) / f"{index}.vtt" for index in tracks}
        runner.run(captions_command(source, targets), timeout_s=_TIMEOUT_S)
        texts = {index: target.read_text("utf-8", errors="replace") for index, target in targets.items()}
    return [EmbeddedCaptions(tracks[index], text) for index, text in texts.items() if "-->" in text]


def captions_command(source: Path, targets: dict[int, Path]) -> list[str]:
    """One pass that writes each caption stream (by its index) to its file."""
    node = guarded_input(source)
    outputs = [
        node[str(index)].output(f"file:{target}", format="webvtt", scodec="webvtt") for index, target in targets.items()
    ]
    return compiled(outputs)


def _text_tracks(source: Path) -> dict[int, str | None]:
    """Language of each text track, by the index of its stream."""
    with opened(source) as container:
        return {stream.index: _language(stream) for stream in container.streams.subtitles if _is_text(stream)}


def _is_text(stream: Stream) -> bool:
    context = stream.codec_context
    return context is not None and context.name in _TEXT_CODECS


def _language(stream: Stream) -> str | None:
    return None if stream.language in {None, "", "und"} else stream.language
