"""At most so many at once, over the whole installation: places in PostgreSQL, given out in the order of asking.

Dagster's pools poll with pauses of up to 15 s, so a model stood idle for a third of its time while work waited for it.
Here the next in line has the place within `_POLL_S`.

Who asks draws a ticket, a number that rises, and holds the advisory lock of that number as long as it waits. It waits
for the lock of the ticket before its own, and so learns when it is first; the first looks for a free place, which is
a lock too. (A plain queue for one lock would not keep the order: who can be cancelled has to wait in short waits, and
goes to the end with each.) All locks fall with the connection of their holder, also when its process was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

from moments_resources.database import Database, lock_key, wait_for

#: Between two looks of the first in line. 100 looks a second cost PostgreSQL 2 % of a core, and only one waiter looks.
_POLL_S = 0.01
_POLLS_A_WAIT = 100  # a call of `while_waiting` a second, as with every lock

# Tickets are locks of two numbers, the queue's and their own; all others here have one. A waiter's own wait for such a
# lock is a shared one, so that it is not taken for a ticket.
_DRAW = "select nextval('public.turn_tickets')"
_HOLD = "select pg_advisory_lock(:queue, :ticket)"
_GIVE_UP = "select pg_advisory_unlock(:queue, :ticket)"
_WAIT = "select pg_advisory_lock_shared(:queue, :ticket)"
_WAITED = "select pg_advisory_unlock_shared(:queue, :ticket)"
_BEFORE = """
select max(objid::bigint) from pg_locks
where locktype = 'advisory' and objsubid = 2 and mode = 'ExclusiveLock' and granted
  and database = (select oid from pg_database where datname = current_database())
  and classid::bigint = :queue and objid::bigint < :ticket
"""


class Turns:
    """Places by name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def turn(self, name: str, limit: int, *, while_waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold one of `limit` places. `while_waiting` is called once a second of waiting; it may raise."""
        with self._database.own_connection() as connection:
            queue = queue_key(name)
            ticket = {"queue": queue, "ticket": int(connection.scalar(text(_DRAW)) or 0)}
            connection.execute(text(_HOLD), ticket)
            _become_first(connection, ticket, while_waiting)
            _take_place(connection, name, limit, while_waiting)
            connection.execute(text(_GIVE_UP), ticket)
            yield


def queue_key(name: str) -> int:
    """The number of a queue, 31 bits of its name's hash: two that share one only wait for each other."""
    return lock_key(f"queue:{name}") & 0x7FFF_FFFF


def _become_first(connection: Connection, ticket: dict[str, int], while_waiting: Callable[[], None] | None) -> None:
    while (before := connection.scalar(text(_BEFORE), ticket)) is not None:
        its = {"queue": ticket["queue"], "ticket": int(before)}
        wait_for(connection, _WAIT, its, while_waiting)
        connection.execute(text(_WAITED), its)


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
