from __future__ import annotations

import dataclasses

import pytest

from moments_core.time import Span, clock, to_ms, to_seconds, total_ms


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5), (0, 0)])
def test_a_span_that_is_empty_or_runs_backwards_or_starts_before_the_video_can_not_exist(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        Span(start, end)


def test_a_span_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Span(0, 1).end_ms = 2  # type: ignore[misc]


def test_spans_sort_by_their_start_then_their_end() -> None:
    assert sorted([Span(5, 6), Span(0, 9), Span(0, 3)]) == [Span(0, 3), Span(0, 9), Span(5, 6)]


def test_neighbours_do_not_overlap_because_the_end_is_outside() -> None:
    assert Span(0, 10).overlap_ms(Span(10, 20)) == 0
    assert Span(0, 10).iou(Span(10, 20)) == 0.0


def test_overlap_and_iou_do_not_depend_on_the_order() -> None:
    one, other = Span(0, 10), Span(5, 20)
    assert one.overlap_ms(other) == other.overlap_ms(one) == 5
    assert one.iou(other) == other.iou(one) == 5 / 20
    assert one.iou(one) == 1.0


def test_a_span_contains_itself_and_what_touches_its_ends() -> None:
    assert Span(0, 10).contains(Span(0, 10))
    assert Span(0, 10).contains(Span(0, 3))
    assert not Span(0, 10).contains(Span(3, 11))
    assert not Span(1, 10).contains(Span(0, 10))


def test_padding_stays_inside_the_video() -> None:
    assert Span(1_000, 9_000).padded(2_000, within=Span(0, 10_000)) == Span(0, 10_000)
    assert Span(4_000, 6_000).padded(1_000, within=Span(0, 10_000)) == Span(3_000, 7_000)


def test_what_lies_outside_is_clamped_to_nothing() -> None:
    assert Span(0, 10).clamped(Span(5, 20)) == Span(5, 10)
    assert Span(0, 10).clamped(Span(10, 20)) is None


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0:00"), (999, "0:00"), (61_000, "1:01"), (3_599_999, "59:59"), (3_661_000, "1:01:01")]
)
def test_a_clock_shows_hours_only_where_there_are_some(ms: int, text: str) -> None:
    assert clock(ms) == text


def test_a_span_reads_as_two_clocks() -> None:
    assert str(Span(5_000, 65_000)) == "0:05–1:05"


@pytest.mark.parametrize(("seconds", "ms"), [(0.0, 0), (10.5, 10_500), (0.0004, 0), (0.0006, 1), (1.9999, 2_000)])
def test_seconds_are_rounded_to_the_nearest_millisecond(seconds: float, ms: int) -> None:
    assert to_ms(seconds) == ms


def test_every_millisecond_of_a_day_survives_the_way_to_seconds_and_back() -> None:
    assert all(to_ms(to_seconds(ms)) == ms for ms in range(0, 86_400_000, 997))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_is_refused(seconds: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        to_ms(seconds)


def test_the_total_counts_overlaps_twice() -> None:
    assert total_ms([Span(0, 10), Span(5, 10)]) == 15
    assert total_ms([]) == 0
