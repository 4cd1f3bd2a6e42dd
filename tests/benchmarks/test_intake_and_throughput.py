"""What the benchmarks of intake and throughput count on."""

from __future__ import annotations

import dagster as dg
import pytest
from sqlalchemy import text

from benchmarks.finished_videos import finish_videos
from benchmarks.intake import addresses
from benchmarks.throughput import videos_a_minute
from moments.services import Lakehouse, prepare_dagster
from moments_assets.partitions import videos
from moments_resources.intake import name_video


def test_a_rate_is_taken_from_the_submission_to_the_last_end() -> None:
    assert videos_a_minute([130.0, 120.0, 140.0, 160.0], since=100.0) == 4.0


def test_a_video_without_an_end_counts_until_nobody_waited_for_it_any_more() -> None:
    assert videos_a_minute([130.0, 120.0], since=100.0, given_up=220.0) == 1.0


def test_without_an_end_there_is_no_rate() -> None:
    assert videos_a_minute([], since=100.0) == 0.0


def test_each_address_is_another_video() -> None:
    assert len({name_video(address) for address in addresses(400)}) == 400


def test_videos_that_were_written_by_sql_are_over_like_real_ones(
    lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_dagster(lakehouse.settings)
    with dg.DagsterInstance.get() as instance:
        for count in (3, 5):
            finish_videos(lakehouse, instance, count)
        assert len(instance.get_dynamic_partitions(str(videos.name))) == 5
        assert instance.get_runs_count(dg.RunsFilter(tags={"moments/intake_id": "5"})) == 1
    with lakehouse.database.begin() as connection:
        states = connection.scalars(text("select state from intake_state order by intake_id")).all()
        assert states == ["completed"] * 5
        assert connection.scalar(text("select count(*) from artifacts")) == 40
