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

# `age`: seconds since it ended. By a difference, both ends of which are shifted alike where the clock was set before.
_STEPS = """
select attempt_id, video_id, extract(epoch from clock_timestamp() - ended_at)::float as age
from public.pipeline_history where outcome in ('completed', 'reused') and attempt_id > :known - 500
"""
_ENDS = """
select intake_id, video_id, state, (
    select extract(epoch from clock_timestamp() - max(ended_at))::float from public.pipeline_history h
    where h.intake_id = s.intake_id) as age
from public.intake_state s
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
        self._looked: dict[str, float] = {}  # when the last look that was answered began, by what it was for
        self.forward: dict[str, list[float]] = defaultdict(list)  # times of steps and ends, by video
        self.over: dict[str, list[float]] = defaultdict(list)  # times of ends alone
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

    def recovery_s(self, video_id: str, at: float, *, given_up: float) -> float | None:
        """Seconds from `at` until the video came forward, or until `given_up` where it never did.

        None where there was nothing to recover: its end had come before the strike.
        """
        later = [when for when in self.forward[video_id] if when > at]
        if later:
            return min(later) - at
        return None if self.over[video_id] else given_up - at

    def _look(self) -> None:
        looks = 0
        while not self._is_over.wait(_LOOK_S):
            looks += 1
            try:
                self._note(self._steps, "attempt_id", _STEPS, known=max(self._steps, default=0))
                if looks % _ENDS_EVERY == 0:
                    for video_id, when in self._note(self._ends, "intake_id", _ENDS):
                        self.over[video_id].append(when)
            except (MomentsError, SQLAlchemyError):
                continue

    def _note(self, noted: dict[int, float], key: str, query: str, **parameters: object) -> list[tuple[str, float]]:
        """Note what is new, each at the time when it ended; (video, time) of it."""
        began = time.monotonic()
        rows = self._rows(query, **parameters)
        new = [row for row in rows if row[key] not in noted]
        found = [(row["video_id"], ended_at(row["age"], now=began, earliest=self._looked.get(key, 0.0))) for row in new]
        for row, (video_id, when) in zip(new, found, strict=True):
            noted[row[key]] = when
            self.forward[video_id].append(when)
        self._looked[key] = began
        return found


def ended_at(age: float, *, now: float, earliest: float) -> float:
    """When something ended that was `age` seconds old after `now` and not seen by the look at `earliest`, by our clock.

    Taken too early by what the answer took, never too late: what ended before a strike must not pass for a recovery.
    Where the clock of the database was set since, the age is wrong by minutes, and the bounds hold it.
    """
    return max(earliest, min(now, now - age))
