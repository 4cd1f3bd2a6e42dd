"""Calls that only find out whether a model is well, such as those of `moments models test`: somebody waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from moments_core.errors import ServiceError
from moments_core.model_entry import ModelEntry
from moments_resources.models.caller import ONE_PAUSE_S, ModelCaller
from moments_resources.models.link import ModelLink
from moments_resources.models.unnoted_calls import UnnotedCalls

if TYPE_CHECKING:
    from moments_resources.database import Database

QUEUE_S = 60.0  # a vision model takes a minute for a call; hours of videos may stand before this one


@contextmanager
def trial_caller(entry: ModelEntry, *, database: Database, queue_s: float = QUEUE_S) -> Iterator[ModelCaller]:
    """A caller over the way, and in the turn, of every call, whose calls are kept nowhere.

    They are made also while the model is left alone. A call that does not get its turn within `queue_s` raises
    ServiceError.
    """
    until = monotonic() + queue_s

    def look() -> None:
        if monotonic() > until:
            raise ServiceError(
                f"The model {entry.key} is at work for videos, and the test did not get its turn within "
                f"{queue_s:.0f} s: run this again, or see `moments status`.",
                model=entry.key,
            )

    with ModelLink(entry) as link:
        yield ModelCaller(
            entry,
            link=link,
            database=database,
            ledger=UnnotedCalls(),
            pauses_s=ONE_PAUSE_S,
            while_waiting=look,
        )
