"""Waiting for a database that is away for a moment, in an event loop."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from moments_core.errors import ServiceError

T = TypeVar("T")


async def patiently(note: Callable[[], T], for_s: float, *, to_the_end: bool = False) -> T:
    """Try again each second while the database is away, for so long; `to_the_end`: also when the step is ended.

    Raises ServiceError when it is away for longer.
    """
    from anyio import CancelScope, sleep

    until = monotonic() + for_s
    while True:
        try:
            return note()
        except ServiceError:
            if monotonic() >= until:
                raise
        with CancelScope(shield=to_the_end):
            await sleep(1)
