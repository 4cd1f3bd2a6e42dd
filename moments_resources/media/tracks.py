"""Captions that come inside a video, as WebVTT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core.errors import MediaError
from moments_resources.media.container import compiled, guarded_input, opened, sound_stream
from moments_resources.media.runner import FfmpegRunner

if TYPE_CHECKING:
    from av.stream import Stream

# Text codecs; the others (DVD, Blu-ray, DVB) are pictures of text.
_TEXT_CODECS = frozenset({"mov_text", "webvtt", "subrip", "srt", "ass", "ssa", "text"})
_ENGLISH = frozenset({"en", "eng"})

# Each costs a reading of the whole file: 128 GB from a disk at 100 MB/s take 21 min.
_MOST_TRIES = 3
_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class EmbeddedCaptions:
    """One caption track. `language` as the file names it (mostly ISO 639-2), None where it doesn't."""

    language: str | None
    text: str


@dataclass(frozen=True, slots=True)
class _Track:
    index: int  # of its stream
    language: str | None
    is_default: bool


def embedded_captions(
    runner: FfmpegRunner, source: Path, folder: Path
) -> tuple[EmbeddedCaptions | None, tuple[str, ...]]:
    """The caption track that says best what is spoken, and a sentence for each better one that can't be read.

    In the language of the sound that a player would play, else the file's default, else English, else the first.
    Forced tracks and commentaries are none: they hold a few signs and foreign lines, or somebody else's words. Nor
    is a track without a line. At most three are tried. `folder` takes the files in between.
    """
    notes = []
    for track in _tracks(source)[:_MOST_TRIES]:
        target = folder / f"captions-{track.index}.vtt"
        try:
            runner.run(captions_command(source, track.index, target), timeout_s=_TIMEOUT_S)
        except MediaError:  # the video is worth more: not in UTF-8, as old tools write it, is the common case
            language = track.language or "no language"
            notes.append(f"The captions inside the file (stream {track.index}, {language}) can't be read.")
            continue
        text = target.read_text("utf-8", errors="replace")
        if "-->" in text:
            return EmbeddedCaptions(track.language, text), tuple(notes)
    return None, tuple(notes)


def captions_command(source: Path, index: int, target: Path) -> list[str]:
    """Writes the caption stream `index` to its file."""
    return compiled([guarded_input(source)[str(index)].output(f"file:{target}", format="webvtt", scodec="webvtt")])


def _tracks(source: Path) -> list[_Track]:
    """The text tracks that may say what is spoken, the best first."""
    from av.stream import Disposition

    with opened(source) as container:
        sound = sound_stream(container)
        spoken = _primary(_language(sound)) if sound else None
        tracks = [
            _Track(stream.index, _language(stream), bool(stream.disposition & Disposition.default))
            for stream in container.streams.subtitles
            if _is_text(stream) and not stream.disposition & (Disposition.forced | Disposition.comment)
        ]

    def rank(track: _Track) -> tuple[bool, bool, bool]:
        language = _primary(track.language)
        return language is None or language != spoken, not track.is_default, language not in _ENGLISH

    return sorted(tracks, key=rank)


def _is_text(stream: Stream) -> bool:
    context = stream.codec_context
    return context is not None and context.name in _TEXT_CODECS


def _language(stream: Stream) -> str | None:
    return None if stream.language in {None, "", "und"} else stream.language


def _primary(language: str | None) -> str | None:
    return language.lower().replace("_", "-").partition("-")[0] if language else None
