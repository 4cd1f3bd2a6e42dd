"""What all faults share: the stand, the watch, and what the plan foresees as the end of a submission."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.faults.stand import Row, Stand
from benchmarks.faults.watch import Watch

if TYPE_CHECKING:
    from benchmarks.faults.cancelling import Cancelled

CANCELLED = frozenset({"cancelled"})
FAILED_FOR_GOOD = frozenset({"failed permanent"})

_STRIKES_POSTGRES = {"postgres_killed", "postgres_frozen", "power_cut"}
_POSTGRES_BACK_S = 30.0  # after a strike: 15 s frozen at most, or 5 s gone and its start


@dataclass
class Struck:
    """A fault that was played. `at`: `time.monotonic()`. `videos`: whose work it hit."""

    kind: str
    at: float
    videos: Sequence[str] = ()


@dataclass
class Field:
    """Noted from many threads; each note is one append or update."""

    stand: Stand
    watch: Watch
    patience_s: float = 45.0  # how long a fault waits for what it is meant to hit
    struck: list[Struck] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # kinds that found nobody to hit
    wrong: list[str] = field(default_factory=list)  # what a fault itself found to be wrong
    foreseen: dict[int, frozenset[str]] = field(default_factory=lambda: defaultdict(frozenset))
    foreseen_videos: dict[str, frozenset[str]] = field(default_factory=lambda: defaultdict(frozenset))
    wanted: list[tuple[str, int]] = field(default_factory=list)  # rows that must exist at the end, as (url, how many)
    wanted_ids: list[int] = field(default_factory=list)  # numbers that somebody was given for a submission
    cancelled: list[Cancelled] = field(default_factory=list)
    restarting: threading.Lock = field(default_factory=threading.Lock)  # a server that is away can't go away again
    _outage: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, kind: str, videos: Sequence[str] = ()) -> None:
        """Note that a fault strikes now."""
        self.struck.append(Struck(kind, time.monotonic(), tuple(videos)))

    def hit_all(self, kind: str) -> None:
        """As `hit`, of everybody who is at work. To be called just before: afterwards nobody may answer."""
        self.hit(kind, sorted({row["video_id"] for row in self.watch.at_work()}))

    def victim(self, kind: str, stage: str | None = None) -> Row | None:
        """Somebody to hit; None, which is noted, where nobody came."""
        found = self.watch.victim(stage, seconds=self.patience_s)
        if found is None:
            self.missed.append(kind)
        return found

    def foresee(self, row: Row, ends: frozenset[str]) -> None:
        """The submission of an attempt may end so; and, by their equal options, others of the video."""
        self.foreseen_videos[row["video_id"]] |= ends

    def postgres_answered(self, *, since: float) -> bool:
        """Whether PostgreSQL had nothing to recover from. `since`: `time.monotonic()`."""
        strikes = [struck.at for struck in list(self.struck) if struck.kind in _STRIKES_POSTGRES]
        return all(at < since - _POSTGRES_BACK_S for at in strikes)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """One at a time."""
        with self._outage:
            yield
