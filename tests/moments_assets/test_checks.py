"""Each rule finds what breaks it, and nothing in what keeps it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from moments_assets.checks import (
    clip_problems,
    moment_problems,
    refinement_problems,
    sound_problems,
    word_problems,
)

VIDEO = {"duration_ms": 60_000, "has_audio": True}
SOUND = {"state": "sound", "rms_db": [-80.0, -20.0], "file": "audio.flac"}
WORD = {"start_ms": 0, "end_ms": 500, "text": "bees", "confidence": None}
TRANSCRIPT = {
    "language": "en",
    "source": "speech_model",
    "model": "test",
    "word_timing": "measured",
    "word_timestamps": [WORD],
    "segment_timestamps": [{"start_ms": 0, "end_ms": 500, "text": "bees"}],
}
MOMENT = {"moment_id": "m_1", "start_ms": 10_000, "end_ms": 40_000, "title": "Bees", "score": 0.5}
CLIP = {"moment_id": "m_1", "start_ms": 8_000, "end_ms": 42_000, "duration_ms": 34_000, "frames": 850, "fps": 25.0}
REFINED = {"moment_id": "m_1", "start_ms": 9_000, "end_ms": 41_000, "title": "Bees"}


def table(row: dict[str, Any], *more: dict[str, Any], **changed: Any) -> pd.DataFrame:
    return pd.DataFrame([{**row, **changed}, *more], dtype=object)


@pytest.mark.parametrize(
    ("sound", "video", "found"),
    [
        ({}, {}, []),
        ({"state": "silent", "rms_db": [-120.0]}, {}, []),
        ({"state": "none", "rms_db": [], "file": None}, {"has_audio": False}, []),
        ({"rms_db": [-100.0, -90.0]}, {}, ["nothing can be heard"]),
        ({"state": "none", "rms_db": [], "file": None}, {}, ["has a sound stream"]),
        ({}, {"has_audio": False}, ["has no sound stream"]),
        ({"file": None}, {}, ["has no file"]),
    ],
)
def test_sound_is_heard_or_said_to_be_silent(sound: dict[str, Any], video: dict[str, Any], found: list[str]) -> None:
    problems = list(sound_problems(table(SOUND, **sound), table(VIDEO, **video)))
    assert len(problems) == len(found)
    assert all(part.split()[-1] in problem for part, problem in zip(found, problems, strict=True))


@pytest.mark.parametrize(
    ("words", "broken"),
    [
        ([WORD], False),
        ([{**WORD, "start_ms": 59_900, "end_ms": 60_500}], True),
        ([{**WORD, "start_ms": 700, "end_ms": 900}, WORD], True),
    ],
)
def test_words_are_in_order_and_inside_the_video(words: list[dict[str, Any]], broken: bool) -> None:
    problems = list(word_problems(table(TRANSCRIPT, word_timestamps=words), table(VIDEO), table(SOUND)))
    assert bool(problems) is broken


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        (table(MOMENT), None),
        (table(MOMENT, {**MOMENT, "start_ms": 39_000, "end_ms": 59_000}), None),
        (table(MOMENT, start_ms=50_000, end_ms=60_001), "outside of the video"),
        (table(MOMENT, {**MOMENT, "start_ms": 11_000}), "the same span"),
    ],
)
def test_moments_lie_inside_the_video_and_apart(moments: pd.DataFrame, found: str | None) -> None:
    problems = list(moment_problems(moments, table(VIDEO), transcript=None))
    assert [found in problem for problem in problems if found] == ([True] if found else [])
    assert bool(problems) is (found is not None)


@pytest.mark.parametrize("changed", [{"title": " "}, {"title": "x" * 200}, {"score": 1.5}, {"end_ms": 10_000}])
def test_a_moment_without_title_or_with_a_wild_score_can_not_even_be_read(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"title|score|span"):
        list(moment_problems(table(MOMENT, **changed), table(VIDEO)))


@pytest.mark.parametrize(
    ("clips", "found"),
    [
        (table(CLIP), None),
        (table(CLIP, duration_ms=34_040), None),
        (table(CLIP, duration_ms=34_041), "instead of 34000 ms"),
        (table(CLIP, duration_ms=33_000), "instead of 34000 ms"),
        (table(CLIP, frames=0), "can't be played"),
        (table(CLIP, moment_id="m_2"), "has no clip"),
        (table(CLIP, start_ms=10_001), "has no clip that shows it whole"),
    ],
)
def test_clips_play_and_last_what_they_should(clips: pd.DataFrame, found: str | None) -> None:
    problems = list(clip_problems(clips, table(MOMENT), raw_video=None))
    assert bool(problems) is (found is not None)
    assert all(found in problem for problem in problems if found)


@pytest.mark.parametrize(
    ("refined", "found"),
    [
        (table(REFINED), None),
        (table(REFINED, start_ms=7_999), "leaves its clip"),
        (table(REFINED, moment_id="m_2"), "not the same ones"),
        (table(REFINED, REFINED), "not the same ones"),
    ],
)
def test_refined_moments_stay_in_their_clips(refined: pd.DataFrame, found: str | None) -> None:
    problems = list(refinement_problems(refined, table(MOMENT), table(CLIP)))
    assert bool(problems) is (found is not None)
    assert all(found in problem for problem in problems if found)
