"""Waits for PostgreSQL that have an end, and that a signal breaks off."""

from __future__ import annotations

import select
import time

from psycopg2 import OperationalError
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, connection, set_wait_callback

_EVENTS = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}
_AGAIN_SECONDS = 1.0


def bound_waits(seconds: float) -> None:
    """From here on, nothing in this process waits longer than `seconds` for an answer of PostgreSQL, or for its login.

    psycopg2 by itself waits inside of libpq: a server that is frozen (its kernel still confirms what we send) holds
    the process for as long as it likes, and Ctrl-C is not answered meanwhile. A wait that is given up is an
    OperationalError, and its connection is closed. Meant for a process that watches over others; it can't be undone.
    """
    set_wait_callback(_Patience(seconds).wait)


class _Patience:
    """Short after it was lost, then twice as long each time: Dagster's storage tries each statement six times.

    It does not stay short, or a machine that is too busy to log in within a second would never come back.
    """

    def __init__(self, seconds: float) -> None:
        self._whole = self._now = seconds

    def wait(self, waiting: connection) -> None:
        deadline = time.monotonic() + self._now
        while (state := waiting.poll()) != POLL_OK:
            remaining_ms = 1000 * (deadline - time.monotonic())
            poller = select.poll()
            poller.register(waiting.fileno(), _EVENTS[state])
            if remaining_ms <= 0 or not poller.poll(remaining_ms):
                lost = self._now >= self._whole
                self._now = min(_AGAIN_SECONDS if lost else 2 * self._now, self._whole)
                raise OperationalError(f"no answer within {self._whole:.0f} s")
        self._now = self._whole
