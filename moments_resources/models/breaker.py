"""A circuit breaker for each model: a server that fails again and again is left alone for a while.

Its memory is the ledger of calls, so all processes and machines share one: each run is a process of its own.
"""

from __future__ import annotations

from sqlalchemy import func, select

from moments_resources.database import Database
from moments_resources.tables import model_calls

FAILURES = 5  # in a row, on the server's side
SPAN_S = 10.0  # from the first to the last of them: calls that break together are one fault, and soon over
REST_S = 30.0  # a model server takes a minute to load; whoever calls first after a rest is the probe

_LOOKED_AT = 40  # calls that began last; those that ended last are among them


def rest_s(database: Database, model: str) -> float:
    """Seconds for which the model should be left alone; 0 where it may be called."""
    ago = func.extract("epoch", func.clock_timestamp() - model_calls.c.started_at) - model_calls.c.seconds
    query = (
        select(model_calls.c.outcome, model_calls.c["class"], model_calls.c.status, ago.label("ago_s"))
        .where(model_calls.c.model == model, model_calls.c.outcome != "open", model_calls.c.seconds.is_not(None))
        .order_by(model_calls.c.started_at.desc())
        .limit(_LOOKED_AT)
    )
    with database.begin() as connection:
        rows = connection.execute(query).mappings().all()
    last = sorted(rows, key=lambda row: float(row["ago_s"]))[:FAILURES]
    if len(last) < FAILURES or not all(_is_the_servers(row["outcome"], row["class"], row["status"]) for row in last):
        return 0.0
    newest_s, oldest_s = float(last[0]["ago_s"]), float(last[-1]["ago_s"])
    return max(0.0, REST_S - newest_s) if oldest_s - newest_s >= SPAN_S else 0.0


def _is_the_servers(outcome: str, failure_class: str | None, status: int | None) -> bool:
    """Whether a call failed for a reason that the next one would meet too; a server that is busy is well."""
    return outcome == "failed" and failure_class == "transient" and status != 429
