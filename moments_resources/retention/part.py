"""How a clean goes through what may be removed: part by part, in bounded pieces, each part in its share of the time.

A part finds candidates, a piece at a time, and either weighs one (what would go, nothing changes) or removes it, after
a last look behind the locks that matter. Every removal can be broken off at any point and repeated.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from moments_core.errors import MomentsError
from moments_core.retention import Limits
from moments_resources.database import Database
from moments_resources.store.interface import ObjectStore

#: How much went, by name: versions, objects, bytes, runs, …
Cleaned = Counter[str]

Piece = TypeVar("Piece")

_TOLD_EVERY_S = 10.0


class Part(Protocol[Piece]):
    """One kind of thing that is removed after a while. `share`: of the time that a whole clean has."""

    name: str
    share: float

    def candidates(self) -> Iterator[Piece]:
        """What may have to go, a bounded piece at a time."""
        ...

    def weigh(self, piece: Piece) -> Cleaned:
        """What of a piece would go."""
        ...

    def remove(self, piece: Piece) -> Cleaned:
        """Remove of a piece what may go; says what went."""
        ...


@dataclass(frozen=True)
class Retention:
    """Where things lie that are removed after a while, and how long each is kept."""

    database: Database
    store: ObjectStore
    scratch: Path
    logs: Path
    limits: Limits


def survey(parts: Iterable[Part[Any]], limits: Limits, tell: Callable[[str], object]) -> Cleaned:
    """What a clean would remove; changes nothing. Raises as `remove`."""
    return _through([(part, part.weigh) for part in parts], limits, tell)


def remove(parts: Iterable[Part[Any]], limits: Limits, tell: Callable[[str], object]) -> Cleaned:
    """Remove what may go; says what went. Raises the first error of a part, after all others had their turn."""
    return _through([(part, part.remove) for part in parts], limits, tell)


def _through(
    work: Iterable[tuple[Part[Any], Callable[[Any], Cleaned]]], limits: Limits, tell: Callable[[str], object]
) -> Cleaned:
    """What all parts did. One that fails, be it that the store is away, keeps no other from its work."""
    total, failed = Cleaned(), None
    for part, do in work:
        try:
            for done in _in_time(part, do, limits.seconds * part.share, tell):
                total.update(done)
        except MomentsError as error:
            tell(f"{part.name}: {error}")
            failed = failed or error
    if failed is not None:
        raise failed
    return total


def _in_time(
    part: Part[Any], do: Callable[[Any], Cleaned], seconds: float, tell: Callable[[str], object]
) -> Iterator[Cleaned]:
    began = told = time.monotonic()
    sofar = Cleaned()
    for piece in part.candidates():
        done = do(piece)
        sofar.update(done)
        yield done
        now = time.monotonic()
        if now - began >= seconds:
            tell(f"{part.name}: time is up, the rest is left for the next clean ({told_as(sofar)})")
            return
        if now - told >= _TOLD_EVERY_S:
            told = now
            tell(f"{part.name}: {told_as(sofar)} so far")
    tell(f"{part.name}: {told_as(sofar)}")


def told_as(cleaned: Cleaned) -> str:
    """`2 versions, 11 rows`."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in cleaned.items() if count) or "nothing"
