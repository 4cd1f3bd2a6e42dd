"""`moments clean`: retention by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from moments.services import Lakehouse, prepare_dagster
from moments_core.retention import Limits
from moments_resources.retention.part import Cleaned, Retention


def retention_of(lakehouse: Lakehouse) -> Retention:
    """What the settings say is kept, and for how long."""
    settings = lakehouse.settings
    return Retention(
        database=lakehouse.database,
        store=lakehouse.store,
        scratch=settings.state / "scratch",
        logs=settings.state / "logs",
        limits=Limits(
            versions=timedelta(days=settings.keep_versions_days),
            runs=timedelta(days=settings.keep_runs_days),
            garbage=timedelta(hours=settings.keep_garbage_hours),
        ),
    )


def look_ahead(lakehouse: Lakehouse, tell: Callable[[str], object]) -> Cleaned:
    """What `clean` would remove; changes nothing."""
    from dagster import DagsterInstance

    from moments_sensors import retention

    prepare_dagster(lakehouse.settings)
    with DagsterInstance.get() as instance:
        return retention.look_ahead(retention_of(lakehouse), instance, tell)


def clean(lakehouse: Lakehouse, tell: Callable[[str], object]) -> Cleaned:
    """Remove what may go; says what went. Raises ServiceError where another clean is at work."""
    from dagster import DagsterInstance

    from moments_sensors import retention

    prepare_dagster(lakehouse.settings)
    with DagsterInstance.get() as instance:
        return retention.clean(retention_of(lakehouse), instance, tell)


def check_bulk(lakehouse: Lakehouse) -> None:
    """Raises SettingsError for a clean that would remove much at once."""
    from moments_sensors import retention

    retention.check_bulk(retention_of(lakehouse), lambda _line: None)
