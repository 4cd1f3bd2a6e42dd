"""Whether a fault run has shown anything: what makes it fail beside its offenders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.report import Figure

LEAST_STRUCK = 0.8  # of the faults that were planned
LEAST_KINDS = 20
RECOVERY_S = 90.0
_ENOUGH_FOR_ALL_KINDS = 40  # faults
_ENOUGH_FOR_BUDGETS = 300  # submissions


def shortfalls(figures: Mapping[str, Figure], *, submissions: int, is_strict: bool = False) -> Iterator[str]:
    """Why the figures show too little, one line each. `submissions`: how many were planned.

    The time of recovery counts only where it is asked for (`is_strict`): a machine that has other work would fail a
    change that is right.
    """
    planned, struck, kinds = (_number(figures, name) for name in ("planned", "faults", "kinds"))
    if struck < LEAST_STRUCK * planned:
        yield f"{struck:.0f} of {planned:.0f} faults struck, fewer than {LEAST_STRUCK:.0%}"
    if planned >= _ENOUGH_FOR_ALL_KINDS and kinds < LEAST_KINDS:
        yield f"{kinds:.0f} kinds of faults struck, fewer than {LEAST_KINDS}"
    files, rows = _number(figures, "files"), _number(figures, "submissions")
    if not files:
        yield "no file was submitted"
    if files == rows:
        yield "no address was submitted"
    if submissions >= _ENOUGH_FOR_BUDGETS and figures["budgets_passed"] is None:
        yield "the budgets were not played"
    if is_strict and not _number(figures, "recovery_p95_s") <= RECOVERY_S:
        yield f"recovery_p95_s is {figures['recovery_p95_s']}, over {RECOVERY_S:.0f}"


def _number(figures: Mapping[str, Figure], name: str) -> float:
    """A figure; one that could not be taken is infinite for a time and nothing for a count."""
    value = figures[name]
    if isinstance(value, (int, float)):
        return value
    return float("inf") if name.endswith("_s") else 0.0
