"""When to tell somebody that an installation is not well: once it stayed so, again every day, and when it is over.

The memory of what was told travels as text (a sensor's cursor). Times are seconds since 1970: they outlive the process
that wrote them; a clock that was set back makes something told again, or later, and no more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

State = Literal["unhealthy", "healthy", "test"]

REPORT_S = 900.0  # of a state that stays the same; the event log keeps every report
REMIND_S = 86_400.0
RETRY_S = 600.0  # a webhook that hangs takes half a minute of the daemon's time at each attempt


@dataclass(frozen=True, slots=True)
class Alert:
    """What is told: the state, and each problem in a sentence."""

    state: State
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What was seen and told. `kinds`: of the problems that stand, since `kinds_since`; bad since `bad_since`.

    `told`: the kinds that were told last, at `told_at`; None while nobody knows of anything bad.
    """

    kinds: tuple[str, ...] | None = None
    kinds_since: float = 0.0
    bad_since: float | None = None
    reported_at: float | None = None
    told: tuple[str, ...] | None = None
    told_at: float = 0.0
    not_before: float = 0.0

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    def after_telling(self, state: State, now: float) -> Memory:
        """The alert arrived."""
        return replace(self, told=self.kinds if state == "unhealthy" else None, told_at=now, not_before=0.0)

    def after_failing(self, now: float) -> Memory:
        """It did not: it is tried again, a while later."""
        return replace(self, not_before=now + RETRY_S)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: report the check's state, tell the webhook. `memory` is the one after the report."""

    memory: Memory
    report: bool
    alert: State | None


def read_memory(text: str | None) -> Memory:
    """A memory that was written before; an empty one for none, and for one that can't be read."""
    try:
        read: dict[str, Any] = json.loads(text or "{}")
        for name in ("kinds", "told"):
            read[name] = None if read.get(name) is None else tuple(map(str, read[name]))
        return Memory(**read)
    except (ValueError, TypeError, AttributeError):
        return Memory()


def decide(memory: Memory, kinds: tuple[str, ...], *, now: float, wait_s: float) -> Decision:
    """What follows from the kinds of problems that stand now. `wait_s`: how long a bad state has to stay so."""
    seen = _seen(memory, kinds, now)
    report = kinds != memory.kinds or memory.reported_at is None or _has_passed(memory.reported_at, REPORT_S, now)
    # Nothing is held back for longer than this program would hold it back: the clock was set.
    is_held_back = now < seen.not_before <= now + RETRY_S
    alert = None if is_held_back else _alert(seen, now, wait_s)
    return Decision(replace(seen, reported_at=now) if report else seen, report, alert)


def _seen(memory: Memory, kinds: tuple[str, ...], now: float) -> Memory:
    changed = memory if kinds == memory.kinds else replace(memory, kinds=kinds, kinds_since=now)
    if not kinds:
        return replace(changed, bad_since=None)
    return replace(changed, bad_since=now) if changed.bad_since is None else changed


def _alert(seen: Memory, now: float, wait_s: float) -> State | None:
    if seen.bad_since is None:
        return None if seen.told is None else "healthy"
    if seen.told is None:
        return "unhealthy" if _has_passed(seen.bad_since, wait_s, now) else None
    # Other problems than those that were told have to stay, too: what comes and goes is told once a day.
    is_other = seen.kinds != seen.told and _has_passed(seen.kinds_since, wait_s, now)
    return "unhealthy" if is_other or _has_passed(seen.told_at, REMIND_S, now) else None


def _has_passed(since: float, seconds: float, now: float) -> bool:
    """Also for a time that is yet to come: the clock was set back."""
    return not 0 <= now - since < seconds
