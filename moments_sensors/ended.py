"""What happens when a run ends badly: nothing that it worked for stays open."""

# Without `from __future__ import annotations`: Dagster looks at the types of the resources themselves.

from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG
from moments_core.errors import CancelledError, MomentsError, TransientError

if TYPE_CHECKING:
    from moments_resources.catalogue import Catalogue
    from moments_resources.intake import Intake

_FAILED = "The run ended before this was done: submit it again."
_CANCELLED = "The run was cancelled before this was done: submit it again if that was a mistake."


def close(catalogue: "Catalogue", intake: "Intake", run: dg.DagsterRun, error: MomentsError) -> None:
    """Close a run's open attempts, and give its submission an end with a reason where it has none.

    A run may end without a word of its own: killed, cancelled in the queue, or its code could not be loaded. Its run
    key never fires again, so its submission would wait for ever.
    """
    catalogue.close_run(run.run_id, error)
    intake_id = run.tags.get(INTAKE_TAG, "")
    if intake_id.isdigit() and intake.is_open(int(intake_id)):
        intake.refuse(intake.row(int(intake_id)), error)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.FAILURE,
    name="failed_runs",
    monitored_jobs=[process_video],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Closes what a failed run left open.",
)
def failed_runs(
    context: dg.RunStatusSensorContext, catalogue: dg.ResourceParam[Any], intake: dg.ResourceParam[Any]
) -> None:
    close(catalogue, intake, context.dagster_run, TransientError(_FAILED))


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    name="cancelled_runs",
    monitored_jobs=[process_video],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Closes what a cancelled run left open.",
)
def cancelled_runs(
    context: dg.RunStatusSensorContext, catalogue: dg.ResourceParam[Any], intake: dg.ResourceParam[Any]
) -> None:
    close(catalogue, intake, context.dagster_run, CancelledError(_CANCELLED))
