"""`moments cancel`: work on a video stops at once, wherever it goes on; what is committed stays.

What decides stands in PostgreSQL alone: the attempts are closed, and nothing begins for what was cancelled. So it
works from any machine, and while the daemon, the code server or the UI are away. The processes learn of it with their
next beat; Dagster is told what has happened.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from moments.results import Json
from moments.services import Lakehouse, prepare_dagster
from moments_core.errors import TransientError
from moments_resources import gate
from moments_resources.stopping import Stopped, stop
from moments_resources.workers import Worker, Workers

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

PATIENCE_S = 30.0  # three beats of 3 s at most, then 20 s until a process that does not heed the interrupt leaves
_FAREWELL_S = 5.0  # from the last beat of a process to the end of its run in Dagster
_POLL_S = 0.25

#: Told what is waited for.
Teller = Callable[[str], None]


def cancel(lakehouse: Lakehouse, video_id: str, *, tell: Teller) -> Json:
    """Stop all work on a video and wait for its processes; says what was stopped.

    Raises TransientError where a process did not stop in time: it can't commit any more, but holds its machine.
    """
    from dagster import DagsterInstance

    prepare_dagster(lakehouse.settings)
    with DagsterInstance.get() as instance:
        with lakehouse.database.begin() as connection:
            stopped = shut_down(connection, lakehouse, instance, video_id, by=asked_by("moments cancel"))
        see_out(lakehouse, instance, video_id, stopped, tell=tell)
    return {
        "video_id": video_id,
        "runs": len(stopped.run_ids),
        "attempts": stopped.attempts,
        "submissions": list(stopped.intake_ids),
    }


def asked_by(program: str) -> str:
    """Who asks for something, for the history."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user often has no name
        user = f"user {os.getuid()}"
    return f"{user} ({program})"


def shut_down(
    connection: Connection, lakehouse: Lakehouse, instance: DagsterInstance, video_id: str, *, by: str
) -> Stopped:
    """The part that decides, in the caller's transaction."""
    gate.shut(connection, video_id)  # before Dagster is asked: nothing begins behind our back
    at_work = {worker.run_id for worker in Workers(lakehouse.database).all()}
    # Also a run that Dagster takes to be over, where somebody still works on it.
    runs = [run.run_id for run in runs_of(instance, video_id) if not run.is_finished or run.run_id in at_work]
    return stop(connection, video_id, runs=runs, by=by)


def see_out(lakehouse: Lakehouse, instance: DagsterInstance, video_id: str, stopped: Stopped, *, tell: Teller) -> None:
    """End in Dagster what was stopped, and wait until its processes are gone. Raises as `cancel`."""
    from moments_sensors.reaper import end_in_dagster

    _tell_dagster(instance, stopped)
    left = _wait_for_processes(Workers(lakehouse.database), stopped, tell)
    if left:
        where = ", ".join(sorted({f"{worker.pid} on {worker.host}" for worker in left}))
        raise TransientError(
            f"The work on {video_id} is cancelled, but process {where} did not stop within {PATIENCE_S:.0f} s: end it "
            "there, then repeat this."
        )
    until = time.monotonic() + _FAREWELL_S
    while time.monotonic() < until and _unfinished(instance, stopped):
        time.sleep(_POLL_S)
    for run in _unfinished(instance, stopped):  # it had no process yet, or one that was killed
        end_in_dagster(instance, run)


def runs_of(instance: DagsterInstance, video_id: str) -> list[DagsterRun]:
    """All runs of a video, over or not."""
    from dagster import RunsFilter

    return list(instance.get_runs(RunsFilter(tags={"dagster/partition": video_id})))


def _tell_dagster(instance: DagsterInstance, stopped: Stopped) -> None:
    from dagster import DagsterRunStatus

    for run in _unfinished(instance, stopped):
        if run.status is not DagsterRunStatus.CANCELING:
            instance.report_run_canceling(run)
        if run.status in {DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED}:
            instance.report_run_canceled(run)


def _unfinished(instance: DagsterInstance, stopped: Stopped) -> list[DagsterRun]:
    runs = [instance.get_run_by_id(run_id) for run_id in stopped.run_ids]
    return [run for run in runs if run is not None and not run.is_finished]


def _wait_for_processes(workers: Workers, stopped: Stopped, tell: Teller) -> list[Worker]:
    """The processes that are left at the end. One that is gone without a word, or silent, is struck from the list."""
    from moments_sensors.reaper import SILENT_S, Silence

    silence, until, told = Silence(), time.monotonic() + PATIENCE_S, 0
    while left := [worker for worker in workers.all() if worker.run_id in stopped.run_ids]:
        silent = silence.look({(worker.host, worker.pid): worker.beat for worker in left})
        for worker in left:
            if worker.is_gone() or silent[worker.host, worker.pid] >= SILENT_S:
                worker.kill()  # it may be frozen, and wake up later
                workers.strike(worker)
        if time.monotonic() > until:
            return left
        if len(left) != told:
            told = len(left)
            tell(f"waiting for {told} process{'' if told == 1 else 'es'} to stop")
        time.sleep(_POLL_S)
    return []
