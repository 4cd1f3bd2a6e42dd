"""A whole clean, on a real Dagster instance: what the UI shows stays, old runs and events go, one clean at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from moments.cleaning import retention_of
from moments.services import Lakehouse, prepare_dagster
from moments_core.errors import ServiceError
from moments_core.options import Options
from moments_resources.retention.part import Cleaned, Part, Retention
from moments_resources.step import Step, StepRequest
from moments_sensors.old_runs import OldCancellations, OldEvents, OldRuns
from moments_sensors.retention import LOCK, clean, look_ahead, nightly, retention_job

MONTH = timedelta(days=30)

videos = dg.DynamicPartitionsDefinition(name="videos")


@dg.asset(partitions_def=videos, check_specs=[dg.AssetCheckSpec("sound", asset="talk")])
def talk(context):  # type: ignore[no-untyped-def]
    print("said while it ran")  # noqa: T201 - into Dagster's log of what runs print
    if context.run.tags.get("fails"):
        raise dg.Failure("No.", allow_retries=False)
    yield dg.AssetCheckResult(check_name="sound", passed=True)
    yield dg.Output(1, data_version=dg.DataVersion(context.run.run_id))


@pytest.fixture
def instance(lakehouse: Lakehouse) -> Iterator[dg.DagsterInstance]:
    """The instance of an installation: storage in our PostgreSQL, output of runs in files."""
    prepare_dagster(lakehouse.settings)
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def retention(lakehouse: Lakehouse) -> Retention:
    return retention_of(lakehouse)


@pytest.fixture
def sql(lakehouse: Lakehouse) -> Callable[..., list[Any]]:
    def run(statement: str, **parameters: Any) -> list[Any]:
        with lakehouse.database.begin() as connection:
            result = connection.execute(text(statement), {"old": timedelta(days=31), **parameters})
            return list(result.scalars()) if result.returns_rows else []

    return run


def make(instance: dg.DagsterInstance, video: str, **tags: str) -> str:
    """One run of the asset; its id."""
    instance.add_dynamic_partitions("videos", [video])
    kept = {"io_manager": dg.mem_io_manager}  # what the asset gives back is no concern of these tests
    done = dg.materialize(
        [talk], instance=instance, partition_key=video, tags=tags, resources=kept, raise_on_error=False
    )
    return done.run_id


def make_old(sql: Callable[..., Any], *run_ids: str) -> None:
    for run_id in run_ids:
        sql("update dagster.runs set end_time = end_time - 31 * 86400 where run_id = :run_id", run_id=run_id)


def run(part: Part[Any]) -> Cleaned:
    total = Cleaned()
    for piece in part.candidates():
        total.update(part.remove(piece))
    return total


def known(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def test_an_old_run_goes_with_all_that_it_left(lakehouse: Lakehouse, instance: dg.DagsterInstance, sql: Any) -> None:
    first, second = make(instance, "web-1"), make(instance, "web-1")
    make_old(sql, first)
    logs = lakehouse.settings.state / "dagster" / "storage" / first
    assert logs.is_dir()
    part = OldRuns(instance, MONTH)
    (piece,) = part.candidates()
    assert part.weigh(piece)["runs"] == 1
    assert known(instance) == {first, second}
    assert run(part)["runs"] == 1
    assert known(instance) == {second}
    for table in ("event_logs", "asset_check_executions", "run_tags"):
        assert set(sql(f"select distinct run_id from dagster.{table}")) == {second}  # noqa: S608
    assert sql("select count(*) from dagster.asset_event_tags t where not exists"
               " (select from dagster.event_logs e where e.id = t.event_id)") == [0]  # fmt: skip
    assert not logs.exists()
    assert instance.get_materialized_partitions(dg.AssetKey("talk")) == {"web-1"}


def test_a_run_that_ended_lately_or_is_at_work_stays(instance: dg.DagsterInstance, sql: Any) -> None:
    make(instance, "web-1")
    make(instance, "web-1")
    working = dg.DagsterRun("process_video", str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED)
    instance.add_run(working)
    sql("update dagster.runs set update_timestamp = update_timestamp - cast(:old as interval)")
    assert run(OldRuns(instance, MONTH)) == {}
    assert len(known(instance)) == 3


def test_the_run_of_what_is_current_stays_however_old_it_is(instance: dg.DagsterInstance, sql: Any) -> None:
    """Without its event the UI would take the asset for missing, and a backfill would make all anew."""
    made, failed = make(instance, "web-1"), make(instance, "web-1", fails="yes")
    make_old(sql, made, failed)
    assert run(OldRuns(instance, MONTH))["runs"] == 1
    assert known(instance) == {made}
    assert instance.get_materialized_partitions(dg.AssetKey("talk")) == {"web-1"}
    assert instance.get_latest_data_version_record(dg.AssetKey("talk"), partition_key="web-1") is not None


def test_the_run_of_a_video_that_is_no_more_goes(instance: dg.DagsterInstance, sql: Any) -> None:
    make_old(sql, make(instance, "web-1"))
    instance.delete_dynamic_partition("videos", "web-1")
    assert run(OldRuns(instance, MONTH))["runs"] == 1
    assert known(instance) == set()


def test_all_runs_of_several_pages_are_seen(instance: dg.DagsterInstance, sql: Any) -> None:
    for _ in range(205):
        instance.add_run(dg.DagsterRun("process_video", str(uuid.uuid4()), status=dg.DagsterRunStatus.FAILURE))
    sql("update dagster.runs set update_timestamp = update_timestamp - cast(:old as interval)")
    assert run(OldRuns(instance, MONTH))["runs"] == 205


def test_a_removal_of_a_run_that_was_killed_can_be_repeated(instance: dg.DagsterInstance, sql: Any) -> None:
    first = make(instance, "web-1")
    make(instance, "web-1")
    make_old(sql, first)
    instance.event_log_storage.delete_events(first)  # and then it died
    assert run(OldRuns(instance, MONTH))["runs"] == 1
    assert first not in known(instance)


def test_old_events_without_a_run_go_and_the_newest_of_each_stays(instance: dg.DagsterInstance, sql: Any) -> None:
    for passed in (True, True, False):
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(dg.AssetKey("url_intake"), "healthy", passed, {}))
    for video in ("web-1", "web-1", "web-2"):
        instance.report_runless_asset_event(dg.AssetMaterialization("talk", partition=video))
    lately = sql("select count(*) from dagster.event_logs where run_id = ''")
    assert run(OldEvents(instance, MONTH)) == {}
    assert sql("select count(*) from dagster.event_logs where run_id = ''") == lately
    sql("update dagster.event_logs set timestamp = timestamp - cast(:old as interval)")
    run(OldEvents(instance, MONTH))
    kinds = sql("select dagster_event_type from dagster.event_logs where run_id = '' order by id")
    assert kinds == ["ASSET_CHECK_EVALUATION", "ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION"]
    assert sql("select execution_status from dagster.asset_check_executions") == ["FAILED"]
    assert instance.get_materialized_partitions(dg.AssetKey("talk")) == {"web-1", "web-2"}
    assert run(OldEvents(instance, MONTH)) == {}


def test_a_cancellation_goes_when_nothing_can_run_into_it(
    lakehouse: Lakehouse, retention: Retention, instance: dg.DagsterInstance, sql: Any
) -> None:
    there = make(instance, "web-1")
    waits = lakehouse.intake.submit("https://example.org/v.mp4", Options(), submitted_by="test").intake_id
    add = """insert into cancellations (cancelled_at, cancelled_by, run_ids, intake_ids)
             values (now() - cast(:ago as interval), :by, :runs, :intakes)"""
    for by, days, runs, intakes in (
        ("gone", 31, ["r1"], []), ("run", 31, ["r1", there], []), ("waits", 31, [], [waits]), ("lately", 1, ["r1"], []),
    ):  # fmt: skip
        sql(add, by=by, ago=timedelta(days=days), runs=runs, intakes=intakes)
    part = OldCancellations(retention, instance)
    assert run(part) == {"cancellations": 1}
    assert sql("select cancelled_by from cancellations order by cancellation_id") == ["run", "waits", "lately"]


def commit(lakehouse: Lakehouse, tmp_path: Path, video: str, *names: str) -> None:
    """A version of scene_cuts that names these objects."""
    path = tmp_path / "object"
    path.write_bytes(b"one")
    keys = [f"videos/{video}/scene_cuts/0123/{name}" for name in names]
    stored = [lakehouse.store.copy_in(path, key).as_json() for key in keys]
    with Step(lakehouse.catalogue, tmp_path / "scratch", StepRequest(video, "scene_cuts", "run-1")) as step:
        step.commit([{"time_ms": 10, "score": 1.0}], stored)


@pytest.fixture
def grown(lakehouse: Lakehouse, instance: dg.DagsterInstance, tmp_path: Path, sql: Any) -> Retention:
    """An installation with something of everything: 30 videos with an old version each, garbage, runs."""
    for number in range(30):
        for name in ("old.jpg", "new.jpg"):
            commit(lakehouse, tmp_path, f"web-{number}", name)
    sql("update artifacts set superseded_at = superseded_at - cast(:old as interval)")
    first = make(instance, "web-1")
    make(instance, "web-1")
    make_old(sql, first)
    house = retention_of(lakehouse)
    return replace(house, limits=replace(house.limits, garbage=timedelta(0)))


def rows(sql: Any) -> dict[str, Any]:
    tables = ("artifacts", "versions.scene_cuts", "garbage", "dagster.runs", "dagster.event_logs", "pipeline_history")
    return {table: sql(f"select count(*) from {table}")[0] for table in tables}  # noqa: S608


def test_what_is_current_stays_and_the_rest_goes(
    lakehouse: Lakehouse, grown: Retention, instance: dg.DagsterInstance, sql: Any
) -> None:
    before = rows(sql)
    ahead = look_ahead(grown, instance, print)
    assert (ahead["versions"], ahead["rows"], ahead["runs"], ahead["seen"]) == (30, 0, 1, 60)
    assert rows(sql) == before
    assert len(list(grown.store.keys())) == 60
    told: list[str] = []
    went = clean(grown, instance, told.append)
    assert (went["versions"], went["rows"], went["runs"], went["found"]) == (30, 30, 1, 30)
    assert any(line.startswith("superseded versions: 30 versions") for line in told)
    assert clean(grown, instance, told.append)["objects"] == 30
    assert all(key.endswith("new.jpg") for key in list(grown.store.keys()))
    assert sql("select count(*) from scene_cuts") == [30]
    again = clean(grown, instance, told.append)
    assert +again == {"seen": 30}


def test_a_clean_while_another_is_at_work_says_so(grown: Retention, instance: dg.DagsterInstance) -> None:
    with grown.database.try_lock(LOCK), pytest.raises(ServiceError, match="Another clean is at work"):
        clean(grown, instance, print)


KILLED = """
import os, sys
from datetime import timedelta
from dataclasses import replace
import dagster as dg
from moments.cleaning import retention_of
from moments.services import connect, prepare_dagster
from moments.settings import load_settings
from moments_resources.retention import objects, versions
from moments_sensors.retention import clean

def dying(method, after, calls=[]):
    def called(self, *given):
        done = method(self, *given)
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), 9)
        return done
    return called

versions.OldVersions.remove = dying(versions.OldVersions.remove, 10)
objects.Garbage._removed = dying(objects.Garbage._removed, 10, [])
lakehouse = connect(load_settings())
prepare_dagster(lakehouse.settings)
house = retention_of(lakehouse)
with dg.DagsterInstance.get() as instance:
    clean(replace(house, limits=replace(house.limits, garbage=timedelta(0))), instance, print)
"""


def test_a_clean_that_was_killed_in_its_middle_is_repeated(
    grown: Retention, instance: dg.DagsterInstance, sql: Any
) -> None:
    killed = lambda: subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True).returncode  # noqa: E731
    assert killed() == -signal.SIGKILL  # among the versions
    assert sql("select count(*) from artifacts") == [50]
    clean(grown, instance, print)  # nobody holds the lock any more
    assert sql("select count(*) from artifacts") == [30]
    assert sql("select count(*) from garbage") == [30]
    assert killed() == -signal.SIGKILL  # among the objects of one video
    assert clean(grown, instance, print)["objects"] >= 20
    assert sorted(key.rpartition("/")[2] for key in list(grown.store.keys())) == ["new.jpg"] * 30
    assert sql("select count(*) from garbage") == [0]


def test_the_job_cleans_and_says_what_went(grown: Retention, instance: dg.DagsterInstance, sql: Any) -> None:
    done = retention_job.execute_in_process(instance=instance, resources={"retention": grown})
    assert done.success
    assert sql("select count(*) from artifacts") == [30]
    (output,) = [event for event in done.all_node_events if event.is_successful_output]
    assert output.event_specific_data.metadata["versions"].value == 30  # type: ignore[union-attr]
    with grown.database.try_lock(LOCK):
        second = retention_job.execute_in_process(
            instance=instance, resources={"retention": grown}, raise_on_error=False
        )
    assert not second.success
    (failure,) = second.get_step_failure_events()
    assert "Another clean is at work" in str(failure.step_failure_data.error)


def test_the_job_removes_nothing_with_another_database_than_that_of_the_store(
    grown: Retention, instance: dg.DagsterInstance, sql: Any, tmp_path: Path
) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"one")
    for number in range(50):
        grown.store.copy_in(path, f"videos/web-other/clips/0123/{number}.jpg")
    sql("truncate garbage, artifacts cascade")
    clean(grown, instance, print)  # the first look, at which all of it is noted
    done = retention_job.execute_in_process(instance=instance, resources={"retention": grown}, raise_on_error=False)
    (failure,) = done.get_step_failure_events()
    assert "This would remove 0 of 0 versions and 110 of 110 objects" in str(failure.step_failure_data.error)
    assert "`moments clean --bulk`" in str(failure.step_failure_data.error)
    assert failure.step_failure_data.user_failure_data is not None  # a dg.Failure, which says: no retries
    assert len(list(grown.store.keys())) == 110
    assert clean(grown, instance, print)["objects"] == 110  # `moments clean --bulk`


def test_the_job_runs_every_night() -> None:
    assert nightly.cron_schedule == "30 2 * * *"
    assert nightly.default_status is dg.DefaultScheduleStatus.RUNNING
