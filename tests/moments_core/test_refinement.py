"""Whether a model's boundaries are taken: never outside of the clip, never too far, and the note says why."""

from __future__ import annotations

import random

import pytest

from moments_core.clip_plan import ClipPlan, plan_clip
from moments_core.moment import Refined
from moments_core.refinement import furthest_ms, judged
from moments_core.replies import Boundaries
from moments_core.time import Span

PLAN = ClipPlan(moment=Span(102_000, 132_000), clip=Span(100_000, 133_960))  # 2.00–32.00 in a clip of 33.96 s


def given(start_ms: int, end_ms: int) -> Refined:
    return judged(Boundaries(start_ms, end_ms), PLAN, by="m")


def test_boundaries_in_clip_time_become_those_of_the_video_and_the_note_says_how_far_each_moved() -> None:
    assert given(1_580, 33_100) == Refined(Span(101_580, 133_100), "start −0.42 s; end +1.10 s by m")
    assert given(2_000, 30_500) == Refined(Span(102_000, 130_500), "end −1.50 s by m")
    assert given(2_000, 32_000) == Refined(PLAN.moment, "unchanged by m")


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "why"),
    [
        (20_000, 10_000, "gave 20.00–10.00 s, which ends before it starts"),
        (5_000, 5_000, "gave 5.00–5.00 s, which ends before it starts"),
        (-501, 32_000, "gave -0.50–32.00 s in a clip of 33.96 s"),
        (2_000, 34_461, "gave 2.00–34.46 s in a clip of 33.96 s"),
        (102_000, 132_000, "gave 102.00–132.00 s in a clip of 33.96 s"),
        (10_000, 10_999, "gave 10.00–11.00 s, which is less than 1.00 s long"),
        (33_500, 34_460, "gave 33.50–34.46 s, which is less than 1.00 s long"),
        (14_001, 32_000, "moved an end by 12.00 s, and at most 12.00 s are taken"),
        (2_000, 19_900, "moved an end by 12.10 s, and at most 12.00 s are taken"),
    ],
)
def test_boundaries_that_cannot_be_meant_leave_the_original_and_say_why(start_ms: int, end_ms: int, why: str) -> None:
    assert given(start_ms, end_ms) == Refined(PLAN.moment, f"unchanged: m {why}")


def test_half_a_second_outside_of_the_clip_is_its_edge() -> None:
    assert given(-500, 34_460).span == PLAN.clip


def test_an_end_may_move_by_the_padding_and_a_third_of_the_moment() -> None:
    assert furthest_ms(Span(0, 30_000)) == 12_000
    assert given(14_000, 32_000).span == Span(114_000, 132_000)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_a_model_says_the_moment_stays_in_its_clip_and_overlaps_what_was_found(seed: int) -> None:
    rng = random.Random(seed)
    video = Span(0, rng.choice((3_000, 100_000)))
    start = rng.randrange(video.end_ms - 1)
    moment = Span(start, rng.randrange(start + 1, video.end_ms + 1))
    plan = plan_clip(moment, video=video)
    answer = Boundaries(rng.randrange(-4_000, video.end_ms + 4_000), rng.randrange(-4_000, video.end_ms + 4_000))
    result = judged(answer, plan, by="m")
    assert plan.clip.contains(result.span)
    assert result.span == moment or result.span.length_ms >= 1_000
    assert max(abs(result.span.start_ms - moment.start_ms), abs(result.span.end_ms - moment.end_ms)) <= furthest_ms(
        moment
    )
    assert result.span.overlap_ms(moment) > 0
    assert result.note


def test_what_holds_nothing_of_a_short_moment_is_another_moment() -> None:
    plan = ClipPlan(moment=Span(102_000, 104_000), clip=Span(100_000, 106_000))
    said = judged(Boundaries(4_500, 6_000), plan, by="m")
    assert said == Refined(plan.moment, "unchanged: m gave 4.50–6.00 s, and the moment is at 2.00–4.00 s")
