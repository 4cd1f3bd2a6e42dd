"""`moments process`: submit, see to it that somebody works, wait, report. The work itself is the one job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from moments.children import end_all
from moments.results import Json, Results
from moments.services import DAEMON_LOCK, Lakehouse, make_folder, submission_lock
from moments_core.errors import TransientError
from moments_core.options import Options
from moments_core.source import public_url
from moments_resources.intake import IntakeRow, without_credentials
from moments_resources.tables import ASSET_TABLES
from moments_resources.workers import Workers

_POLL_SECONDS = 0.5
_DAEMON_SECONDS = 5.0
_TERMINATION_SECONDS = 10.0

#: Told what happens: the source, and the newest attempt (asset, progress) or None while it waits.
Watcher = Callable[[str, Json | None], None]


@dataclass
class _Job:
    source: str
    row: IntakeRow
    tries: int  # how often it had failed before: another failure is the end of this call, whoever tries again later
    worker: subprocess.Popen[bytes] | None = None
    works_on: int | None = None  # the submission that the worker was started for: this one, or an equal one before it
    log: Path | None = None

    @property
    def is_at_work(self) -> bool:
        return self.worker is not None and self.worker.poll() is None


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
    this machine has cores. What a list turns out to hold is waited for, too.
    """
    results = Results(lakehouse)
    rows = [lakehouse.intake.submit(source, options, submitted_by=submitted_by) for source in sources]
    jobs = [
        _Job(shown_source(source, row), row, results.standing(row.intake_id).tries)
        for source, row in zip(sources, rows, strict=True)
    ]
    with _Crew(lakehouse, results, jobs) as crew:
        while jobs:
            for job in [job for job in jobs if crew.has_ended(job)]:
                jobs.remove(job)
                yield results.submission(job.row, job.source)
                jobs += crew.listed_by(job)
            for job in jobs:
                crew.see_to(job)
                watch(job.source, results.progress(job.row.intake_id))
            if jobs:
                time.sleep(_POLL_SECONDS)


def shown_source(source: str, row: IntakeRow) -> str:
    """What was asked for, without a password: only what was refused can hold one."""
    return source if row.video_id else without_credentials(source)


class _Crew:
    """The worker processes of one call. On leaving early, every one of them is told to stop."""

    def __init__(self, lakehouse: Lakehouse, results: Results, jobs: Sequence[_Job]) -> None:
        self._lakehouse = lakehouse
        self._results = results
        self._jobs = list(jobs)
        self._room = os.cpu_count() or 1
        self._daemon = _Daemon(lakehouse)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        workers = [job.worker for job in self._jobs if job.worker is not None]
        end_all(workers, asking=signal.SIGTERM, patience_seconds=_TERMINATION_SECONDS)

    def has_ended(self, job: _Job) -> bool:
        """Whether there is a result. A worker that died without a word is given its place in the history."""
        if job.is_at_work:
            return False
        standing = self._results.standing(job.row.intake_id)
        if standing.has_failed and standing.tries > job.tries:
            return True
        if standing.has_ended or job.works_on != standing.intake_id or not self._is_left_alone(standing.intake_id):
            return standing.has_ended
        self._close_dead(job, standing.intake_id)
        now = self._results.standing(job.row.intake_id)
        return now.has_ended or now.has_failed

    def listed_by(self, job: _Job) -> list[_Job]:
        """New jobs: the videos of a list, or none. A list that an equal submission has expanded is that one's."""
        known = {other.row.intake_id for other in self._jobs}
        listed = self._lakehouse.intake.listed_in(self._results.standing(job.row.intake_id).intake_id)
        new = [
            _Job(public_url(row.url), row, self._results.standing(row.intake_id).tries)
            for row in listed
            if row.intake_id not in known
        ]
        self._jobs += new
        return new

    def see_to(self, job: _Job) -> None:
        """Start a worker where nobody is at work: not ours, not a daemon, not another call's.

        An equal submission that came first is worked on in its place: it may have been left behind by a call that
        was interrupted, by a machine that went down, or by `moments submit`.
        """
        if job.is_at_work or sum(other.is_at_work for other in self._jobs) >= self._room or self._daemon.runs():
            return
        standing = self._results.standing(job.row.intake_id)
        if not standing.has_ended and self._is_left_alone(standing.intake_id):
            self._start(job, standing.intake_id)

    def _is_left_alone(self, intake_id: int) -> bool:
        """Whether no process has this submission in hand: neither another call's, nor one of ours that still starts,
        nor a run of a daemon that is gone itself."""
        if any(job.is_at_work and job.works_on == intake_id for job in self._jobs):
            return False
        if self._lakehouse.database.is_locked(submission_lock(intake_id)):
            return False
        return not Workers(self._lakehouse.database).of_submission(intake_id)

    def _start(self, job: _Job, intake_id: int) -> None:
        logs = self._lakehouse.settings.state / "logs"
        make_folder(logs)
        job.works_on, job.log = intake_id, logs / f"intake-{intake_id}.log"
        with job.log.open("wb") as log:
            job.worker = subprocess.Popen(  # noqa: S603 - our own module, and a number
                [sys.executable, "-m", "moments.worker", str(intake_id)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C in the terminal is ours to pass on
            )

    def _close_dead(self, job: _Job, intake_id: int) -> None:
        """Nothing stays 'running' or 'waiting' behind a worker that is gone: no attempt, no run, no pool's slot."""
        from moments.worker import end_dead_runs

        end_dead_runs(self._lakehouse, intake_id)
        standing = self._results.standing(intake_id)
        if not standing.has_ended and not standing.has_failed:
            self._note_lost(self._lakehouse.intake.row(intake_id), job.log)

    def _note_lost(self, row: IntakeRow, log: Path | None) -> None:
        """Keep that a worker ended before its first attempt began; `log` is where its last words are."""
        told = log.read_text(errors="replace")[-2000:] if log is not None and log.exists() else ""
        where = f"look into {log}, then" if told else "if it was not you who ended it,"
        lost = TransientError(f"The worker process ended before it began: {where} run this again.", log=told)
        if row.video_id is None:
            self._lakehouse.intake.refuse(row, lost)
            return
        run_id, first = str(uuid.uuid4()), next(iter(ASSET_TABLES))  # the run that it would have been
        history = self._lakehouse.history
        history.note_failure(row.video_id, first, run_id=run_id, intake_id=row.intake_id, error=lost)


class _Daemon:
    """Whether one is at work; asked again every few seconds, for it may end while we wait."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse
        self._asked = float("-inf")
        self._runs = False

    def runs(self) -> bool:
        if time.monotonic() - self._asked > _DAEMON_SECONDS:
            self._asked = time.monotonic()
            self._runs = self._lakehouse.database.is_locked(DAEMON_LOCK)
        return self._runs
