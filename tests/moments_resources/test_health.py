"""The probe on a real PostgreSQL and a real instance of Dagster: each figure, as its cause comes and goes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres.utils import retry_pg_connection_fn
from sqlalchemy import create_engine

from moments_core.errors import (
    BudgetError,
    CheckError,
    MediaError,
    MomentsError,
    ServiceError,
    SettingsError,
    TransientError,
    reason,
)
from moments_core.health import Health, HealthLimits, kinds, problems
from moments_core.options import Options
from moments_resources.database import Database
from moments_resources.health import PARTS, HealthProbe
from moments_resources.history import History
from moments_resources.intake import Intake
from moments_resources.workers import Workers

Sql = Callable[..., list[dict[str, Any]]]
LOCK = "daemon"
VIDEO = "youtube-dQw4w9WgXcQ"
URL = "https://youtu.be/dQw4w9WgXcQ"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        heard(instance, time.time())
        yield instance


@pytest.fixture
def look(database: Database, tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Callable[[], Health]]:
    """Looks while a daemon is at work."""
    probe = HealthProbe(database, tmp_path / "not" / "made", LOCK)
    with database.try_lock(LOCK) as ours:
        assert ours
        yield lambda: probe.look(lambda: instance)


@pytest.fixture
def history(database: Database) -> History:
    return History(database, tries=1)


def heard(instance: dg.DagsterInstance, at: float) -> None:
    for part in PARTS:
        instance.add_daemon_heartbeat(DaemonHeartbeat(at, part, "one", []))


def found(health: Health) -> tuple[str, ...]:
    return kinds(problems(health, HealthLimits(disk_free_bytes=0)))


def failed(history: History, error: MomentsError, *, intake_id: int, asset: str = "raw_video") -> None:
    run_id = str(uuid.uuid4())
    attempt = history.open_attempt(VIDEO, asset, run_id=run_id, intake_id=intake_id)
    history.close_failed(attempt, error, will_retry=False)


def test_an_empty_installation_with_a_daemon_is_well(look: Callable[[], Health]) -> None:
    health = look()
    assert found(health) == ()
    assert health.disk_free_bytes > 0
    assert health.queue is not None
    assert (health.queue.oldest_waiting_s, health.queue.idle_s) == (None, None)


def test_no_daemon_is_seen_by_its_lock(database: Database, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert found(HealthProbe(database, tmp_path, LOCK).look(lambda: instance)) == ("daemon",)


def test_a_daemon_that_hangs_is_seen_by_its_heartbeats(
    look: Callable[[], Health], instance: dg.DagsterInstance
) -> None:
    heard(instance, time.time() - 600)
    assert found(look()) == ("heartbeat",)
    heard(instance, time.time())
    assert found(look()) == ()


def test_a_database_that_is_away_is_a_fault_and_dagster_is_not_asked(tmp_path: Path) -> None:
    def never() -> dg.DagsterInstance:
        raise AssertionError("nothing may be opened")

    away = Database("postgresql://moments@127.0.0.1:9/moments")
    health = HealthProbe(away, tmp_path, LOCK).look(never)
    assert found(health) == ("database",)
    assert "PostgreSQL does not answer" in str(health.fault)


def test_what_waits_is_counted_and_an_equal_submission_is_counted_once(
    look: Callable[[], Health], intake: Intake, sql: Sql
) -> None:
    for url in (URL, f"{URL}?t=3", "https://example.org/v.mp4"):
        intake.submit(url, Options(), submitted_by="test")
    sql("update url_intake set registered_at = now(), submitted_at = now() - interval '20 minutes'")
    health = look()
    assert health.queue is not None
    assert (health.queue.waiting, health.queue.oldest_new_s) == (2, None)
    assert health.queue.oldest_waiting_s == pytest.approx(1200, abs=30)
    assert found(health) == ("queue",)


def test_a_queue_that_moves_is_well_however_long_it_is(
    look: Callable[[], Health], intake: Intake, history: History, sql: Sql
) -> None:
    first, second = (intake.submit(url, Options(), submitted_by="test") for url in (URL, "https://example.org/v.mp4"))
    sql("update url_intake set registered_at = now(), submitted_at = now() - interval '20 minutes'")
    history.open_attempt(VIDEO, "raw_video", run_id="run-1", intake_id=first.intake_id)
    health = look()
    assert health.queue is not None
    assert (health.queue.waiting, found(health)) == (1, ())
    assert second.intake_id


def test_a_row_that_no_sensor_takes_in_is_seen(look: Callable[[], Health], sql: Sql) -> None:
    sql("insert into url_intake (url, submitted_at) values ('https://example.org/v.mp4', now() - interval '1 hour')")
    assert "intake" in found(look())
    sql("update url_intake set submitted_at = now()")
    assert found(look()) == ()


def test_what_is_tried_again_is_told_apart_from_what_waits(
    look: Callable[[], Health], intake: Intake, database: Database, sql: Sql
) -> None:
    row = intake.submit(URL, Options(), submitted_by="test")
    failed(History(database, tries=5), TransientError("Away: wait."), intake_id=row.intake_id)
    queue = look().queue
    assert queue is not None
    assert (queue.waiting, queue.due_again, queue.again_later, queue.oldest_waiting_s) == (0, 0, 1, None)
    sql("update pipeline_history set try_again_at = now() - interval '1 minute'")
    queue = look().queue
    assert queue is not None
    assert (queue.waiting, queue.due_again, queue.again_later) == (0, 1, 0)
    assert queue.oldest_waiting_s == pytest.approx(60, abs=30)


def test_runs_are_counted_as_dagster_has_them(look: Callable[[], Health], instance: dg.DagsterInstance) -> None:
    for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS):
        instance.add_run(dg.DagsterRun("process_video", str(uuid.uuid4()), status=status))
    queue = look().queue
    assert queue is not None
    assert (queue.runs_queued, queue.runs_at_work) == (1, 1)


def test_a_lease_that_ran_out_and_that_nobody_ends_is_seen(
    look: Callable[[], Health], history: History, sql: Sql
) -> None:
    attempt = history.open_attempt(VIDEO, "raw_video", run_id="run-1", intake_id=None)
    leases = look().leases
    assert leases is not None
    assert (leases.live, leases.over) == (1, 0)
    sql("update pipeline_history set lease_until = now() - interval '5 minutes'")
    assert found(look()) == ("lease",)
    history.close_failed(attempt, TransientError("Died: wait."), will_retry=False)
    assert found(look()) == ()


def test_a_silent_process_that_nobody_ends_is_seen(look: Callable[[], Health], database: Database, sql: Sql) -> None:
    workers = Workers(database)
    workers.enter("run-1")
    assert found(look()) == ()
    sql("update workers set beat_at = now() - interval '5 minutes'")
    assert found(look()) == ("worker",)
    workers.leave("run-1")
    assert found(look()) == ()


@pytest.fixture
def instance_with_pools(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An ephemeral one has none; making this one takes a second."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        heard(instance, time.time())
        yield instance


def test_slots_that_a_run_left_behind_are_seen(
    database: Database, tmp_path: Path, instance_with_pools: dg.DagsterInstance
) -> None:
    instance, probe = instance_with_pools, HealthProbe(database, tmp_path, LOCK)
    log = instance.event_log_storage
    log.set_concurrency_slots("asr", 2)
    at_work, gone = str(uuid.uuid4()), str(uuid.uuid4())
    instance.add_run(dg.DagsterRun("process_video", at_work, status=dg.DagsterRunStatus.STARTED))
    for run_id in (at_work, gone, at_work):
        log.claim_concurrency_slot("asr", run_id, f"step-{uuid.uuid4()}")
    health = probe.look(lambda: instance)
    assert health.pools is not None
    pool = health.pools["asr"]
    assert (pool.places, pool.held, pool.waiting, pool.left_behind) == (2, 2, 1, 1)
    assert found(health) == ("daemon", "slots")
    log.free_concurrency_slots_for_run(gone)
    assert found(probe.look(lambda: instance)) == ("daemon",)


def test_failures_of_a_day_are_counted_by_class_and_asset_with_their_newest_cause(
    look: Callable[[], Health], intake: Intake, history: History, sql: Sql
) -> None:
    row = intake.submit(URL, Options(), submitted_by="test")
    failed(history, MediaError("Older: mend it."), intake_id=row.intake_id)
    failed(history, MediaError("Newer: mend it."), intake_id=row.intake_id, asset="audio")
    failed(history, ServiceError("Away: wait."), intake_id=row.intake_id, asset="audio")
    failures = look().failures
    assert failures is not None
    assert failures.by_class == {"permanent": 2, "transient": 1}
    assert failures.by_asset == {"audio": 2, "raw_video": 1}
    assert failures.newest_causes == {"permanent": "Newer: mend it.", "transient": "Away: wait."}
    assert (failures.for_good, failures.given_up_lately) == (1, 1)
    sql("update pipeline_history set started_at = now() - interval '26 h', ended_at = now() - interval '25 h'")
    failures = look().failures
    assert failures is not None
    assert (failures.by_class, failures.for_good) == ({}, 0)


def test_submissions_that_were_given_up_are_a_problem_until_they_are_run_again(
    look: Callable[[], Health], intake: Intake, history: History
) -> None:
    for number in range(5):
        row = intake.submit(f"{URL}?t={number}", Options(), submitted_by="test")
        failed(history, ServiceError("The store is away: wait."), intake_id=row.intake_id)
    assert found(look()) == ("failures",)
    again = history.open_attempt(VIDEO, "raw_video", run_id="another", intake_id=row.intake_id)
    history.close_reused(again)
    assert found(look()) == ()


OURS = [SettingsError("The key is wrong: mend it."), CheckError("Too long."), KeyError("title"),
        BudgetError("The day's budget is used up."), ServiceError("Away: wait.")]  # fmt: skip


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_the_first_failure_for_no_fault_of_its_video_is_told_where_nothing_else_is_made(
    error: Exception, look: Callable[[], Health], intake: Intake, history: History, sql: Sql
) -> None:
    """An installation with a video an hour never has five failures in one."""
    row = intake.submit(URL, Options(), submitted_by="test")
    made = history.open_attempt("web-1", "moments", run_id="run-1")
    history.close_reused(made)
    downloaded = history.open_attempt(VIDEO, "raw_video", run_id="run-2", intake_id=row.intake_id)
    history.close_reused(downloaded)
    attempt = history.open_attempt(VIDEO, "moments", run_id="run-2", intake_id=row.intake_id)
    history.close_failed(attempt, error, will_retry=False)
    assert found(look()) == ()  # with another video it went well an hour ago
    sql("update pipeline_history set started_at = now() - interval '8 h', ended_at = now() - interval '7 h'"
        " where run_id = 'run-1'")  # fmt: skip
    health = look()
    assert found(health) == ("failures",)  # that each video is downloaded is no comfort
    assert health.failures is not None
    assert reason(error) == health.failures.given_up_cause


def test_what_a_refused_submission_asks_for_is_its_own_fault(look: Callable[[], Health], intake: Intake) -> None:
    row = intake.submit(URL, Options(), submitted_by="test")
    intake.refuse(row, SettingsError("Option max_moments must not be 0."))
    assert found(look()) == ()
    intake.refuse(row, ServiceError("The store is away: wait."))
    assert found(look()) == ("failures",)


def test_a_process_that_hangs_and_keeps_its_lease_does_not_hide_a_queue_that_stands(
    look: Callable[[], Health], intake: Intake, history: History, sql: Sql
) -> None:
    first, _ = (intake.submit(url, Options(), submitted_by="test") for url in (URL, "https://example.org/v.mp4"))
    sql("update url_intake set registered_at = now(), submitted_at = now() - interval '7 h'")
    history.open_attempt(VIDEO, "audio", run_id="run-1", intake_id=first.intake_id)
    assert found(look()) == ("queue",)
    history.close_reused(history.open_attempt(VIDEO, "raw_video", run_id="run-1", intake_id=first.intake_id))
    assert found(look()) == ()


def test_tables_of_dagster_that_can_not_be_read_are_a_fault_of_the_database(database: Database, tmp_path: Path) -> None:
    def refused() -> dg.DagsterInstance:
        create_engine("postgresql+psycopg2://moments:geheim@127.0.0.1:9/moments").connect()
        raise AssertionError("nobody listens there")

    def wrapped() -> dg.DagsterInstance:
        return retry_pg_connection_fn(refused, retry_limit=0)

    for opening in (refused, wrapped):
        health = HealthProbe(database, tmp_path, LOCK).look(opening)
        assert found(health) == ("database",)
        assert "Dagster's tables can't be read" in str(health.fault)


def test_a_broken_video_is_no_problem_of_the_installation(
    look: Callable[[], Health], intake: Intake, history: History
) -> None:
    for number in range(6):
        row = intake.submit(f"{URL}?t={number}", Options(), submitted_by="test")
        failed(history, MediaError("Cut off: submit it whole."), intake_id=row.intake_id)
    failures = look().failures
    assert failures is not None
    assert (failures.for_good, failures.given_up_lately, found(look())) == (6, 0, ())


def test_a_long_past_is_not_read(look: Callable[[], Health], sql: Sql) -> None:
    """By the plans: a figure that grows with the history would show on no clock of a test."""
    from moments_resources import health as probe

    sql("""insert into url_intake (url, video_id, registered_at, settled)
           select 'https://example.org/' || n, 'web-' || n, now(), true from generate_series(1, 3000) n""")
    sql("""insert into pipeline_history (video_id, asset, attempt, outcome, class, cause, started_at, ended_at,
                                         intake_id, run_id, host, pid)
           select video_id, 'audio', 1, case when intake_id % 20 = 0 then 'failed' else 'completed' end,
                  'permanent', 'Broken.', now() - interval '9 days', now() - interval '9 days', intake_id, 'r', 'h', 1
           from url_intake""")
    sql("analyze url_intake")
    sql("analyze pipeline_history")
    for query in (
        probe._WAITING,
        probe._AGAIN,
        probe._IDLE,
        probe._LEASES,
        probe._FAILED,
        probe._FOR_GOOD,
        probe._MADE,
    ):
        plan = "\n".join(row["QUERY PLAN"] for row in sql(f"explain {query}"))
        assert "Seq Scan on pipeline_history" not in plan, plan
        assert "Seq Scan on url_intake" not in plan, plan
    assert found(look()) == ()
