"""The processes that take a run through its steps: each says that it lives, and can be asked to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, true, update

from moments_resources.database import Database
from moments_resources.tables import pipeline_history, workers

_HEARD_S = 60.0
_SAME_START_S = 0.1  # Linux tells it to 10 ms


@dataclass(frozen=True, slots=True)
class Worker:
    """A process of a run. `beat` rises while it lives."""

    run_id: str
    host: str
    machine: str
    pid: int
    process_started: float
    beat: int

    def kill(self) -> None:
        """End the process if it is one of this machine's and still the same: it may be frozen, and wake up later."""
        if self.machine == this_machine() and not self.is_gone():
            with suppress(psutil.Error):  # it is gone by now
                psutil.Process(self.pid).kill()

    def is_gone(self) -> bool:
        """Whether the process is known to have ended: this machine can tell of its own alone."""
        if self.machine != this_machine():
            return False
        try:
            same = abs(_started(self.pid) - self.process_started) < _SAME_START_S
            return not same or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


class Workers:
    """Reads and writes the table of workers. This process is in it once for each run that it works on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, run_id: str) -> None:
        """This process takes a run."""
        row = insert(workers).values(
            run_id=run_id,
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            process_started=_started(os.getpid()),
        )
        with self._database.begin() as connection:
            connection.execute(delete(workers).where(_mine(run_id)))  # left by a process of the same number
            connection.execute(row)

    def beat(self, run_id: str) -> str | None:
        """This process lives. Why it is to stop, or None: it may go on."""
        risen = update(workers).where(_mine(run_id)).values(beat=workers.c.beat + 1, beat_at=func.clock_timestamp())
        with self._database.begin() as connection:
            row = connection.execute(risen.returning(workers.c.stop_reason)).first()
        return "This process was taken for dead." if row is None else row.stop_reason

    def leave(self, run_id: str) -> None:
        """This process is done with the run."""
        with self._database.begin() as connection:
            connection.execute(delete(workers).where(_mine(run_id)))

    def all(self) -> list[Worker]:
        """Whoever has entered and not left, dead ones too."""
        return self._where(true())

    def of_submission(self, intake_id: int) -> list[Worker]:
        """Living processes of the runs of a submission: heard a minute ago, and not gone from this machine."""
        its_runs = select(pipeline_history.c.run_id).where(pipeline_history.c.intake_id == intake_id)
        is_heard = workers.c.beat_at > func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, _HEARD_S)
        return [worker for worker in self._where(workers.c.run_id.in_(its_runs) & is_heard) if not worker.is_gone()]

    def ask_to_stop(self, run_ids: Collection[str], why: str) -> None:
        """As the function of this name, in a transaction of its own."""
        with self._database.begin() as connection:
            ask_to_stop(connection, run_ids, why)

    def _where(self, condition: ColumnElement[bool]) -> list[Worker]:
        names = Worker.__dataclass_fields__
        with self._database.begin() as connection:
            rows = connection.execute(select(*(workers.c[name] for name in names)).where(condition)).mappings()
            return [Worker(**row) for row in rows]

    def strike(self, worker: Worker) -> None:
        """Take a dead process from the table: should it wake up, it stops."""
        its = (workers.c.run_id == worker.run_id) & (workers.c.host == worker.host) & (workers.c.pid == worker.pid)
        with self._database.begin() as connection:
            connection.execute(delete(workers).where(its))


def ask_to_stop(connection: Connection, run_ids: Collection[str], why: str) -> None:
    """Let the processes of these runs stop: each learns of it with its next beat."""
    theirs = workers.c.run_id.in_(run_ids) & workers.c.stop_reason.is_(None)
    connection.execute(update(workers).where(theirs).values(stop_reason=why))


@cache
def this_machine() -> str:
    """Where process numbers mean the same: one start of one kernel, and one namespace (a container has its own).

    Host names don't tell: cloned machines share theirs, and containers in the host's network have the host's.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return socket.gethostname()


def _started(pid: int) -> float:
    """When a process started, seconds since the machine did: a clock that is set changes nothing."""
    booted = psutil.boot_time()  # first: the start of a process is counted from the last answer to this
    return psutil.Process(pid).create_time() - booted


def _mine(run_id: str) -> ColumnElement[bool]:
    return (workers.c.run_id == run_id) & (workers.c.host == socket.gethostname()) & (workers.c.pid == os.getpid())
