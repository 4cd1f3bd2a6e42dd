from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from moments_core.finder.segmenter import Track, segment, usual_count


def track(bounds_s: list[float], *, evidence_at: tuple[int, ...] = ()) -> Track:
    count = len(bounds_s) - 1
    evidence = np.zeros(count)
    evidence[list(evidence_at)] = 4.0
    return Track(np.zeros((count, 2)), evidence, np.array(bounds_s, float))


def lengths(bounds_s: list[float], starts: list[int]) -> list[float]:
    bounds = [*(bounds_s[start] for start in starts), bounds_s[-1]]
    return [end - start for start, end in pairwise(bounds)]


def test_an_hour_has_about_thirteen_moments() -> None:
    assert usual_count(3600) == pytest.approx(13.3, abs=0.1)
    assert usual_count(0) == usual_count(42) == 1.0


def test_a_short_video_has_a_moment_every_45_seconds() -> None:
    assert usual_count(90) == 2.0
    assert usual_count(200) == 4.0
    assert usual_count(600) == 4.0


def test_cuts_stand_where_the_evidence_is() -> None:
    bounds = [float(at) for at in range(0, 905, 5)]
    starts = segment(track(bounds, evidence_at=(40, 78, 101, 150)), least_s=25)
    assert set(starts) <= {0, 40, 78, 101, 150}
    assert len(starts) == round(usual_count(900))


def test_topics_decide_where_there_is_no_other_evidence() -> None:
    bounds = [float(at) for at in range(0, 305, 5)]
    topics = np.zeros((60, 3))
    topics[:23, 0] = topics[23:, 1] = 1.0
    assert 23 in segment(Track(topics, np.zeros(60), np.array(bounds)), least_s=25)


def test_no_segment_is_under_the_least_length_where_it_can_be_kept() -> None:
    bounds = [float(at) for at in range(0, 1801, 6)]
    starts = segment(track(bounds, evidence_at=(50, 51, 52, 53, 54)), least_s=60)
    assert min(lengths(bounds, starts)) >= 60


def test_no_segment_is_over_the_most_length_where_it_can_be_kept() -> None:
    bounds = [float(at) for at in range(0, 1801, 6)]
    starts = segment(track(bounds), least_s=20, most_s=45)
    assert max(lengths(bounds, starts)) <= 45
    assert min(lengths(bounds, starts)) >= 20


def test_an_hour_of_pause_does_not_use_up_the_segments() -> None:
    before = [float(at) for at in range(0, 1800, 5)]
    bounds = [*before, *(at + 30_000 for at in before), 31_800.0]
    starts = segment(track(bounds), least_s=25)
    after_pause = [start for start in starts if bounds[start] >= 30_000]
    assert len(after_pause) >= 3


def test_a_track_that_cannot_keep_any_length_is_still_cut() -> None:
    bounds = [*(at * 1e-3 for at in range(4000)), 50_000.0]
    starts = segment(track(bounds), least_s=25)
    assert starts[0] == 0
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("bounds", [[0.0, 1.0], [5.0, 5.001], [0.0, 0.001, 9_999.0]])
def test_the_shortest_tracks_have_a_segment(bounds: list[float]) -> None:
    assert segment(track(bounds), least_s=25, most_s=30)[0] == 0
