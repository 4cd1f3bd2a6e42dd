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

_COMPLETE: set[str] = set()  # databases in which this process has seen all of Dagster's tables


class LakehouseStorage(DagsterPostgresStorage):
    """Named by dagster.yaml. Starts the embedded server where it is not up."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:  # noqa: ARG003
        lakehouse = up(load_settings())
        url = dagster_url(lakehouse.database.url)
        # Each tick of a sensor opens Dagster's instance anew, and each look for tables a connection for three stores.
        if url in _COMPLETE:
            return cls(postgres_url=url, should_autocreate_tables=False, inst_data=inst_data)
        # The first worker processes of a fresh lakehouse made Dagster's tables at once, and all but one failed.
        with lakehouse.database.lock(_TABLES_LOCK):
            storage = cls(postgres_url=url, inst_data=inst_data)
        _COMPLETE.add(url)
        return storage
