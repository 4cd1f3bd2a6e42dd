"""Pools: how many steps of a kind are at work at once, over the whole installation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from moments_resources.turns import Turns

#: How many steps more than its limit Dagster lets into a pool. Dagster's pools hand a place on with pauses of up to
#: 15 s; these steps are in already and wait in our own queue, which hands it on in 10 ms. 8 steps of 2 s bridge 15 s.
WAITING = 8


@dataclass(frozen=True)
class Pools:
    """The limits, and the queues in front of them."""

    turns: Turns
    limits: Mapping[str, int]

    @contextmanager
    def turn(self, pool: str) -> Iterator[None]:
        """Hold a place in the pool."""
        with self.turns.turn(f"pool:{pool}", self.limits.get(pool, 1)):
            yield
