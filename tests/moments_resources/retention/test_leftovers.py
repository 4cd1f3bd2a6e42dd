"""What dead processes left goes, what living ones hold stays; log files and days of spending go after a while."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import PermanentError, ServiceError
from moments_resources.history import History
from moments_resources.intake import Intake
from moments_resources.retention.leftovers import Leftovers, OldLogs, OldSpending
from moments_resources.retention.part import Cleaned, Part, Retention, remove, told_as
from moments_resources.store.cache import LocalCache
from moments_resources.store.file import FileStore
from moments_resources.store.gcs import GcsPlace, GcsStore

Run = Callable[[Part[Any]], Cleaned]
Sql = Callable[..., list[dict[str, Any]]]

HOLDS = """
import fcntl, os, sys, time
for path in sys.argv[1:]:
    fcntl.flock(os.open(path, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A process that holds lock files as long as it lives."""
    started: list[subprocess.Popen[str]] = []

    def hold(*paths: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLDS, *map(str, paths)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_scratch_of_a_process_goes_when_it_is_dead_and_not_before(
    retention: Retention, run: Run, weigh: Run, holder: Any
) -> None:
    scratch = retention.scratch
    folder = scratch / "7-0123"
    folder.mkdir(parents=True)
    (folder / "half.mp4").touch()
    process = holder(scratch / "7-0123.lock")
    assert run(Leftovers(retention)) == {"leftovers": 0}
    assert folder.exists()
    process.kill()
    process.wait()
    assert weigh(Leftovers(retention)) == {"leftovers": 2}
    assert folder.exists()
    assert run(Leftovers(retention)) == {"leftovers": 2}
    assert list(scratch.iterdir()) == []


def test_a_file_half_brought_into_the_store_goes_when_its_process_is_dead(
    retention: Retention, store: FileStore, run: Run, holder: Any
) -> None:
    incoming = store.root / ".incoming"
    incoming.mkdir(parents=True)
    (incoming / "0123").write_bytes(b"half")
    (incoming / "old").write_bytes(b"of a version that had no lock files")
    process = holder(incoming / "0123.lock")
    run(Leftovers(retention))
    assert sorted(path.name for path in incoming.iterdir()) == ["0123", "0123.lock"]
    process.kill()
    process.wait()
    run(Leftovers(retention))
    assert list(incoming.iterdir()) == []


def test_a_file_on_its_way_into_the_store_is_not_touched(
    retention: Retention, store: FileStore, tmp_path: Path, run: Run
) -> None:
    class Watched(FileStore):
        def _publish(self, incoming: Path, *rest: Any) -> None:
            assert run(Leftovers(retention)) == {"leftovers": 0}
            super()._publish(incoming, *rest)

    path = tmp_path / "mine"
    path.write_bytes(b"one")
    Watched(store.root).copy_in(path, "videos/a/b")
    assert store.local("videos/a/b").read_bytes() == b"one"
    assert list((store.root / ".incoming").iterdir()) == []


def test_parts_and_leases_in_the_cache_of_a_bucket_go_when_their_processes_are_dead(
    retention: Retention, tmp_path: Path, run: Run, weigh: Run, holder: Any
) -> None:
    here = replace(retention, store=GcsStore(GcsPlace("media", ""), LocalCache(tmp_path / "cache", 10**9)))
    assert run(Leftovers(here)) == {"leftovers": 0}
    for folder in ("turns", "leases"):
        (tmp_path / "cache" / folder).mkdir(parents=True)
    turns, leases = tmp_path / "cache/turns", tmp_path / "cache/leases"
    (turns / "ab.part").write_bytes(b"half")
    process = holder(turns / "ab.lock", leases / "0123")
    (turns / "cd.part").write_bytes(b"half")
    (turns / "cd.lock").touch()
    (leases / "4567").touch()
    assert weigh(Leftovers(here)) == run(Leftovers(here)) == {"leftovers": 3}
    assert sorted(path.name for path in turns.iterdir()) == ["ab.lock", "ab.part"]
    assert [path.name for path in leases.iterdir()] == ["0123"]
    process.kill()
    process.wait()
    assert run(Leftovers(here)) == {"leftovers": 3}
    assert [*turns.iterdir(), *leases.iterdir()] == []


def log_of(retention: Retention, intake_id: int, *, days: float) -> Path:
    retention.logs.mkdir(exist_ok=True)
    path = retention.logs / f"intake-{intake_id}.log"
    path.write_text("said")
    os.utime(path, (time.time() - days * 86_400,) * 2)
    return path


def test_a_log_goes_when_its_submission_has_long_ended(
    retention: Retention, intake: Intake, submit: Any, run: Run, weigh: Run
) -> None:
    ended, waits, fresh = (submit(f"https://example.org/{name}.mp4") for name in "abc")
    for row in (ended, fresh):
        intake.refuse(row, PermanentError("No."))
    old = log_of(retention, ended.intake_id, days=31)
    stay = [log_of(retention, waits.intake_id, days=31), log_of(retention, fresh.intake_id, days=29)]
    gone = log_of(retention, 10**9, days=31)  # a video that was taken down
    other = retention.logs / "postgres.log"
    other.write_text("not ours")
    os.utime(other, (0, 0))
    assert weigh(OldLogs(retention)) == {"logs": 2}
    assert run(OldLogs(retention)) == {"logs": 2}
    assert not old.exists()
    assert not gone.exists()
    assert all(path.exists() for path in (*stay, other))


def test_days_of_spending_go_after_a_while_and_today_stays(
    retention: Retention, sql: Sql, run: Run, weigh: Run
) -> None:
    days = "select (now() at time zone 'UTC')::date - unnest(array[0, 29, 31, 400])"
    sql(f"insert into spending (day) {days}")
    assert weigh(OldSpending(retention)) == {"days": 2}
    assert run(OldSpending(retention)) == {"days": 2}
    assert sql("select count(*) as n from spending") == [{"n": 2}]


class Numbers:
    """A part with as many pieces as one likes."""

    name = "numbers"
    share = 1.0

    def candidates(self) -> Iterator[int]:
        yield from range(1, 10**9)

    def weigh(self, piece: int) -> Cleaned:
        return Cleaned(numbers=piece)

    def remove(self, piece: int) -> Cleaned:
        if piece == 3:
            raise ServiceError("The store is away.")
        return Cleaned(numbers=1)


class Endless(Numbers):
    def remove(self, piece: int) -> Cleaned:
        time.sleep(0.01)
        return Cleaned(numbers=min(piece, 1))


def test_a_part_ends_when_its_time_is_up(retention: Retention) -> None:
    told: list[str] = []
    done = remove([Endless()], replace(retention.limits, seconds=0.1), told.append)
    assert 1 < done["numbers"] < 100
    assert "time is up" in told[-1]


def test_a_part_that_fails_keeps_no_other_from_its_work(retention: Retention, sql: Sql) -> None:
    sql("insert into spending (day) values ('2001-01-01')")
    told: list[str] = []
    with pytest.raises(ServiceError, match="The store is away"):
        remove([Numbers(), OldSpending(retention)], retention.limits, told.append)
    assert sql("select * from spending") == []
    assert told == ["numbers: The store is away.", "days of spending: 1 days"]


def test_what_went_is_told_in_words() -> None:
    assert told_as(Cleaned(versions=2, rows=0, objects=1)) == "2 versions, 1 objects"
    assert told_as(Cleaned()) == "nothing"


def test_the_history_is_kept_for_good(retention: Retention, sql: Sql, age: Any, run: Run, video_id: str) -> None:
    History(retention.database).open_attempt(video_id, "audio", run_id="run-1")
    age("pipeline_history", "started_at", days=1000)
    for part in (Leftovers(retention), OldLogs(retention), OldSpending(retention)):
        run(part)
    assert len(sql("select * from pipeline_history")) == 1
