"""The reaper: ends what died. Called every few seconds by the one daemon of an installation.

What it looks at is the state of things, never a stream of events: Dagster's run-status sensors pass over an event
whose handling failed, and over all that came before their first tick.

- A process whose heart has not beaten over several looks is dead; over one, where this machine no longer has it. The
  looks are counted by the reaper's own monotonic clock, so neither a clock that is set nor a database that was away for
  a while kills anybody.
- A run that Dagster takes to be at work, with no process behind it, is dead too.
- A run that is over has no open attempt, and its submission has an end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG
from moments_core.errors import DIED, CancelledError, MomentsError, TransientError

if TYPE_CHECKING:
    from moments_resources.history import History
    from moments_resources.workers import Worker, Workers

SILENT_S = 20.0  # six beats; a machine that is short of CPU misses one or two
#: One beat, for a process that this machine no longer has. Not at once: it may be on its way out in good order.
GONE_S = 4.0
#: A run without a process: it is being forked (beside eleven others), or has just put its last step down.
#: One that was never put into the queue is an orphan of a tick that broke off long ago: the next ticks resume it.
ALONE_S = {
    DagsterRunStatus.NOT_STARTED: 600.0,
    DagsterRunStatus.STARTING: 60.0,
    DagsterRunStatus.STARTED: 30.0,
    DagsterRunStatus.CANCELING: 30.0,
}
#: A run that was terminated in the UI, and its process does not know: the code server that started it is away, or
#: `moments process` did.
UNHEEDED_S = 8.0
_LONGEST_GAP_S = 10.0  # between two looks; what is beyond was a pause of ours, not a silence of theirs

_ENDED = "The run ended before this was done: submit it again."
_CANCELLED = "The run was cancelled before this was done: submit it again if that was a mistake."


class Silence:
    """For how long each of several things has looked the same, by the looker's monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[object, float]] = {}
        self._looked = time.monotonic()

    def look(self, things: Mapping[object, object]) -> dict[object, float]:
        """Seconds without a change for each key of `things`; a key that is gone is forgotten."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_GAP_S), now
        self._seen = {
            key: (state, self._seen[key][1] + passed if key in self._seen and self._seen[key][0] == state else 0.0)
            for key, state in things.items()
        }
        return {key: silent for key, (_, silent) in self._seen.items()}


@dataclass
class Reaper:
    """Remembers what it saw the last times; one for as long as the daemon lives."""

    history: History
    workers: Workers
    _hearts: Silence = field(default_factory=Silence)
    _alone: Silence = field(default_factory=Silence)
    _unheard: Silence = field(default_factory=Silence)
    _terminated: Silence = field(default_factory=Silence)

    def reap(self, instance: DagsterInstance) -> list[str]:
        """One look; the ids of the runs that were ended. Can be repeated at any point, also by two at once."""
        alive, dead = self._by_heart(self.workers.all())
        ended = [self._bury(instance, workers) for run_id, workers in dead.items() if run_id not in alive]
        self._pass_on_terminations(instance, alive)
        ended += self._end_abandoned(instance, alive)
        return ended + self._end_unheard(instance, alive)

    def _by_heart(self, workers: Iterable[Worker]) -> tuple[set[str], dict[str, list[Worker]]]:
        """The runs that somebody lives for, and the silent processes by run."""
        by_key: dict[object, Worker] = {(worker.run_id, worker.host, worker.pid): worker for worker in workers}
        silent = self._hearts.look({key: worker.beat for key, worker in by_key.items()})
        alive, dead = set(), dict[str, list["Worker"]]()
        for key, worker in by_key.items():
            if silent[key] >= SILENT_S or (silent[key] >= GONE_S and worker.is_gone()):
                dead.setdefault(worker.run_id, []).append(worker)
            else:
                alive.add(worker.run_id)
        return alive, dead

    def _bury(self, instance: DagsterInstance, workers: list[Worker]) -> str:
        """End a run whose processes are silent. First in the history: from then on nothing of it is committed."""
        run_id = workers[0].run_id
        run = instance.get_run_by_id(run_id)
        self.history.end_run(run_id, death_of(run), intake_id=intake_of(run))
        for worker in workers:
            worker.kill()
        end_in_dagster(instance, run)
        for worker in workers:
            self.workers.strike(worker)
        return run_id

    def _pass_on_terminations(self, instance: DagsterInstance, alive: set[str]) -> None:
        """Tell processes that their run was terminated, where Dagster's own word did not reach them.

        Not at once: a second interrupt would meet a process that is putting its step down.
        """
        asked = [DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED]
        runs = instance.get_runs(RunsFilter(run_ids=list(alive), statuses=asked)) if alive else []
        silent = self._terminated.look({run.run_id: "terminated" for run in runs})
        if unheeded := [str(run_id) for run_id, seconds in silent.items() if seconds >= UNHEEDED_S]:
            self.workers.ask_to_stop(unheeded, _CANCELLED)

    def _end_abandoned(self, instance: DagsterInstance, alive: set[str]) -> list[str]:
        """End what Dagster takes to be at work, and nobody is."""
        runs = [run for run in instance.get_runs(RunsFilter(statuses=list(ALONE_S))) if _takes_videos(run)]
        alone = {run.run_id: run for run in runs if run.run_id not in alive}
        silent = self._alone.look({run_id: run.status for run_id, run in alone.items()})
        left = [run for run_id, run in alone.items() if silent[run_id] >= ALONE_S[run.status]]
        for run in left:
            self.history.end_run(run.run_id, death_of(run), intake_id=intake_of(run))
            end_in_dagster(instance, run)
        return [run.run_id for run in left]

    def _end_unheard(self, instance: DagsterInstance, alive: set[str]) -> list[str]:
        """End in the history what is over in Dagster, seen twice: a run closes its attempts before its own end."""
        open_runs = {run.run_id: run for run in self.history.open_runs() if run.run_id not in alive}
        known = {run.run_id: run for run in instance.get_runs(RunsFilter(run_ids=list(open_runs)))} if open_runs else {}
        over: dict[object, object] = {
            run_id: "over" for run_id in open_runs if run_id not in known or known[run_id].is_finished
        }
        ended = [str(run_id) for run_id, silent in self._unheard.look(over).items() if silent > 0]
        for run_id in ended:
            self.history.end_run(run_id, end_of(known.get(run_id)), intake_id=open_runs[run_id].intake_id)
        return ended


def end_in_dagster(instance: DagsterInstance, run: DagsterRun | None) -> None:
    """Say in Dagster that a run is over, as it was asked for or failed, and give its slots in the pools back."""
    if run is None:
        return
    current = instance.get_run_by_id(run.run_id)
    if current is not None and not current.is_finished:
        if current.status is DagsterRunStatus.CANCELING:
            instance.report_run_canceled(current)
        else:
            instance.report_run_failed(current, DIED)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def end_of(run: DagsterRun | None) -> MomentsError:
    """Why a run that is over left something open."""
    if run is not None and run.status is DagsterRunStatus.CANCELED:
        return CancelledError(_CANCELLED)
    return TransientError(_ENDED)


def death_of(run: DagsterRun | None) -> MomentsError:
    """Why a run without a living process ended: what was to be cancelled is, however its process went."""
    if run is not None and run.status in {DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED}:
        return CancelledError(_CANCELLED)
    return TransientError(DIED)


def _takes_videos(run: DagsterRun) -> bool:
    """Whether a heart beats for it: the job, and what is started by Materialize or a backfill (Dagster's own name)."""
    return run.job_name == process_video.name or run.job_name.startswith("__ASSET_JOB")


def intake_of(run: DagsterRun | None) -> int | None:
    """The submission that asked for a run."""
    tag = run.tags.get(INTAKE_TAG, "") if run is not None else ""
    return int(tag) if tag.isdigit() else None
