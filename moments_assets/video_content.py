"""From loaded tables to the core's types, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moments_core.content import VideoContent
from moments_core.moment import Moment
from moments_core.time import Span
from moments_core.transcript import Sentence, Transcript, TranscriptSource, Word
from moments_resources.frames import first_row

if TYPE_CHECKING:
    from pandas import DataFrame


def content_of(raw_video: DataFrame, audio: DataFrame, transcript: DataFrame, scene_cuts: DataFrame) -> VideoContent:
    """All that is known of a video, for a finder or a refiner."""
    sound, speech = first_row(audio), first_row(transcript)
    return VideoContent(
        duration_ms=first_row(raw_video)["duration_ms"],
        sentences=[Sentence.model_validate(item) for item in speech["segment_timestamps"]],
        words=[Word.model_validate(item) for item in speech["word_timestamps"]],
        silences=spans_of(sound["silences"]),
        scene_cuts_ms=[int(time) for time in scene_cuts["time_ms"]],
        rms_db=sound["rms_db"],
    )


def spans_of(pairs: Sequence[Sequence[int]]) -> list[Span]:
    return [Span(start, end) for start, end in pairs]


def span_of(row: dict[Any, Any]) -> Span:
    """The span of a moment's, a refined moment's or a clip's row."""
    return Span(row["start_ms"], row["end_ms"])


def moments_of(frame: DataFrame) -> list[Moment]:
    return [Moment(span_of(row), row["title"], row["score"]) for row in frame.to_dict("records")]


def transcript_of(row: dict[str, Any]) -> Transcript:
    """A row of `transcripts` as the core's transcript."""
    return Transcript(
        language=row["language"],
        source=TranscriptSource(row["source"]),
        model=row["model"],
        word_timing=row["word_timing"],
        words=tuple(Word.model_validate(item) for item in row["word_timestamps"]),
        sentences=tuple(Sentence.model_validate(item) for item in row["segment_timestamps"]),
    )
