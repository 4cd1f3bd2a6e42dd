"""Reading the replies of a step: all of them, before the first failure is raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from moments_core.errors import ReplyError, ServiceError

Item = TypeVar("Item")
Read = TypeVar("Read")


def all_read(read: Callable[[Item], Read], items: Iterable[Item]) -> list[Read]:
    """What `read` makes of each item, in their order.

    Every reply that can't be used is marked as refused on the way, so that the next try asks again for all of them, and
    not for one more at each try. Raises the first ReplyError or ServiceError, once all are read.
    """
    done: list[Read] = []
    failures: list[ReplyError | ServiceError] = []
    for item in items:
        try:
            done.append(read(item))
        except (ReplyError, ServiceError) as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return done
