"""A process with a run says that it lives, keeps its attempts' leases, and stops when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from moments_core.errors import LeaseError
from moments_resources.catalogue import Catalogue, Draft, Recipe
from moments_resources.database import Database
from moments_resources.heart import BEAT_S, Heart
from moments_resources.history import LEASE_S, History
from moments_resources.workers import Workers

Sql = Callable[..., list[dict[str, Any]]]

_AT_WORK = """
import sys, time
from moments_resources import heart
from moments_resources.database import Database
from moments_resources.history import History
from moments_resources.workers import Workers
heart.BEAT_S, heart._STOP_S = 0.1, 0.5
database = Database(sys.argv[1])
try:
    with heart.Heart(Workers(database), History(database), "run-1"):
        print("at work", flush=True)
        {work}
except KeyboardInterrupt:
    sys.exit("stopped properly")
"""


@pytest.fixture
def at_work(database: Database) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A process that has taken run-1 and does this work."""
    started: list[subprocess.Popen[str]] = []

    def start(work: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _AT_WORK.format(work=work), database.url]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_beats_rise_and_renew_the_leases_of_the_runs_attempts_alone(
    database: Database, at_work: Any, sql: Sql, until: Any, video_id: str
) -> None:
    history = History(database)
    mine, other = (
        history.open_attempt(video_id, name, run_id=run) for name, run in (("audio", "run-1"), ("clips", "x"))
    )
    sql("update pipeline_history set lease_until = now()")
    at_work("time.sleep(600)")
    until(lambda: sql("select beat from workers")[0]["beat"] >= 2)
    leases = "select attempt_id, lease_until > now() + interval '30 s' as live from pipeline_history"
    assert {row["attempt_id"]: row["live"] for row in sql(leases)} == {mine.attempt_id: True, other.attempt_id: False}


def test_a_process_that_is_told_to_stop_is_interrupted_as_by_ctrl_c(at_work: Any, sql: Sql) -> None:
    process = at_work("time.sleep(600)")
    sql("update workers set stop_reason = 'Cancelled.'")
    assert process.communicate(timeout=20) == ("", "stopped properly\n")
    assert sql("select * from workers") == []


def test_a_process_that_was_taken_for_dead_stops(at_work: Any, sql: Sql) -> None:
    process = at_work("time.sleep(600)")
    sql("delete from workers")
    assert process.communicate(timeout=20)[1] == "stopped properly\n"


def test_a_process_that_does_not_listen_leaves_all_the_same(at_work: Any, sql: Sql) -> None:
    process = at_work("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)")
    sql("update workers set stop_reason = 'Cancelled.'")
    assert process.wait(20) == 1


def test_a_run_that_is_over_leaves_no_row_and_no_thread(database: Database, sql: Sql) -> None:
    before = psutil.Process().num_threads()
    with Heart(Workers(database), History(database), "run-1"):
        (row,) = sql("select run_id, pid from workers")
        assert row == {"run_id": "run-1", "pid": os.getpid()}
    assert sql("select * from workers") == []
    assert psutil.Process().num_threads() <= before


def test_a_database_that_is_away_stops_nobody(at_work: Any, database: Database, sql: Sql, until: Any) -> None:
    process = at_work("time.sleep(600)")
    others = "datname = current_database() and pid <> pg_backend_pid()"
    sql(f"select pg_terminate_backend(pid) from pg_stat_activity where {others}")  # noqa: S608
    sql("update workers set beat = 0")
    until(lambda: sql("select beat from workers")[0]["beat"] >= 2)
    assert process.poll() is None


def test_an_attempt_whose_lease_ran_out_may_not_commit(catalogue: Catalogue, sql: Sql, video_id: str) -> None:
    attempt = catalogue.history.open_attempt(video_id, "scene_cuts", run_id="run-1")
    sql("update pipeline_history set lease_until = now() - interval '1 ms'")
    with pytest.raises(LeaseError, match="run this again"):
        catalogue.commit(Draft(attempt, Recipe("1", {}), {}, [], 0.1))
    with pytest.raises(LeaseError):
        catalogue.history.close_reused(attempt)
    assert sql("select * from artifacts") == []


def test_a_lease_outlives_many_beats() -> None:
    assert LEASE_S >= 10 * BEAT_S
