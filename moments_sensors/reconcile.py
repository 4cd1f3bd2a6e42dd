"""What starts work again: submissions that failed and may go well the next time.

When that is, the policy of moments_core/retrying.py has decided as the attempt ended; here it is only looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from moments_assets.jobs import process_video
from moments_sensors.intake import InHand, end_lost, take_in

if TYPE_CHECKING:
    from moments_resources.history import History
    from moments_resources.intake import Intake

AT_ONCE = 20  # runs in hand beside the first ones: after a long fault, new videos are not kept waiting


def tick(intake: Intake, history: History, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """Another run for what is to be tried again by now, up to what may be in hand at once."""
    in_hand = InHand.look(instance)
    due = {
        item.row.intake_id: item
        for item in intake.to_try_again(max(0, AT_ONCE - in_hand.other_tries), but=in_hand.intake_ids)
    }
    lost = end_lost(history, instance, [item.row for item in due.values()])
    accepted = take_in(intake, [item.row for number, item in due.items() if number not in lost])
    requests = [item.another_try(due[item.row.intake_id]) for item in accepted if due[item.row.intake_id].missing]
    return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("Nothing is to be tried again.")


@dg.sensor(
    name="reconcile",
    job=process_video,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"history", "intake"},
    description="Asks again for the missing assets of submissions that failed and may go well the next time.",
)
def reconcile_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    return tick(context.resources.intake, context.resources.history, context.instance)
