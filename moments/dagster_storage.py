"""Dagster's own storage, in the lakehouse's PostgreSQL: found through our settings, so that every Dagster command
works without a variable of its own, and no password stands in dagster.yaml or in a process's arguments."""

from __future__ import annotations

from typing import Any, Self

from dagster._config import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from moments.services import up
from moments.settings import load_settings
from moments_resources.database import dagster_url

_TABLES_LOCK = "dagster tables"


class LakehouseStorage(DagsterPostgresStorage):
    """Named by dagster.yaml. Starts the embedded server where it is not up."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:  # noqa: ARG003
        lakehouse = up(load_settings())
        # The first worker processes of a fresh lakehouse made Dagster's tables at once, and all but one failed.
        with lakehouse.database.lock(_TABLES_LOCK):
            return cls(postgres_url=dagster_url(lakehouse.database.url), inst_data=inst_data)
