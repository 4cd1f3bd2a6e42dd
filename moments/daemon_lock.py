"""The lock of the one daemon: held on a connection of its own, with which it falls."""

from __future__ import annotations

import select
from contextlib import ExitStack
from typing import Self

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from moments.services import DAEMON_LOCK
from moments_resources.database import Database, try_lock

_END_SECONDS = 5


class DaemonLock:
    """Nobody has it before `take`; `is_held` says whether it is still ours."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stack = ExitStack()
        self._connection: Connection | None = None
        self._session = {"pid": 0, "start": None}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self) -> bool:
        """Take the lock if nobody else has it. Raises ServiceError when PostgreSQL is away."""
        self._stack.close()
        self._end_last_session()
        with ExitStack() as stack:
            connection = stack.enter_context(self._database.own_connection())
            if not try_lock(connection, DAEMON_LOCK):
                return False
            row = connection.execute(
                text("select pid, backend_start as start from pg_stat_activity where pid = pg_backend_pid()")
            )
            self._session = dict(row.mappings().one())
            self._connection = connection
            self._stack = stack.pop_all()
        return True

    def is_held(self) -> bool:
        """Ask the server, on the lock's own connection: an answer proves that it was ours all the time."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("select 1"))
        except DBAPIError:
            self._connection = None
        return self._connection is not None

    def wait(self, seconds: float) -> bool:
        """Sleep; True at once when the server says something unasked, as it does when it ends the connection."""
        assert self._connection is not None  # noqa: S101
        poller = select.poll()
        poller.register(self._connection.connection.fileno(), select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def _end_last_session(self) -> None:
        # A server that was frozen, or behind a network that was away, may not know yet that we have left, and would
        # keep the lock for a session that nobody uses: told apart from another daemon's by its number and its start.
        if self._session["pid"]:
            query = text(
                "select pg_terminate_backend(pid, :end_ms) from pg_stat_activity"
                " where pid = :pid and backend_start = :start"
            )
            with self._database.begin() as connection:
                connection.execute(query, {**self._session, "end_ms": _END_SECONDS * 1000})
