"""Speech to text: the interface that the asset `transcript` knows, and the makers that run on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from moments_core.time import Span
from moments_core.transcript import Transcript
from moments_resources.speech_pocketsphinx import PocketSphinxSpeech
from moments_resources.speech_whisper import WhisperSpeech


class SpeechToText(Protocol):
    """Hears words. `recipe` names model and version: a change means new results."""

    @property
    def recipe(self) -> str: ...

    @property
    def yields_to_captions(self) -> bool:
        """True for a weak recogniser: a video's own captions are better than what it hears."""
        ...

    def transcribe(
        self,
        audio: Path,
        *,
        duration_ms: int,
        silences: Sequence[Span],
        on_progress: Callable[[int], None] | None = None,
    ) -> Transcript:
        """What is said in `audio` (16 kHz mono FLAC) within [0, duration_ms), in the video's milliseconds.

        `silences`, in time order, need not be heard. `on_progress` gets the milliseconds that are done. Where nobody
        speaks the transcript has no words and the source NONE.
        """
        ...


LOCAL_SPEECH: Mapping[str, Callable[[], SpeechToText]] = {"local": PocketSphinxSpeech, "local-whisper": WhisperSpeech}
