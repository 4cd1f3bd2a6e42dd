"""Dagster's storage in our database: few connections, and none that two processes share."""

from __future__ import annotations

import os

import dagster as dg
import pytest
from sqlalchemy import text

from moments.services import Lakehouse, prepare_dagster


@pytest.fixture
def prepared(lakehouse: Lakehouse) -> Lakehouse:
    prepare_dagster(lakehouse.settings)
    return lakehouse


def backends(instance: dg.DagsterInstance) -> set[int]:
    """The server's processes that answer for runs and for events."""
    found = set()
    for storage in (instance.run_storage, instance.event_log_storage):
        with storage._engine.connect() as connection:
            found.add(connection.scalar(text("select pg_backend_pid()")))
    return found


def test_all_instances_of_a_process_share_their_connections(prepared: Lakehouse) -> None:
    seen = set()
    for _ in range(3):
        with dg.DagsterInstance.get() as instance:
            seen |= backends(instance)
    assert len(seen) == 1


def test_a_server_that_ended_the_connection_is_connected_to_again(prepared: Lakehouse) -> None:
    with dg.DagsterInstance.get() as instance:
        (before,) = backends(instance)
        with prepared.database.begin() as connection:
            connection.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": before})
        assert instance.get_runs_count() == 0
        assert backends(instance) != {before}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Python 3.12 on, for a fork beside threads
def test_a_fork_takes_a_connection_of_its_own(prepared: Lakehouse) -> None:
    with dg.DagsterInstance.get() as instance:
        before = backends(instance)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(bool(backends(instance) & before))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert backends(instance) == before
