"""A circuit breaker for each model: a server that fails again and again is left alone for a while.

Its memory is the ledger of calls, so all processes and machines share one: each run is a process of its own.
"""

from __future__ import annotations

from sqlalchemy import func, select

from moments_core.errors import ServiceError
from moments_resources.database import Database
from moments_resources.tables import model_calls

FAILURES = 5  # in a row, on the server's side; a step makes three tries, so one step alone can't open it
REST_S = 30.0  # a model server takes a minute to load; the first call after the rest is the probe


def check_breaker(database: Database, model: str) -> None:
    """Raises ServiceError while the model rests: its last calls all failed, the newest a moment ago."""
    ended = func.extract("epoch", func.clock_timestamp() - model_calls.c.started_at) - model_calls.c.seconds
    query = (
        select(model_calls.c.outcome, model_calls.c["class"], model_calls.c.status, ended.label("ago_s"))
        .where(model_calls.c.model == model, model_calls.c.outcome != "open")
        .order_by(model_calls.c.call_id.desc())
        .limit(FAILURES)
    )
    with database.begin() as connection:
        last = connection.execute(query).mappings().all()
    if len(last) < FAILURES or not all(_is_the_servers(row["outcome"], row["class"], row["status"]) for row in last):
        return
    rest_s = REST_S - float(min(row["ago_s"] for row in last))
    if rest_s > 0:
        raise ServiceError(
            f"The model {model} failed {FAILURES} times in a row, so it is not called for {rest_s:.0f} s: "
            f"run `moments models test {model}`.",
            model=model,
        )


def _is_the_servers(outcome: str, failure_class: str | None, status: int | None) -> bool:
    """Whether a call failed for a reason that the next one would meet too; a server that is busy is well."""
    return outcome == "failed" and failure_class == "transient" and status != 429
