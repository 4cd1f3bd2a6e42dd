"""The second part of a fault run: a day's budget that is nearly spent, and a worker that is killed while it bites."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import text

from benchmarks.faults import invariants
from benchmarks.faults.clock import STEP
from benchmarks.faults.field import Field
from benchmarks.faults.on_processes import faults
from benchmarks.faults.on_work import submit
from moments_core.budget import Budget

VIDEOS = 3
ROOM_TOKENS = 20_000  # for the moments of a few videos; one call of the vision model may take its context, 32,768
_LEAST_SPENT = 45_000  # so that the next day has room for all of them, one such call after the other

_WAIT = """
select count(*) as n from public.intake_state where intake_id = any(:ids)
and (state in ('completed', 'failed', 'cancelled') or state = 'waiting' and class = 'budget')
"""
_END = "select count(*) as n from public.intake_state where intake_id = any(:ids) and state in ('completed', 'failed')"
_TO_MIDNIGHT = """
select extract(epoch from date_trunc('day', at) + interval '1 day' - at)::float as seconds
from (select now() at time zone 'utc' as at) utc
"""


def play_budgets(field: Field, patience_s: float) -> list[str] | None:
    """What passed the budget; and what did not wait for the next day, or did not go on then.

    None: not played, for too little was spent; ten videos spend enough. `patience_s`: for all of it.
    """
    stand = field.stand
    spent = invariants.tokens_taken_today(stand.lakehouse.database)
    if spent < _LEAST_SPENT:
        return None
    deadline = time.monotonic() + patience_s
    budget = Budget(tokens=spent + ROOM_TOKENS)
    stand.restart_daemon(MOMENTS_DAY_BUDGET=f"tokens={budget.tokens}")
    ids = [submit(field, stand.site.address(f"budget-{time.monotonic_ns()}")) for _ in range(VIDEOS)]
    faults()["worker_killed_in_moments"](field, 0.5)
    found = [] if _until(field, _WAIT, ids, deadline) else ["submissions neither ended nor waited for the next day"]
    found += invariants.budgets_passed(stand.lakehouse.database, video=Budget(), day=budget)
    seconds = stand.patient_rows(_TO_MIDNIGHT)[0]["seconds"]
    with stand.lakehouse.database.begin() as connection:
        connection.execute(text(STEP), {"seconds": seconds + 1})
    if not _until(field, _END, ids, deadline):
        found.append("submissions did not go on the next day")
    return found + invariants.budgets_passed(stand.lakehouse.database, video=Budget(), day=budget)


def _until(field: Field, query: str, ids: Sequence[int], deadline: float) -> bool:
    rows: Callable[..., list[dict[str, int]]] = field.stand.patient_rows
    while rows(query, ids=list(ids))[0]["n"] < len(ids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
