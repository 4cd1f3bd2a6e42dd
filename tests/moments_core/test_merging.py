"""Candidates of all windows become the moments of a video: each once, of the length that was asked for, the best."""

from __future__ import annotations

import random

import pytest

from moments_core.merging import asked_length, best, merged
from moments_core.moment import Moment, overlapping_pairs
from moments_core.options import Options
from moments_core.time import Span, to_ms


def moment(start_s: float, end_s: float, score: float = 0.5, title: str = "A moment") -> Moment:
    return Moment(Span(to_ms(start_s), to_ms(end_s)), title, score)


def random_candidates(seed: int) -> list[Moment]:
    rng = random.Random(seed)
    starts = [rng.randrange(600) for _ in range(rng.choice((0, 1, 5, 80)))]
    return [moment(at, at + rng.randrange(1, 120), rng.choice((0.0, 0.5, 0.5, 0.9, 1.0)), f"At {at}") for at in starts]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_was_found_no_moment_stays_twice_and_the_order_of_windows_decides_nothing(seed: int) -> None:
    candidates, rng = random_candidates(seed), random.Random(seed)
    options = Options(
        max_moments=rng.choice((None, 1, 4)), min_seconds=rng.choice((None, 20)), max_seconds=rng.choice((None, 60))
    )
    result = merged(candidates, options)
    assert overlapping_pairs(result.moments) == []
    assert list(result.moments) == sorted(result.moments, key=lambda one: one.span)
    assert len(result.moments) <= (options.max_moments or 1_000)
    assert set(result.moments) <= set(candidates)
    for one in result.moments:
        assert (options.min_seconds or 0) * 1000 <= one.span.length_ms <= (options.max_seconds or 1e6) * 1000
    rng.shuffle(candidates)
    assert merged(candidates, options) == result


def test_a_moment_that_two_windows_found_stays_once_with_the_better_score() -> None:
    result = merged([moment(10, 40, 0.6), moment(12, 41, 0.9, "Better"), moment(100, 130, 0.2)], Options())
    assert [one.title for one in result.moments] == ["Better", "A moment"]
    assert result.remarks == ("1 found twice",)


def test_an_overlap_of_half_is_not_the_same_moment() -> None:
    assert len(merged([moment(0, 30), moment(10, 40)], Options()).moments) == 2  # IoU 20 / 40


def test_lengths_that_were_asked_for_leave_whole_moments_out_and_cut_none_short() -> None:
    found = [moment(0, 10), moment(100, 130), moment(200, 300)]
    result = merged(found, Options(min_seconds=20, max_seconds=60))
    assert result.moments == (found[1],)
    assert result.remarks == ("1 shorter than 20 s", "1 longer than 60 s")


def test_a_moment_of_exactly_the_asked_length_stays() -> None:
    assert len(merged([moment(0, 20), moment(100, 160)], Options(min_seconds=20, max_seconds=60)).moments) == 2


def test_the_usual_minimum_is_no_limit() -> None:
    assert len(merged([moment(0, 8)], Options()).moments) == 1


def test_a_moment_that_is_too_long_takes_none_of_the_right_length_away() -> None:
    assert merged([moment(0, 70, 0.9), moment(5, 60, 0.4)], Options(max_seconds=60)).moments == (moment(5, 60, 0.4),)


def test_the_best_stay_and_the_earlier_of_equals() -> None:
    result = merged([moment(300, 330), moment(0, 30), moment(100, 130, 0.9)], Options(max_moments=2))
    assert [one.span.start_ms for one in result.moments] == [0, 100_000]
    assert result.remarks == ("1 beyond the best 2",)


def test_of_equals_that_start_together_the_longer_one_stays() -> None:
    assert merged([moment(0, 30), moment(0, 40)], Options()).moments == (moment(0, 40),)


def test_nothing_stays_nothing() -> None:
    assert merged([], Options(max_moments=3, min_seconds=1)).moments == ()


def test_best_takes_the_highest_scores() -> None:
    assert best([moment(0, 1, 0.1), moment(1, 2, 0.9), moment(2, 3, 0.5)], 2) == [moment(1, 2, 0.9), moment(2, 3, 0.5)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(), ""),
        (Options(min_seconds=12.5), "at least 12.5 seconds"),
        (Options(max_seconds=60), "at most 60 seconds"),
        (Options(min_seconds=30, max_seconds=60), "between 30 and 60 seconds"),
    ],
)
def test_the_asked_length_in_words(options: Options, says: str) -> None:
    assert asked_length(options) == says
