from __future__ import annotations

from math import nan

import pytest

from moments_core.content import VideoContent
from moments_core.finder.find import LocalFinder
from moments_core.finder.quiet import silence_at_end
from moments_core.moment import Found
from moments_core.options import Options
from moments_core.time import Span

NOTE = "No speech was found: moments follow scene changes and loudness."


def found_in(content: VideoContent, **options: object) -> Found:
    return LocalFinder().find(content, Options.model_validate(options))


def test_a_silent_video_without_cuts_is_one_moment() -> None:
    found = found_in(VideoContent(600_000))
    assert [(moment.span, moment.title) for moment in found.moments] == [(Span(0, 600_000), "Silent scene 1 at 0:00")]
    assert found.note == NOTE


def test_moments_begin_at_scene_cuts_and_tile_the_video() -> None:
    cuts = [60_000, 131_200, 200_400]
    moments = found_in(VideoContent(300_000, scene_cuts_ms=cuts)).moments
    assert len(moments) > 1
    assert {moment.span.start_ms for moment in moments} <= {0, *cuts}
    assert sum(moment.span.length_ms for moment in moments) == 300_000


def test_the_loudest_scene_is_named_and_scores_best() -> None:
    levels = [-40.0] * 100 + [-8.0] * 100 + [-40.0] * 100
    moments = found_in(VideoContent(300_000, scene_cuts_ms=[100_000, 200_000], rms_db=levels)).moments
    best = max(moments, key=lambda moment: moment.score)
    assert best.title == f"Scene {moments.index(best) + 1} at 1:40, loudest part"
    assert sum("loudest" in moment.title for moment in moments) == 1


def test_loudness_alone_tells_scenes_apart() -> None:
    levels = [-50.0] * 120 + [-12.0] * 180
    starts = [moment.span.start_ms for moment in found_in(VideoContent(300_000, rms_db=levels)).moments]
    assert any(abs(start - 120_000) <= 1000 for start in starts)


@pytest.mark.parametrize("limit", [3, 30, 200])
def test_max_seconds_holds_without_speech(limit: int) -> None:
    content = VideoContent(300_000, scene_cuts_ms=[90_000], rms_db=[-30.0] * 300)
    assert all(moment.span.length_ms <= limit * 1000 for moment in found_in(content, max_seconds=limit).moments)


def test_max_moments_holds_without_speech() -> None:
    content = VideoContent(300_000, scene_cuts_ms=[60_000, 131_200, 200_400])
    assert len(found_in(content, max_moments=1).moments) == 1


@pytest.mark.parametrize("levels", [[nan] * 60, [-500.0, 30.0], [-120.0]])
def test_levels_that_cannot_be_are_survived(levels: list[float]) -> None:
    moments = found_in(VideoContent(60_000, rms_db=levels, scene_cuts_ms=[-5, 0, 60_000, 10**9])).moments
    assert sum(moment.span.length_ms for moment in moments) == 60_000


def test_ten_hours_with_a_cut_a_second_are_found_in() -> None:
    content = VideoContent(36_000_000, scene_cuts_ms=range(0, 36_000_000, 1000))
    assert 20 < len(found_in(content).moments) < 100


def test_a_silence_counts_only_where_it_lasts_to_the_end() -> None:
    silences = [Span(1000, 4000), Span(7000, 10_000)]
    assert silence_at_end(Span(0, 10_000), silences, from_ms=5000) == 7000
    assert silence_at_end(Span(0, 6000), silences, from_ms=0) is None
    assert silence_at_end(Span(0, 10_000), silences, from_ms=8000) is None
