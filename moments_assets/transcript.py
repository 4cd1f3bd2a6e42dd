"""What was said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moments_assets.checks import WORDS_ARE_IN_ORDER
from moments_assets.previews import transcript_preview
from moments_assets.video_asset import video_asset
from moments_assets.video_content import spans_of
from moments_core.captions import transcript_from_captions
from moments_core.errors import MediaError
from moments_core.transcript import Transcript, TranscriptSource
from moments_resources.frames import first_row, new_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.speech import SpeechToText
    from moments_resources.step import Step


@video_asset(
    code_version="1",
    kinds={"python"},
    pool="asr",
    options=("captions",),
    checks=[WORDS_ARE_IN_ORDER],
)
def transcript(raw_video: DataFrame, audio: DataFrame, *, speech: SpeechToText, step: Step) -> DataFrame:
    """Words and sentences with their times.

    From the video's own captions, where it has them and they are asked for (`captions`) or better than the speech
    model at hand; else by speech to text. A video in which nobody speaks has a row that says so.
    """
    video, sound = first_row(raw_video), first_row(audio)
    wanted = step.options.captions or (step.options.captions is None and speech.yields_to_captions)
    result = (_from_captions(video, step) if wanted else None) or _from_sound(video, sound, speech, step)
    _show(result, video["duration_ms"], step)
    return new_table("transcript", [_row(result)])


def _from_captions(video: dict[str, Any], step: Step) -> Transcript | None:
    """The transcript that the captions give, or None where there are none that can be read."""
    if not video["captions"]:
        return None
    source = TranscriptSource(video["captions_source"])
    try:
        result = transcript_from_captions(
            video["captions"],
            language=video["captions_language"],
            source=source,
            model=source.value,
            duration_ms=video["duration_ms"],
        )
    except MediaError as error:
        step.measure(captions_refused=str(error))
        return None
    return result if result.has_speech else None


def _from_sound(video: dict[str, Any], sound: dict[str, Any], speech: SpeechToText, step: Step) -> Transcript:
    if sound["state"] != "sound":
        return Transcript(source=TranscriptSource.NONE, model="none")
    return speech.transcribe(
        sound["file"].path,
        duration_ms=min(sound["duration_ms"], video["duration_ms"]),
        silences=spans_of(sound["silences"]),
        on_progress=step.progress_of(sound["duration_ms"]),
    )


def _row(result: Transcript) -> dict[str, Any]:
    return {
        "has_speech": result.has_speech,
        "language": result.language,
        "source": result.source.value,
        "model": result.model,
        "word_timing": result.word_timing,
        "full_text": result.full_text,
        "word_timestamps": [word.model_dump() for word in result.words],
        "segment_timestamps": [sentence.model_dump() for sentence in result.sentences],
    }


def _show(result: Transcript, duration_ms: int, step: Step) -> None:
    step.measure(
        source=result.source.value if result.has_speech else "no speech",
        model=result.model,
        words=len(result.words),
        sentences=len(result.sentences),
        media_seconds_per_second=round(duration_ms / 1000 / max(step.seconds, 1e-3), 1),
    )
    step.show(preview=transcript_preview(result))
