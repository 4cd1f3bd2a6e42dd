"""Clips around moments, and the one offset between their times."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from moments_core.clip_plan import ClipPlan, plan_clip
from moments_core.errors import CheckError
from moments_core.time import Span

RATES = [Fraction(24), Fraction(25), Fraction(30), Fraction(60), Fraction(24_000, 1001), Fraction(30_000, 1001)]
VIDEO = Span(0, 181_400)


def some_plans(rate: Fraction | None) -> list[ClipPlan]:
    rng = random.Random(3)
    moments = [Span(*sorted(rng.sample(range(VIDEO.end_ms + 1), 2))) for _ in range(300)]
    return [plan_clip(m, video=VIDEO, padding_ms=rng.choice((0, 1, 2_000)), frame_rate=rate) for m in moments]


def test_a_clip_shows_two_seconds_more_on_each_side() -> None:
    assert plan_clip(Span(10_500, 45_200), video=VIDEO).clip == Span(8_500, 47_200)


def test_padding_ends_with_the_video() -> None:
    assert plan_clip(Span(500, 180_000), video=VIDEO).clip == VIDEO


@pytest.mark.parametrize("rate", [None, *RATES])
def test_a_clip_contains_its_moment_and_stays_in_the_video(rate: Fraction | None) -> None:
    for plan in some_plans(rate):
        assert plan.clip.contains(plan.moment)
        assert VIDEO.contains(plan.clip)


@pytest.mark.parametrize("rate", RATES)
def test_the_frames_of_a_clip_last_as_long_as_the_clip(rate: Fraction) -> None:
    starts = [int(frame * 1000 / rate) for frame in range(int(VIDEO.end_ms * rate / 1000) + 2)]
    for plan in some_plans(rate):
        if plan.clip.end_ms == VIDEO.end_ms:
            continue  # the last frame may be cut short by the end of the sound
        frames = starts.index(plan.clip.end_ms) - starts.index(plan.clip.start_ms)
        assert abs(frames * 1000 / rate - plan.clip.length_ms) < 1


@pytest.mark.parametrize("rate", RATES)
def test_frames_widen_a_clip_by_less_than_one_frame_on_each_side(rate: Fraction) -> None:
    for exact, framed in zip(some_plans(None), some_plans(rate), strict=True):
        assert 0 <= exact.clip.start_ms - framed.clip.start_ms <= 1000 / rate
        assert 0 <= framed.clip.end_ms - exact.clip.end_ms <= 1000 / rate


@pytest.mark.parametrize("rate", RATES)
def test_planning_a_planned_clip_again_changes_nothing(rate: Fraction) -> None:
    for plan in some_plans(rate):
        assert plan_clip(plan.clip, video=VIDEO, padding_ms=0, frame_rate=rate).clip == plan.clip


def test_clip_time_and_video_time_are_one_offset_apart() -> None:
    plan = plan_clip(Span(10_500, 45_200), video=VIDEO)
    assert plan.to_clip(10_500) == 2_000
    assert plan.to_video(2_000) == 10_500
    assert plan.moment_in_clip == Span(2_000, 36_700)
    assert all(plan.to_video(plan.to_clip(ms)) == ms for ms in range(0, VIDEO.end_ms, 977))


@pytest.mark.parametrize("moment", [Span(181_000, 181_401), Span(200_000, 210_000)])
def test_a_moment_that_is_not_in_the_video_is_refused(moment: Span) -> None:
    with pytest.raises(CheckError, match="does not lie inside its video") as caught:
        plan_clip(moment, video=VIDEO)
    assert caught.value.evidence["video"] == "0..181400 ms"


def test_a_plan_whose_clip_misses_its_moment_can_not_be_made() -> None:
    with pytest.raises(ValueError, match="must contain its moment"):
        ClipPlan(Span(0, 10), Span(1, 20))
