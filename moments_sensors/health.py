"""What looks after the installation: once a minute it judges its health, shows it as an asset check, and sends alerts.

It runs inside of the daemon, so it can't tell that no daemon is at work: `moments health`, from outside, does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from moments_assets.url_intake import evaluation
from moments_core.alerting import Alert, Memory, State, decide, read_memory
from moments_core.errors import MomentsError
from moments_core.health import HealthLimits, kinds, problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moments_core.health import Problem
    from moments_resources.health import HealthProbe
    from moments_resources.webhook import Webhook

_LIMITS = HealthLimits()


@dataclass(frozen=True)
class Alerts:
    """Where alerts go, if anywhere, and how long a bad state has to stay so before it is told, in seconds."""

    webhook: Webhook | None
    wait_s: float


def tick(
    probe: HealthProbe,
    alerts: Alerts,
    instance: dg.DagsterInstance,
    cursor: str | None,
    *,
    now: float,
    limits: HealthLimits = _LIMITS,
) -> dg.SensorResult:
    """One look. `cursor`: the memory of what was told; `now`: seconds since 1970."""
    health = probe.look(lambda: instance)
    found = problems(health, limits)
    decision = decide(read_memory(cursor), kinds(found), now=now, wait_s=alerts.wait_s)
    memory, note = decision.memory, None
    if decision.alert and alerts.webhook:
        memory, note = _told(alerts.webhook, decision.alert, found, memory, now)
    events = [evaluation(health, found, note)] if decision.report or note else []
    return dg.SensorResult(
        asset_events=events,
        cursor=memory.dumps(),
        skip_reason=None if events else "Nothing has changed: " + (_summary(found) or "all is well."),
    )


def _told(webhook: Webhook, state: State, found: Sequence[Problem], memory: Memory, now: float) -> tuple[Memory, str]:
    """The memory after an alert, and what became of it: a webhook that is away must not stop the looking."""
    alert = Alert(state, tuple(problem.sentence for problem in found))
    try:
        return memory.after_telling(state, now), webhook.send(alert)
    except MomentsError as error:
        return memory.after_failing(now), str(error)


def _summary(found: Sequence[Problem]) -> str:
    return " ".join(problem.sentence for problem in found)


@dg.sensor(
    name="health",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"health", "alerts"},
    description="Shows the health of the installation as a check of url_intake, and sends alerts to the webhook.",
)
def health_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    result = tick(context.resources.health, context.resources.alerts, context.instance, context.cursor, now=time.time())
    for event in result.asset_events:
        if note := event.metadata.get("alert"):
            context.log.info(note.value)
    return result
