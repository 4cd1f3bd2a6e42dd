"""The rules that results keep: blocking asset checks, run on a result before it is committed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moments_assets.video_asset import Check
from moments_assets.video_content import moments_of, span_of, transcript_of
from moments_core.moment import overlapping_pairs
from moments_core.sentences import transcript_problems
from moments_core.time import Span
from moments_resources.frames import first_row
from moments_resources.media.levels import nothing_is_heard

if TYPE_CHECKING:
    from pandas import DataFrame


def sound_problems(audio: DataFrame, raw_video: DataFrame) -> Iterator[str]:
    """Sound is heard, or the row says that it is silent or that there is none."""
    sound, video = first_row(audio), first_row(raw_video)
    if (sound["state"] == "none") == bool(video["has_audio"]):
        yield f"audio says {sound['state']!r} but the video has {'a' if video['has_audio'] else 'no'} sound stream"
    if sound["state"] == "sound" and nothing_is_heard(sound["rms_db"]):
        yield "audio says 'sound' but nothing can be heard in it"
    if (sound["file"] is None) != (sound["state"] == "none"):
        yield f"audio says {sound['state']!r} but {'has no' if sound['file'] is None else 'has a'} file"


def word_problems(transcript: DataFrame, raw_video: DataFrame, audio: DataFrame) -> Iterator[str]:  # noqa: ARG001
    """Words and sentences are in order and inside the video."""
    yield from transcript_problems(transcript_of(first_row(transcript)), first_row(raw_video)["duration_ms"])


def moment_problems(moments: DataFrame, raw_video: DataFrame, **_: DataFrame) -> Iterator[str]:
    """Moments lie inside the video, are titled and scored (by their type), and none was found twice."""
    whole = Span(0, first_row(raw_video)["duration_ms"])
    found = moments_of(moments)
    for moment in found:
        if not whole.contains(moment.span):
            yield f"the moment {moment.title!r} at {moment.span} lies outside of the video"
    for first, second in overlapping_pairs(found):
        yield f"the moments {first.title!r} and {second.title!r} are the same span (IoU over 0.5)"


def clip_problems(clips: DataFrame, moments: DataFrame, **_: DataFrame) -> Iterator[str]:
    """Every moment has a clip that contains it, decodes, and lasts what it should within one frame."""
    shown = {row["moment_id"]: row for row in clips.to_dict("records")}
    for moment in moments.to_dict("records"):
        clip = shown.get(moment["moment_id"])
        if clip is None or not span_of(clip).contains(span_of(moment)):
            yield f"the moment {moment['title']!r} has no clip that shows it whole"
        elif clip["frames"] == 0:
            yield f"the clip of {moment['title']!r} can't be played"
        elif abs(clip["duration_ms"] - span_of(clip).length_ms) > 1000 / clip["fps"]:
            planned = span_of(clip).length_ms
            yield f"the clip of {moment['title']!r} lasts {clip['duration_ms']} ms instead of {planned} ms"


def refinement_problems(refined: DataFrame, moments: DataFrame, clips: DataFrame, **_: DataFrame) -> Iterator[str]:
    """Every moment is refined once, inside of its clip."""
    shown = {row["moment_id"]: span_of(row) for row in clips.to_dict("records")}
    if sorted(refined["moment_id"]) != sorted(moments["moment_id"]):
        yield "refined moments and moments are not the same ones"
    for row in refined.to_dict("records"):
        if row["moment_id"] in shown and not shown[row["moment_id"]].contains(span_of(row)):
            yield f"the refined moment {row['title']!r} leaves its clip"


SOUND_IS_STATED = Check("sound_is_stated", "Sound can be heard, or the row says that it can't.", sound_problems)
WORDS_ARE_IN_ORDER = Check("words_are_in_order", "Words are in order and inside the video.", word_problems)
MOMENTS_ARE_SOUND = Check("moments_are_sound", "Inside the video, titled, no two with IoU over 0.5.", moment_problems)
CLIPS_PLAY = Check("clips_play", "Each clip decodes and lasts what it should within one frame.", clip_problems)
REFINED_STAY_IN_THEIR_CLIPS = Check(
    "refined_stay_in_their_clips", "Each moment is refined once, inside of its clip.", refinement_problems
)
