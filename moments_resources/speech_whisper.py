"""Speech to text by Whisper on this machine (extra `whisper`); its weights come from a hub at first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from moments_core.errors import ServiceError, SettingsError
from moments_core.sentences import ordered_words, sentences_from_words
from moments_core.time import Span, to_ms
from moments_core.transcript import Transcript, TranscriptSource, Word
from moments_resources.speech_utterances import utterances

STRETCH_MS = 300_000  # 19 MB of samples at once; Whisper looks at 30 s at a time and loses one sentence a cut at most
PAUSE_MS = 10_000  # only long pauses are left out: Whisper pads every piece to 30 s
UNSPOKEN = 0.6  # Whisper's own threshold: where it is surer than that of no speech, and unsure of the words,
UNSURE = -1.0  # it invents them


class HeardWord(Protocol):
    """A word as faster-whisper returns it; times in seconds."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def word(self) -> str: ...
    @property
    def probability(self) -> float: ...


class HeardSegment(Protocol):
    """A segment as faster-whisper returns it."""

    @property
    def words(self) -> Sequence[HeardWord] | None: ...
    @property
    def no_speech_prob(self) -> float: ...
    @property
    def avg_logprob(self) -> float: ...


class WhisperSpeech:
    """Any language, with punctuation. `model`: a size that the hub knows ("base", "small", …) or a model's folder."""

    yields_to_captions = False

    def __init__(self, model: str = "base") -> None:
        self._model = model

    @property
    def recipe(self) -> str:
        return f"whisper-{Path(self._model).name}-int8-1"

    def transcribe(
        self,
        audio: Path,
        *,
        duration_ms: int,
        silences: Sequence[Span],
        on_progress: Callable[[int], None] | None = None,
    ) -> Transcript:
        """What is said in `audio` (16 kHz mono FLAC), in the video's milliseconds; source NONE where nobody speaks.

        Raises SettingsError where the extra isn't installed, ServiceError where the weights can't be had.
        """
        model = self._loaded()
        language: str | None = None
        heard: list[Word] = []
        for piece in utterances(
            audio, duration_ms=duration_ms, silences=silences, longest_ms=STRETCH_MS, shortest_pause_ms=PAUSE_MS
        ):
            segments, info = model.transcribe(
                piece.samples(),
                language=language,
                word_timestamps=True,
                vad_filter=True,
                condition_on_previous_text=False,  # else one invented sentence breeds the next
            )
            new = list(spoken_words(segments, offset_ms=piece.start_ms))
            language = language or (info.language if new else None)
            heard += new
            if on_progress:
                on_progress(min(piece.end_ms, duration_ms))
        return self._transcript(ordered_words(heard, duration_ms=duration_ms), language)

    def _transcript(self, words: tuple[Word, ...], language: str | None) -> Transcript:
        if not words:
            return Transcript(source=TranscriptSource.NONE, model=self.recipe)
        return Transcript(
            language=language,
            source=TranscriptSource.SPEECH_MODEL,
            model=self.recipe,
            word_timing="measured",
            words=words,
            sentences=sentences_from_words(words),
        )

    def _loaded(self) -> Any:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise SettingsError(
                'Whisper is not installed: install the extra with pip install "moments[whisper]", or use the model '
                "`local`.",
                missing=str(error),
            ) from error
        try:
            return WhisperModel(self._model, device="auto", compute_type="int8")
        except (OSError, ValueError, RuntimeError) as error:
            # The hub raises OSErrors (LocalEntryNotFoundError) and ValueErrors, a broken folder a RuntimeError.
            raise ServiceError(
                f"The weights of Whisper {self._model!r} can't be had: let this machine reach huggingface.co once, or "
                "set HF_HOME to a folder that has them.",
                cause=type(error).__name__,
            ) from error


def spoken_words(segments: Iterable[HeardSegment], *, offset_ms: int) -> Iterator[Word]:
    """The words of one stretch of sound that starts at `offset_ms`; segments that are likely invented are left out."""
    for segment in segments:
        if segment.no_speech_prob > UNSPOKEN and segment.avg_logprob < UNSURE:
            continue
        for word in segment.words or ():
            start_ms = offset_ms + max(0, to_ms(word.start))
            if text := word.word.strip():
                end_ms = max(offset_ms + to_ms(word.end), start_ms + 1)
                yield Word(start_ms=start_ms, end_ms=end_ms, text=text, confidence=round(word.probability, 3))
