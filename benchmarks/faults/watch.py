"""Looks at the history all the time: who is at work, and when each video came forward, by a clock that nobody sets."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from moments_core.errors import MomentsError

Row = dict[str, Any]
Rows = Callable[..., list[Row]]

_LOOK_S = 0.4
_ENDS_EVERY = 5  # looks

_STEPS = """
select attempt_id, video_id from public.pipeline_history
where outcome in ('completed', 'reused') and attempt_id > :known - 500
"""
_ENDS = """
select intake_id, video_id, state from public.intake_state
where video_id is not null and state in ('completed', 'failed', 'cancelled')
"""
_AT_WORK = """
select h.attempt_id, h.video_id, h.asset, h.run_id, h.intake_id, h.pid from public.pipeline_history h
where h.outcome = 'running' order by h.attempt_id
"""


class Watch:
    """`rows` asks PostgreSQL, and raises while it is broken."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._steps: dict[int, float] = {}
        self._ends: dict[int, float] = {}
        self.forward: dict[str, list[float]] = defaultdict(list)  # times of steps and ends, by video
        self.strikes: Counter[str] = Counter()  # by video
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def at_work(self) -> list[Row]:
        """Attempts that run now; none while PostgreSQL is broken."""
        try:
            return self._rows(_AT_WORK)
        except (MomentsError, SQLAlchemyError):
            return []

    def victim(self, stage: str | None, *, seconds: float) -> Row | None:
        """An attempt that runs, at `stage` if one is named: of the video that was struck least. Waits for one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [row for row in self.at_work() if stage in {None, row["asset"]}]
            if found:
                chosen = min(found, key=lambda row: (self.strikes[row["video_id"]], row["attempt_id"]))
                self.strikes[chosen["video_id"]] += 1
                return chosen
            time.sleep(0.05)
        return None

    def recovery_s(self, video_id: str, at: float) -> float | None:
        """From `at` until the video came forward; None where it never did."""
        return min((when - at for when in self.forward[video_id] if when > at), default=None)

    def _look(self) -> None:
        looks = 0
        while not self._is_over.wait(_LOOK_S):
            looks += 1
            try:
                self._note(self._steps, "attempt_id", self._rows(_STEPS, known=max(self._steps, default=0)))
                if looks % _ENDS_EVERY == 0:
                    self._note(self._ends, "intake_id", self._rows(_ENDS))
            except (MomentsError, SQLAlchemyError):
                continue

    def _note(self, known: dict[int, float], key: str, rows: list[Row]) -> None:
        now = time.monotonic()
        for row in rows:
            if row[key] not in known:
                known[row[key]] = now
                self.forward[row["video_id"]].append(now)
