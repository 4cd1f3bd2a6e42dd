"""Retention: what is no longer needed goes, every night and by `moments clean`, one clean at a time."""

# Without `from __future__ import annotations`: Dagster compares the type of `context` itself, not its name.

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_core.errors import MomentsError, ServiceError, SettingsError
from moments_core.retention import MANY, is_bulk

if TYPE_CHECKING:
    from moments_resources.retention.part import Cleaned, Part, Retention

LOCK = "retention"

Tell = Callable[[str], object]


def parts(retention: "Retention", instance: dg.DagsterInstance) -> "list[Part[Any]]":
    """What is cleaned, in order: objects that were noted the last times go before new ones are noted."""
    from moments_resources.retention.leftovers import Leftovers, OldLogs, OldSpending
    from moments_resources.retention.objects import Garbage, Look
    from moments_resources.retention.versions import OldReplies, OldVersions
    from moments_sensors.old_runs import OldCancellations, OldEvents, OldRuns

    return [
        Leftovers(retention),
        Garbage(retention),
        OldVersions(retention),
        OldReplies(retention),
        Look(retention),
        OldRuns(instance, retention.limits.runs),
        OldEvents(instance, retention.limits.runs),
        OldCancellations(retention, instance),
        OldSpending(retention),
        OldLogs(retention),
    ]


def look_ahead(retention: "Retention", instance: dg.DagsterInstance, tell: Tell) -> "Cleaned":
    """What a clean would remove at this moment; changes nothing."""
    from moments_resources.retention.part import survey

    return survey(parts(retention, instance), retention.limits, tell)


def check_bulk(retention: "Retention", tell: Tell) -> None:
    """Raises SettingsError where a clean would remove much at once: it may be a wrong setting, or another database."""
    from sqlalchemy import text

    from moments_resources.retention.objects import Garbage, Look
    from moments_resources.retention.part import survey
    from moments_resources.retention.versions import OldVersions

    judged: list[Part[Any]] = [Garbage(retention), OldVersions(retention), Look(retention)]
    ahead = survey(judged, retention.limits, tell)
    with retention.database.begin() as connection:
        of_versions = connection.scalar(text("select count(*) from public.artifacts")) or 0
    versions, objects, of_objects = ahead["versions"], ahead["objects"], ahead["seen"]
    if is_bulk(versions=versions, of_versions=of_versions, objects=objects, of_objects=of_objects):
        raise SettingsError(
            f"This would remove {versions} of {of_versions} versions and {objects} of {of_objects} objects, which is "
            f"over half of one or over {MANY} objects: look at `moments clean --dry-run`, then say "
            "`moments clean --bulk` if that is meant."
        )


def clean(retention: "Retention", instance: dg.DagsterInstance, tell: Tell) -> "Cleaned":
    """Remove what may go; says what went. Raises ServiceError where another clean is at work."""
    from moments_resources.retention.part import remove

    with retention.database.try_lock(LOCK) as ours:
        if not ours:
            raise ServiceError("Another clean is at work: wait until it has ended.")
        return remove(parts(retention, instance), retention.limits, tell)


@dg.op(required_resource_keys={"retention"})
def clean_up(context: dg.OpExecutionContext) -> None:
    """Remove superseded versions, objects that nothing names, old runs and logs, leftovers of dead processes.

    Fails, and removes nothing, where that would be much at once: a person has to say so.
    """
    from moments_resources.retention.part import told_as

    try:
        # Against another database than that of the store, each object is one that nothing names.
        check_bulk(context.resources.retention, lambda _line: None)
        cleaned = clean(context.resources.retention, context.instance, context.log.info)
    except MomentsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(f"Removed: {told_as(cleaned)}.")
    context.add_output_metadata({name: count for name, count in cleaned.items() if count})


@dg.job(
    name="retention",
    executor_def=dg.in_process_executor,
    description="Removes what is no longer needed, within the limits of MOMENTS_KEEP_*. `moments clean` does the same.",
)
def retention_job() -> None:
    """One step."""
    clean_up()


nightly = dg.ScheduleDefinition(
    name="retention",
    job=retention_job,
    cron_schedule="30 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at half past two, UTC.",
)
