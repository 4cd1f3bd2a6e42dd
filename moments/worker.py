"""One process, one run: takes a submission through the job. Started by `moments process`; `python -m moments.worker N`.

A process a run costs one import of Dagster and is the simplest thing to kill. What it does is what the daemon would:
the same decision, the same job, the same run config and tags.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from moments.results import Results
from moments.services import Lakehouse, apply_pools, connect, prepare_dagster, submission_lock
from moments.settings import load_settings
from moments_core import errors
from moments_core.errors import DIED, CancelledError, MomentsError, PermanentError, TransientError, reason

if TYPE_CHECKING:
    from dagster import DagsterInstance, ExecuteInProcessResult
    from dagster_shared.error import SerializableErrorInfo

    from moments_sensors.intake import Accepted

#: So that the UI files the run under the code location of workspace.yaml.
_LOCATION = {".dagster/repository": "__repository__@moments"}

#: Dagster's console logger writes every event; the event log holds them already.
QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def main(argument: str) -> int:
    """Exit status: 0 the run succeeded or is another worker's, 1 it did not; why stands in pipeline_history."""
    signal.signal(signal.SIGTERM, _interrupt)
    settings, intake_id = load_settings(), int(argument)
    lakehouse = connect(settings)
    prepare_dagster(settings)
    with lakehouse.database.try_lock(submission_lock(intake_id)) as ours:
        if not ours or Results(lakehouse).standing(intake_id).has_ended:
            return 0
        return 0 if run_submission(lakehouse, intake_id) else 1


def end_dead_runs(lakehouse: Lakehouse, intake_id: int) -> None:
    """Close what a worker that is gone left open: its attempts, its run in Dagster, its slots in the pools.

    A slot that stays taken would let the next video wait for it for ever: without a daemon, nobody else frees it.
    """
    from dagster import DagsterInstance, RunsFilter

    from moments_assets.partitions import INTAKE_TAG
    from moments_sensors.reaper import end_in_dagster

    with DagsterInstance.get() as instance:
        for run in instance.get_runs(RunsFilter(tags={INTAKE_TAG: str(intake_id)})):
            lakehouse.history.end_run(run.run_id, TransientError(DIED), intake_id=intake_id)
            end_in_dagster(instance, run)


def run_submission(lakehouse: Lakehouse, intake_id: int) -> bool:
    """Run the job for one row of url_intake; says whether it went well."""
    from dagster import DagsterInstance

    from moments_sensors.intake import take_in

    accepted = take_in(lakehouse.intake, [lakehouse.intake.row(intake_id)])
    if not accepted:
        return False
    with DagsterInstance.get() as instance:
        apply_pools(instance, lakehouse.settings)
        result = _execute(lakehouse, instance, accepted[0])
        if result is None:
            return False
        if not result.success:
            _record_unrecorded(lakehouse, result, accepted[0])
            lakehouse.history.end_run(result.run_id, _end_of_run(result), intake_id=intake_id)
        return bool(result.success)


def _execute(lakehouse: Lakehouse, instance: DagsterInstance, accepted: Accepted) -> ExecuteInProcessResult | None:
    """The run; None where its video was stopped before it began."""
    from moments.definitions import definitions
    from moments_assets.jobs import process_video
    from moments_assets.partitions import videos

    job = definitions().resolve_job_def(process_video.name)
    # One run a video at a time, as dagster.yaml has it for the daemon: two would make each other's inputs stale.
    with lakehouse.database.lock(f"video:{accepted.video_id}"):
        if not lakehouse.intake.is_wanted(accepted.row.intake_id):
            return None
        instance.add_dynamic_partitions(str(videos.name), [accepted.video_id])
        return job.execute_in_process(
            instance=instance,
            partition_key=accepted.video_id,
            run_config={**accepted.run_config, **QUIET},
            tags={**accepted.tags, **_LOCATION},
            raise_on_error=False,
        )


def _record_unrecorded(lakehouse: Lakehouse, result: ExecuteInProcessResult, accepted: Accepted) -> None:
    """A step that failed before its attempt began (a resource could not be made) has its cause in Dagster alone."""
    for event in result.get_step_failure_events():
        lakehouse.history.note_failure(
            accepted.video_id,
            str(event.step_key),
            run_id=result.run_id,
            intake_id=accepted.row.intake_id,
            error=_as_ours(event.step_failure_data.error),
        )


def _end_of_run(result: ExecuteInProcessResult) -> MomentsError:
    """Why a run ended in which no step failed: somebody stopped it between two of them, or Dagster's database went."""
    failures = result.filter_events(lambda event: event.is_run_failure)
    return _as_ours(failures[-1].job_failure_data.error if failures else None)


def _as_ours(error: SerializableErrorInfo | None) -> MomentsError:
    """What Dagster kept of an exception."""
    if error is None:
        return TransientError("The run ended before this was done: run it again.")
    if error.cls_name in {"DagsterExecutionInterruptedError", "KeyboardInterrupt", "Interrupted"}:
        return CancelledError(reason(KeyboardInterrupt()))
    first = error.cause or error
    ours = getattr(errors, first.cls_name or "", None)
    kind = ours if isinstance(ours, type) and issubclass(ours, MomentsError) else PermanentError
    # "module.Kind: message", as a traceback ends.
    return kind(first.message.strip().partition(": ")[2] or first.message.strip())


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except MomentsError as error:
        sys.exit(f"moments: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
