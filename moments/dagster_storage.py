"""Dagster's own storage, in the lakehouse's PostgreSQL: found through our settings, so that every Dagster command
works without a variable of its own, and no password stands in dagster.yaml or in a process's arguments."""

from __future__ import annotations

import os
from typing import Any, Self

from dagster._config import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import Engine, create_engine

from moments.services import up
from moments.settings import load_settings
from moments_resources.database import dagster_url

_TABLES_LOCK = "dagster tables"

#: By URL, for as long as this process lives, and only of databases in which it has seen all of Dagster's tables.
#: Dagster opens a connection for each statement, some 200 in a run, and its instance anew in each tick of a sensor.
_ENGINES: dict[str, Engine] = {}


class LakehouseStorage(DagsterPostgresStorage):
    """Named by dagster.yaml. Starts the embedded server where it is not up."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:  # noqa: ARG003
        lakehouse = up(load_settings())
        url = dagster_url(lakehouse.database.url)
        if url not in _ENGINES:
            # The first worker processes of a fresh lakehouse made Dagster's tables at once, and all but one failed.
            with lakehouse.database.lock(_TABLES_LOCK):
                cls(postgres_url=url)
            _ENGINES[url] = _engine(url)
        storage = cls(postgres_url=url, should_autocreate_tables=False, inst_data=inst_data)
        for part in (storage._run_storage, storage._event_log_storage, storage._schedule_storage):
            part._engine = _ENGINES[url]  # noqa: SLF001 - as its own `optimize_for_webserver` does
        lakehouse.database.engine.dispose()  # an instance is opened every few seconds; its connection goes at once
        return storage


def _engine(url: str) -> Engine:
    # Two connections stay open; beyond them there is no limit, as there was none.
    # pre_ping: a server that was restarted must not fail the first statement after it.
    return create_engine(url, isolation_level="AUTOCOMMIT", pool_size=2, max_overflow=-1, pool_pre_ping=True)


def _leave_to_parent() -> None:
    """In a fork: two processes on one connection would read each other's answers."""
    for engine in _ENGINES.values():
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_to_parent)
