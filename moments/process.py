"""`moments process`: submit, see to it that somebody works, wait, report. The work itself is the one job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moments.results import Json, Results
from moments.services import DAEMON_LOCK, Lakehouse
from moments_core.options import Options
from moments_resources.intake import IntakeRow

_POLL_SECONDS = 0.5
_DAEMON_SECONDS = 5.0
_ENDED = {"completed", "failed", "cancelled", "duplicate"}
_TERMINATION_SECONDS = 10.0

#: Told what happens: the source, and the newest attempt (asset, progress) or None while it waits.
Watcher = Callable[[str, Json | None], None]


@dataclass
class _Job:
    source: str
    row: IntakeRow
    worker: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    started: bool = field(default=False)


def process(
    lakehouse: Lakehouse,
    sources: Sequence[str],
    options: Options,
    *,
    watch: Watcher,
    submitted_by: str = "moments process",
) -> Iterator[Json]:
    """Submit the sources and yield each one's result as it ends. Nothing that was submitted is lost by an interrupt.

    Where a daemon runs, it does the work; else each submission gets a worker process of its own, as many at once as
    this machine has cores.
    """
    results = Results(lakehouse)
    jobs = [_Job(source, lakehouse.intake.submit(source, options, submitted_by=submitted_by)) for source in sources]
    with _workers(lakehouse, jobs) as start:
        while jobs:
            start()
            for job in [job for job in jobs if _ended(lakehouse, results, job)]:
                jobs.remove(job)
                yield results.submission(job.row, job.source)
            for job in jobs:
                watch(job.source, results.progress(job.row.intake_id))
            if jobs:
                time.sleep(_POLL_SECONDS)


def _ended(lakehouse: Lakehouse, results: Results, job: _Job) -> bool:
    """Whether there is a result. A worker that died without a word is given its place in the history."""
    if job.worker is not None:
        if job.worker.poll() is None:
            return False
        _close_after(lakehouse, results, job)
    return results.state(job.row.intake_id) in _ENDED and not _behind_another(results, job)


def _behind_another(results: Results, job: _Job) -> bool:
    """A duplicate has ended when the submission that came first has."""
    query = """
    select first.state from public.intake_state mine
    join public.intake_state first on first.intake_id = mine.duplicate_of
    where mine.intake_id = :id and mine.state = 'duplicate'"""
    found = results.rows(query, id=job.row.intake_id)
    return bool(found) and found[0]["state"] not in _ENDED


def _close_after(lakehouse: Lakehouse, results: Results, job: _Job) -> None:
    """Nothing stays 'running' or 'waiting' behind a worker that is gone."""
    if job.worker is None or results.state(job.row.intake_id) in _ENDED:
        return
    query = "select distinct run_id from public.pipeline_history where intake_id = :id and run_id is not null"
    for row in results.rows(query, id=job.row.intake_id):
        lakehouse.catalogue.close_dead(row["run_id"])
    if results.state(job.row.intake_id) not in _ENDED:
        lakehouse.intake.note_worker_lost(job.row, _tail(job.log))


@contextmanager
def _workers(lakehouse: Lakehouse, jobs: list[_Job]) -> Iterator[Callable[[], None]]:
    """Yields what starts waiting jobs while there is room; on leaving early, every worker is told to stop."""
    everything = list(jobs)
    room = os.cpu_count() or 1
    daemon = _Daemon(lakehouse)

    def start() -> None:
        if all(job.started for job in everything) or daemon.runs():
            return
        for job in everything:
            busy = sum(other.worker is not None and other.worker.poll() is None for other in everything)
            if busy < room and not job.started:
                job.started = True
                _start(lakehouse, job)

    try:
        yield start
    finally:
        _stop([job.worker for job in everything if job.worker is not None])


def _start(lakehouse: Lakehouse, job: _Job) -> None:
    if Results(lakehouse).state(job.row.intake_id) != "waiting":
        return
    logs = lakehouse.settings.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    job.log = logs / f"intake-{job.row.intake_id}.log"
    with job.log.open("wb") as log:
        job.worker = subprocess.Popen(  # noqa: S603 - our own module, and a number
            [sys.executable, "-m", "moments.worker", str(job.row.intake_id)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C in the terminal is ours to pass on
        )


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _TERMINATION_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


class _Daemon:
    """Whether one is at work; asked again every few seconds, for it may end while we wait."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse
        self._asked = float("-inf")
        self._runs = False

    def runs(self) -> bool:
        if time.monotonic() - self._asked > _DAEMON_SECONDS:
            self._asked = time.monotonic()
            with self._lakehouse.database.try_lock(DAEMON_LOCK) as ours:
                self._runs = not ours
        return self._runs


def _tail(log: Path | None) -> str:
    return log.read_text(errors="replace")[-2000:] if log is not None and log.exists() else ""
