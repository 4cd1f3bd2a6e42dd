"""At most so many at once, over the whole installation: places in PostgreSQL, given out in the order of asking.

Dagster's pools poll with pauses of up to 15 s, so a model stood idle for a third of its time while work waited for it.
Here the next in line has the place within `_POLL_S`. A place is an advisory lock: it falls with the connection of
whoever held it, also when that process was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

from moments_resources.database import Database, lock_key, take_lock

#: Between two looks of the first in line. 100 looks a second cost PostgreSQL 2 % of a core, and only one waiter looks.
_POLL_S = 0.01
_POLLS_A_WAIT = 100  # a call of `while_waiting` a second, as with every lock


class Turns:
    """Places by name. Who waits stands in one queue a name, and only the first in it looks for a free place."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def turn(self, name: str, limit: int, *, while_waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold one of `limit` places. `while_waiting` is called once a second of waiting; it may raise."""
        with self._database.own_connection() as connection:
            take_lock(connection, f"queue:{name}", while_waiting)
            _take_place(connection, name, limit, while_waiting)
            _leave_queue(connection, name)
            yield


def _take_place(connection: Connection, name: str, limit: int, while_waiting: Callable[[], None] | None) -> None:
    # Stops at the first place that it gets: without an order and with a limit, rows are looked at one by one.
    query = text("select place from unnest(cast(:places as bigint[])) place where pg_try_advisory_lock(place) limit 1")
    places = {"places": [lock_key(f"place:{name}:{number}") for number in range(limit)]}
    looks = 0
    while connection.scalar(query, places) is None:
        time.sleep(_POLL_S)
        looks += 1
        if while_waiting and looks % _POLLS_A_WAIT == 0:
            while_waiting()


def _leave_queue(connection: Connection, name: str) -> None:
    connection.execute(text("select pg_advisory_unlock(:key)"), {"key": lock_key(f"queue:{name}")})
