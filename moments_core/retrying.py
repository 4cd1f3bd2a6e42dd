"""When failed work is tried again: the one policy, by the class of the failure.

    transient   after 10 s, 30 s, 90 s, … (or when the other side said to come back), until `most` runs have failed
                in a row: one that makes anything begins the row, and its pauses, anew
    budget      when the budget is filled up again, where the error says when: a day's budget at midnight
    permanent, cancelled, any other budget    never

This is about whole runs, hours apart if need be. Within a run, Dagster's retry policy bridges seconds
(moments_assets/video_asset.py), and a call of a model has pauses of its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from moments_core.errors import FailureClass, MomentsError, classify

MOST_TRIES = 5  # 10 + 30 + 90 + 270 s: a server has 6 min 40 s to come back
FIRST_PAUSE_S = 10.0  # longer than a service takes to start again
GROWTH = 3.0

NOT_BEFORE = "not_before"  # evidence of a BudgetError: the ISO time from which there is a budget again
NOT_BEFORE_S = "not_before_s"  # evidence of a TransientError: seconds after which the other side wants to be asked


def next_try(error: BaseException, *, failed: int, most: int = MOST_TRIES) -> datetime | timedelta | None:
    """When to try again, as a time or as a pause from now; None: never.

    `failed`: runs in a row, this one included.
    """
    failure_class = classify(error)
    evidence = error.evidence if isinstance(error, MomentsError) else {}
    if failure_class is FailureClass.BUDGET:
        return _time(evidence.get(NOT_BEFORE))
    if failure_class is not FailureClass.TRANSIENT or failed >= most:
        return None
    pause = FIRST_PAUSE_S * GROWTH ** (failed - 1)
    return timedelta(seconds=max(pause, _seconds(evidence.get(NOT_BEFORE_S))))


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
