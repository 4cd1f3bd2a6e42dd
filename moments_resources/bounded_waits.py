"""Waits for PostgreSQL that have an end, and that a signal breaks off."""

from __future__ import annotations

import select
import time
from functools import partial

from psycopg2 import OperationalError
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, connection, set_wait_callback

_EVENTS = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}


def bound_waits(seconds: float) -> None:
    """From here on, nothing in this process waits longer than `seconds` for an answer of PostgreSQL, or for its login.

    psycopg2 by itself waits inside of libpq: a server that is frozen (its kernel still confirms what we send) holds
    the process for as long as it likes, and Ctrl-C is not answered meanwhile. A wait that is given up is an
    OperationalError, and its connection is closed. Meant for a process that watches over others; it can't be undone.
    """
    set_wait_callback(partial(_wait, seconds))


def _wait(seconds: float, waiting: connection) -> None:
    deadline = time.monotonic() + seconds
    while (state := waiting.poll()) != POLL_OK:
        remaining_ms = 1000 * (deadline - time.monotonic())
        poller = select.poll()
        poller.register(waiting.fileno(), _EVENTS[state])
        if remaining_ms <= 0 or not poller.poll(remaining_ms):
            raise OperationalError(f"no answer within {seconds:.0f} s")
