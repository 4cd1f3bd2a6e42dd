"""What was said and when: words, sentences, transcript."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moments_core.time import Span


class TranscriptSource(StrEnum):
    """Where the text came from."""

    HUMAN_CAPTIONS = "human_captions"
    AUTOMATIC_CAPTIONS = "automatic_captions"
    SPEECH_MODEL = "speech_model"
    NONE = "none"


class TimedText(BaseModel):
    """Text over [start_ms, end_ms); never empty."""

    model_config = ConfigDict(frozen=True)

    start_ms: int = Field(ge=0)
    end_ms: int
    text: str = Field(min_length=1)

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if self.end_ms <= self.start_ms:
            raise ValueError(f"text must end after it starts, got {self.start_ms}..{self.end_ms}")
        return self

    @property
    def span(self) -> Span:
        return Span(self.start_ms, self.end_ms)


class Word(TimedText):
    """One spoken word. `confidence` is the recogniser's own, 0..1, or None."""

    confidence: float | None = None


class Sentence(TimedText):
    """One sentence (or caption-sized piece). `turn_start` is true where a new speaker begins."""

    speaker: str | None = None
    turn_start: bool = False


class Transcript(BaseModel):
    """A whole video's words and sentences, each in time order.

    `word_timing` says whether word times were measured or spread over a caption by its letters.
    """

    model_config = ConfigDict(frozen=True, ignored_types=(cached_property,))

    language: str | None = None
    source: TranscriptSource
    model: str
    word_timing: Literal["measured", "interpolated", "none"] = "none"
    words: tuple[Word, ...] = ()
    sentences: tuple[Sentence, ...] = ()

    @property
    def has_speech(self) -> bool:
        return bool(self.sentences)

    @cached_property
    def full_text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)
