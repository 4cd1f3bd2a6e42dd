"""What starts work again: submissions that failed and may go well the next time.

When that is, the policy of moments_core/retrying.py has decided as the attempt ended; here it is only looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from moments_assets.jobs import process_video
from moments_sensors.intake import runs_in_hand, take_in

if TYPE_CHECKING:
    from moments_resources.intake import Intake

AT_ONCE = 20  # beside the first runs that are in hand: after a long fault, new videos are not kept waiting


def tick(intake: Intake, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """Runs of the assets that are missing, for what is to be tried again by now."""
    unfinished = {item.row.intake_id: item for item in intake.to_try_again(AT_ONCE, but=runs_in_hand(instance))}
    accepted = take_in(intake, [item.row for item in unfinished.values()])
    requests = [
        # The number of failed runs in the key: each try is asked for once, also by a tick that is repeated.
        item.run_request(f"again-{number}-{unfinished[number].tries}", unfinished[number].missing)
        for item in accepted
        if unfinished[number := item.row.intake_id].missing
    ]
    return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("Nothing is to be tried again.")


@dg.sensor(
    name="reconcile",
    job=process_video,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"intake"},
    description="Asks again for the missing assets of submissions that failed and may go well the next time.",
)
def reconcile_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    return tick(context.resources.intake, context.instance)
