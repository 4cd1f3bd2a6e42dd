"""The same assets, sensors and resources under Dagster's own settings; loaded by the stock turn of throughput."""

from __future__ import annotations

import dagster as dg

from moments import definitions as composition
from moments_assets.jobs import ASSETS, process_video
from moments_sensors.intake import intake_sensor
from moments_sensors.reconcile import reconcile_sensor


@dg.definitions
def definitions() -> dg.Definitions:
    """No executor: a process a step."""
    return dg.Definitions(
        assets=list(ASSETS),
        jobs=[process_video],
        sensors=[intake_sensor, reconcile_sensor],
        resources=composition.definitions().resources,
    )
