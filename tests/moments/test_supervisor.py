"""The supervisor over processes that start in a moment (tests/stand_ins/supervised.py), on real PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from moments.embedded_postgres import EmbeddedPostgres
from moments.services import DAEMON_LOCK, Lakehouse, up
from moments.settings import PROJECT, Settings
from moments.supervisor import pause_seconds
from moments_resources.database import lock_key
from tests.stand_ins.supervised import MODULE

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Supervised:
    """A supervisor at work, what its processes noted, and what it said."""

    process: subprocess.Popen[bytes]
    notes: Path
    log: Path

    def started(self, name: str) -> list[int]:
        """Process ids, one a start."""
        return [int(line.split()[1]) for line in self._lines() if line.split()[0] == name]

    def started_at(self, name: str) -> list[float]:
        return [float(line.split()[2]) for line in self._lines() if line.split()[0] == name]

    def folder(self) -> Path:
        return Path(self._lines()[0].split()[0])

    def said(self) -> str:
        return self.log.read_text()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def all_pids(self) -> list[int]:
        return [pid for name in ("daemon", "server", "below") for pid in self.started(name)]

    def _lines(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@contextmanager
def supervised(folder: Path, *, first: str = "") -> Iterator[Supervised]:
    """At work with all its processes. `first` is said before it, as in a script that starts it."""
    notes, log = folder / "notes", folder / "log"
    command = [sys.executable, "-m", MODULE, str(notes)]
    if first:
        command = ["/bin/sh", "-c", f'{first}; exec "$@"', "sh", *command]
    with log.open("wb") as stderr:
        one = Supervised(subprocess.Popen(command, cwd=PROJECT, stderr=stderr), notes, log)
    try:
        until(lambda: len(one.started("below")) >= 2, one)
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        for pid in one.all_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def until(what: Callable[[], Any], one: Supervised) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(one.said()[-3000:])


def lives(pid: int) -> bool:
    """A zombie is dead: whoever inherited it has not looked yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def guards(one: Supervised) -> list[int]:
    """Children of the supervisor that are none of its programs."""
    programs = {pid for name in ("daemon", "server", "hasty") for pid in one.started(name)}
    children = psutil.Process(one.process.pid).children()
    return [child.pid for child in children if child.pid not in programs and _shows(child, "rmtree")]


def _shows(process: psutil.Process, word: str) -> bool:
    try:
        return word in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPostgres]:
    """An embedded default of the test's own, which the environment names."""
    for name in [name for name in os.environ if name.startswith(("MOMENTS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MOMENTS_HOME", str(tmp_path / "home"))
    postgres = EmbeddedPostgres(tmp_path / "home")
    postgres.ensure_running()
    yield postgres
    postgres.remove()


def server_processes(postgres: EmbeddedPostgres) -> list[psutil.Process]:
    """The postmaster first."""
    address = postgres.address()
    assert address is not None
    postmaster = psutil.Process(int((address.data_dir / "postmaster.pid").read_text().split()[0]))
    return [postmaster, *postmaster.children(recursive=True)]


def resume(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def lock_holder(lakehouse: Lakehouse) -> int | None:
    query = text(
        "select pid from pg_locks where locktype = 'advisory' and granted"
        " and (classid::bigint << 32) | objid::bigint = :key"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    with lakehouse.database.begin() as connection:
        pid: int | None = connection.scalar(query, {"key": lock_key(DAEMON_LOCK)})
        return pid


def test_one_works_children_come_back_and_kill_9_leaves_nothing(lakehouse: Lakehouse, tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        (server,) = one.started("server")
        killed_at = time.monotonic()
        os.kill(server, signal.SIGKILL)
        until(lambda: len(one.started("server")) == 2, one)
        assert one.started_at("server")[1] - killed_at < 5
        assert "The server ended (killed by SIGKILL); it starts again at once.\n" in one.said()

        second = subprocess.run(
            [sys.executable, "-m", MODULE, str(tmp_path / "second")], cwd=PROJECT, check=False, capture_output=True
        )
        assert second.returncode == 2
        refusal = "moments: A daemon runs on this lakehouse already: one is enough, stop it first.\n"
        assert second.stderr.decode() == refusal

        # A hook is called again and again, whatever it raises.
        until(lambda: len(one.started("tick")) >= 2, one)
        assert one.said().count("moments: The hook's own sentence.\n") >= 2

        # What dies at once is not started in a busy loop.
        starts = until(lambda: len(one.started("hasty")) >= 4 and one.started_at("hasty"), one)
        assert all(
            later - earlier > pause for earlier, later, pause in zip(starts, starts[1:], (0, 1, 2), strict=False)
        )

        (guard,) = guards(one)
        os.kill(guard, signal.SIGKILL)
        until(lambda: guards(one) not in ([guard], []), one)
        one.process.kill()
        until(lambda: not any(lives(pid) for pid in one.all_pids()), one)
        until(lambda: not one.folder().exists(), one)


def test_what_hangs_is_killed_alone_and_starts_again(lakehouse: Lakehouse, tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        (daemon,), (server,), below = one.started("daemon"), one.started("server"), one.started("below")
        until(lambda: len(one.started("tick")) >= 2, one)
        assert one.started("server") == [server]
        one.notes.with_suffix(".silent").touch()
        until(lambda: len(one.started("server")) >= 2, one)
        one.notes.with_suffix(".silent").unlink()
        assert not lives(server)
        assert all(lives(pid) for pid in [daemon, *below])
        assert one.started("daemon") == [daemon]
        assert "moments: The server gave no sign of life for 1 s: it is killed.\n" in one.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_ends_with_all_below_even_as_a_background_job(
    lakehouse: Lakehouse, tmp_path: Path, number: signal.Signals
) -> None:
    with supervised(tmp_path, first="trap '' INT") as one:
        asked_at = time.monotonic()
        assert one.end(number) == 0
        assert time.monotonic() - asked_at < 20
        assert not any(lives(pid) for pid in one.all_pids())
        assert not one.folder().exists()


def test_after_the_end_of_postgresql_the_server_and_the_daemon_come_back_with_the_lock(
    embedded: EmbeddedPostgres, tmp_path: Path
) -> None:
    lakehouse = up(Settings(_env_file=None))
    with supervised(tmp_path) as one:
        (daemon,) = one.started("daemon")
        server_processes(embedded)[0].kill()
        until(lambda: not lives(daemon), one)
        until(lambda: len(one.started("daemon")) == 2, one)
        assert lock_holder(lakehouse) is not None
        assert "waiting until it answers again." in one.said()
        assert one.started("server") == [pid for pid in one.started("server") if lives(pid)]
        until(lambda: one.started_at("tick")[-1:] > one.started_at("daemon")[1:], one)


def test_a_frozen_postgresql_stops_the_daemon_and_ctrl_c_is_answered(
    embedded: EmbeddedPostgres, tmp_path: Path
) -> None:
    lakehouse = up(Settings(_env_file=None))
    with supervised(tmp_path) as one:
        frozen = server_processes(embedded)
        for process in frozen:
            process.suspend()
        try:
            until(lambda: not lives(one.started("daemon")[0]), one)
        finally:
            resume(frozen)
        # The session of before may still hold the lock: it is its own, no other daemon's.
        until(lambda: len(one.started("daemon")) == 2, one)
        assert lock_holder(lakehouse) is not None

        frozen = server_processes(embedded)
        for process in frozen:
            process.suspend()
        time.sleep(4)  # it looks at its lock every 3 s, so it waits for an answer now
        asked_at = time.monotonic()
        try:
            assert one.end(signal.SIGINT) == 0
        finally:
            resume(frozen)
        assert time.monotonic() - asked_at < 20


def test_if_another_one_took_the_lock_the_daemon_is_killed_at_once(lakehouse: Lakehouse, tmp_path: Path) -> None:
    with supervised(tmp_path) as one, lakehouse.database.own_connection() as other:
        # It stands in the queue, so that it has the lock as soon as the holder's session ends.
        waiting = threading.Thread(
            target=lambda: other.execute(text("select pg_advisory_lock(:key)"), {"key": lock_key(DAEMON_LOCK)})
        )
        waiting.start()
        time.sleep(0.5)
        lost_at = time.monotonic()
        with lakehouse.database.begin() as connection:
            connection.execute(text("select pg_terminate_backend(:pid)"), {"pid": lock_holder(lakehouse)})
        until(lambda: not lives(one.started("daemon")[0]), one)
        assert time.monotonic() - lost_at < 2  # what another one waits before it starts its daemon
        waiting.join()
        assert one.process.wait(PATIENCE_SECONDS) == 2
        assert one.said().splitlines()[-1] == (
            "moments: Another daemon took over while PostgreSQL was away: one is enough, this one ends."
        )


def test_the_pause_grows_up_to_half_a_minute() -> None:
    assert [pause_seconds(times) for times in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
