"""The way in, as Dagster shows it: a table that no run makes, with the health of the installation as its check."""

# Without `from __future__ import annotations`: Dagster compares the type of `context` itself, not its name.

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_assets.video_asset import column_schema
from moments_core.health import Health, HealthLimits, Problem, problems
from moments_resources.asset_tables import URL_INTAKE

if TYPE_CHECKING:
    from moments_resources.health import HealthProbe

HEALTHY = "healthy"

url_intake = dg.AssetSpec(
    "url_intake",
    description=f"{URL_INTAKE.comment} The sensor `intake` makes a partition and a run of each row.",
    group_name="videos",
    kinds={"postgres"},
    owners=["team:moments"],
    metadata={"dagster/column_schema": column_schema(URL_INTAKE)},
)


@dg.asset_check(
    name=HEALTHY,
    asset=url_intake.key,
    description="The daemon is at work, the queue moves, nothing dead holds a lease or a slot, the disk has room.",
    required_resource_keys={"health"},
)
def healthy(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    probe: HealthProbe = context.resources.health
    health = probe.look(lambda: context.instance)
    found = problems(health, HealthLimits())
    return dg.AssetCheckResult(passed=not found, metadata=described(health, found))


def evaluation(health: Health, found: Sequence[Problem], note: str | None) -> dg.AssetCheckEvaluation:
    """The check's state, as the sensor reports it. `note`: what became of an alert."""
    alert = {"alert": note} if note else {}
    return dg.AssetCheckEvaluation(
        asset_key=url_intake.key, check_name=HEALTHY, passed=not found, metadata={**described(health, found), **alert}
    )


def described(health: Health, found: Sequence[Problem]) -> dict[str, Any]:
    """Problems, and the numbers that get a plot over time."""
    numbers: dict[str, Any] = {"disk_free_gigabytes": round(health.disk_free_bytes / 1e9, 1)}
    if health.queue and health.failures and health.leases:
        numbers |= {
            "waiting": health.queue.waiting + health.queue.due_again,
            "oldest_waiting_seconds": health.queue.oldest_waiting_s or 0.0,
            "to_try_again": health.queue.again_later,
            "runs_queued": health.queue.runs_queued,
            "runs_at_work": health.queue.runs_at_work,
            "leases": health.leases.live,
            "failures_in_24_h": sum(health.failures.by_class.values()),
            "failed_for_good_in_24_h": health.failures.for_good,
        }
    if found:
        numbers["problems"] = dg.MetadataValue.md("\n".join(f"- {problem.sentence}" for problem in found))
    return numbers
