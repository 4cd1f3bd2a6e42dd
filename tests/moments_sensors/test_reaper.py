"""The reaper: whoever died is ended, whoever lives is left alone, and nothing waits for ever."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import psutil
import pytest
from sqlalchemy import text

from moments.services import Lakehouse
from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG
from moments_core.errors import DIED, FenceError, TransientError
from moments_core.options import Options
from moments_resources.catalogue import Draft, Recipe
from moments_resources.intake import IntakeRow
from moments_resources.workers import Workers
from moments_sensors.reaper import ALONE_S, GONE_S, SILENT_S, Reaper, Silence

URL = "https://example.org/v.mp4"
LIVES = "with Heart(Workers(database), History(database), run_id): print(flush=True); time.sleep(600)"
HEAD = """
import sys, time
from moments_resources.database import Database
from moments_resources.heart import Heart
from moments_resources.history import History
from moments_resources.workers import Workers
database, run_id = Database(sys.argv[1]), sys.argv[2]
"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def row(lakehouse: Lakehouse) -> IntakeRow:
    return lakehouse.intake.submit(URL, Options(), submitted_by="test")


@pytest.fixture
def reaper(lakehouse: Lakehouse) -> Reaper:
    return Reaper(lakehouse.history, Workers(lakehouse.database))


@pytest.fixture
def elsewhere(lakehouse: Lakehouse) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A process with a heart that takes a run, until it is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(run_id: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HEAD + LIVES, lakehouse.database.url, run_id]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def run_of(instance: dg.DagsterInstance, row: IntakeRow, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    run = dg.DagsterRun(process_video.name, str(uuid.uuid4()), status=status, tags={INTAKE_TAG: str(row.intake_id)})
    instance.add_run(run)
    return run


def later(silence: Silence, seconds: float) -> None:
    """As if so much time had passed between the reaper's looks, in which nothing changed."""
    silence._seen = {key: (state, silent + seconds) for key, (state, silent) in silence._seen.items()}


def one(lakehouse: Lakehouse, query: str) -> dict[str, Any]:
    with lakehouse.database.begin() as connection:
        return dict(connection.execute(text(query)).mappings().one())


STATE = "select state, failed_asset, cause from intake_state"


def test_a_process_that_is_silent_is_dead_and_its_work_is_to_be_done_again(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow, elsewhere: Any
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.STARTED)
    worker = elsewhere(run.run_id)
    attempt = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id=run.run_id, intake_id=row.intake_id)
    psutil.Process(worker.pid).suspend()  # kill -9 is told at once by nobody, either
    assert reaper.reap(instance) == []
    later(reaper._hearts, SILENT_S)
    assert reaper.reap(instance) == [run.run_id]
    assert one(lakehouse, STATE) == {"state": "waiting", "failed_asset": "audio", "cause": DIED}
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE
    assert worker.wait(10) == -9  # it would have woken up later
    assert Workers(lakehouse.database).all() == []
    with pytest.raises(FenceError):
        lakehouse.catalogue.commit(Draft(attempt, Recipe("1", {}), {}, [], 0.1))


def test_a_process_that_this_machine_no_longer_has_is_dead_after_one_beat(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow, elsewhere: Any
) -> None:
    killed, lives = (run_of(instance, row, dg.DagsterRunStatus.STARTED) for _ in range(2))
    worker, frozen = elsewhere(killed.run_id), elsewhere(lives.run_id)
    worker.kill()
    psutil.Process(frozen.pid).suspend()
    assert reaper.reap(instance) == []
    later(reaper._hearts, GONE_S)
    assert reaper.reap(instance) == [killed.run_id]


def test_a_process_that_lives_is_left_alone_however_long_the_reaper_was_away(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow, elsewhere: Any
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.STARTED)
    worker = elsewhere(run.run_id)
    reaper.reap(instance)
    reaper._hearts._looked -= 3600  # the database did not answer, or this process was frozen
    assert reaper.reap(instance) == []
    assert worker.poll() is None


def test_a_beat_is_heard_as_life(lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper) -> None:
    workers = Workers(lakehouse.database)
    workers.enter("run-1")
    reaper.reap(instance)
    later(reaper._hearts, SILENT_S)
    workers.beat("run-1")
    assert reaper.reap(instance) == []
    later(reaper._hearts, SILENT_S - 0.1)
    assert reaper.reap(instance) == []


@pytest.mark.parametrize(
    ("status", "state", "end"),
    [
        (dg.DagsterRunStatus.STARTED, "waiting", dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.STARTING, "waiting", dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.NOT_STARTED, "waiting", dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.CANCELING, "cancelled", dg.DagsterRunStatus.CANCELED),
    ],
)
def test_a_run_without_a_process_is_ended(
    lakehouse: Lakehouse,
    instance: dg.DagsterInstance,
    reaper: Reaper,
    row: IntakeRow,
    status: dg.DagsterRunStatus,
    state: str,
    end: dg.DagsterRunStatus,
) -> None:
    run = run_of(instance, row, status)
    assert reaper.reap(instance) == []  # it may be loading its code
    later(reaper._alone, ALONE_S[status])
    assert reaper.reap(instance) == [run.run_id]
    assert one(lakehouse, STATE)["state"] == state
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is end


def test_runs_of_other_jobs_need_no_heart(instance: dg.DagsterInstance, reaper: Reaper) -> None:
    instance.add_run(dg.DagsterRun("retention", str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED))
    reaper.reap(instance)
    later(reaper._alone, 3600)
    assert reaper.reap(instance) == []


@pytest.mark.parametrize(
    ("status", "state", "cause"),
    [
        (dg.DagsterRunStatus.FAILURE, "waiting", "The run ended"),
        (dg.DagsterRunStatus.CANCELED, "cancelled", "The run was cancelled"),
    ],
)
def test_an_open_attempt_of_a_run_that_is_over_is_closed_as_the_run_ended(
    lakehouse: Lakehouse,
    instance: dg.DagsterInstance,
    reaper: Reaper,
    row: IntakeRow,
    status: dg.DagsterRunStatus,
    state: str,
    cause: str,
) -> None:
    run = run_of(instance, row, status)
    lakehouse.history.open_attempt(str(row.video_id), "audio", run_id=run.run_id, intake_id=row.intake_id)
    assert reaper.reap(instance) == []
    time.sleep(0.01)
    assert reaper.reap(instance) == [run.run_id]
    ended = one(lakehouse, STATE)
    assert (ended["state"], ended["failed_asset"]) == (state, "audio")
    assert ended["cause"].startswith(cause)
    assert reaper.reap(instance) == []


def test_a_run_that_died_between_two_steps_has_failed_at_the_next_asset(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.FAILURE)
    done = lakehouse.history.open_attempt(str(row.video_id), "raw_video", run_id=run.run_id, intake_id=row.intake_id)
    lakehouse.history.close_reused(done)
    reaper.reap(instance)
    time.sleep(0.01)
    reaper.reap(instance)
    assert (one(lakehouse, STATE)["state"], one(lakehouse, STATE)["failed_asset"]) == ("waiting", "audio")


def test_an_attempt_of_a_run_that_dagster_does_not_know_is_closed(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow
) -> None:
    lakehouse.history.open_attempt(str(row.video_id), "audio", run_id="run-1")
    reaper.reap(instance)
    time.sleep(0.01)
    assert reaper.reap(instance) == ["run-1"]
    assert one(lakehouse, "select outcome from pipeline_history")["outcome"] == "failed"
    assert one(lakehouse, STATE)["state"] == "waiting"  # nobody had begun for the submission


def test_a_failure_that_is_recorded_keeps_its_own_reason(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.FAILURE)
    attempt = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id=run.run_id, intake_id=row.intake_id)
    lakehouse.history.close_failed(attempt, TransientError("The disk is full."), will_retry=False)
    reaper.reap(instance)
    time.sleep(0.01)
    assert reaper.reap(instance) == []
    assert one(lakehouse, STATE)["cause"] == "The disk is full."


def test_an_attempt_whose_retry_never_began_is_closed(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.FAILURE)
    attempt = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id=run.run_id, intake_id=row.intake_id)
    lakehouse.history.close_failed(attempt, TransientError("Away."), will_retry=True)
    reaper.reap(instance)
    time.sleep(0.01)
    assert reaper.reap(instance) == [run.run_id]
    assert one(lakehouse, STATE)["state"] == "waiting"


def test_a_retry_that_never_began_is_closed_also_where_another_run_went_over_it(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, reaper: Reaper, row: IntakeRow
) -> None:
    other = lakehouse.intake.submit(URL, Options(max_moments=1), submitted_by="test")
    run = run_of(instance, row, dg.DagsterRunStatus.CANCELED)
    attempt = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id=run.run_id, intake_id=row.intake_id)
    lakehouse.history.close_failed(attempt, TransientError("Away."), will_retry=True)
    newer = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id="run-2", intake_id=other.intake_id)
    lakehouse.history.close_reused(newer)
    reaper.reap(instance)
    time.sleep(0.01)
    assert run.run_id in reaper.reap(instance)
    assert one(lakehouse, f"{STATE} where intake_id = {row.intake_id}")["state"] == "cancelled"


def test_a_run_that_was_taken_for_dead_begins_nothing_more_once_another_has_begun(
    lakehouse: Lakehouse, row: IntakeRow
) -> None:
    opened = lakehouse.history.open_attempt
    first = opened(str(row.video_id), "raw_video", run_id="frozen", intake_id=row.intake_id)
    lakehouse.history.end_run("frozen", TransientError(DIED), intake_id=row.intake_id)
    opened(str(row.video_id), "raw_video", run_id="next", intake_id=row.intake_id)
    with pytest.raises(FenceError, match="took over"):
        opened(str(row.video_id), "audio", run_id="frozen", intake_id=row.intake_id)
    assert opened(str(row.video_id), "audio", run_id="next", intake_id=row.intake_id).run_id == "next"
    assert first.run_id == "frozen"
