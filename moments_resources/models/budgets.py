"""Whether a call has room in the budgets, and what each day has spent: over all processes and machines.

What is spent is known once a call has ended. Until then the most that it may take is reserved in its row of
model_calls, for as long as its attempt is open. Of a process that died, a call that waited for its turn gives it back
when its attempt is closed; one that was sent has taken it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, Date, RowMapping, cast, func, select, text
from sqlalchemy.dialects.postgresql import insert as insert_or

from moments_core.budget import Amounts, Budget, Budgets, Limit
from moments_core.errors import BudgetError
from moments_core.retrying import NOT_BEFORE
from moments_resources.database import lock_key
from moments_resources.tables import model_calls, spending


class HeldError(Exception):
    """What is left of a budget is reserved by calls that have not ended: there may be room once they have."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was spent, and what calls that have not ended may take beside it."""

    spent: Amounts
    held: Amounts


def lock_budgets(connection: Connection, budgets: Budgets, video_id: str) -> None:
    """One call at a time is judged and begun, up to the end of this transaction: two would see the same room."""
    # A process that is frozen here would keep all others from calling models, so the server ends its session.
    locking = text("select set_config('idle_in_transaction_session_timeout', '10s', true), pg_advisory_xact_lock(:key)")
    name = "budget" if budgets.day.is_set else f"budget:{video_id}"
    connection.execute(locking, {"key": lock_key(name)})


def check_room(connection: Connection, budgets: Budgets, video_id: str, model: str, most: Amounts) -> None:
    """Raises BudgetError where a budget has no room for a call, and HeldError where it may have some soon."""
    taken = []
    if budgets.video.is_set:
        of_video = _taken(connection, _OF_VIDEO, video_id=video_id)
        _check_video(budgets.video, of_video, model, most)
        taken.append((budgets.video, of_video))
    if budgets.day.is_set:
        of_day = _taken(connection, _OF_DAY)
        _check_day(connection, budgets.day, of_day, model, most)
        taken.append((budgets.day, of_day))
    if any(budget.passed_by(now.spent + now.held + most) for budget, now in taken):
        raise HeldError


def _check_video(budget: Budget, taken: Taken, model: str, most: Amounts) -> None:
    if limit := budget.passed_by(taken.spent + most):
        raise _refused("video", budget, limit, taken.spent, model, most)


def _check_day(connection: Connection, budget: Budget, taken: Taken, model: str, most: Amounts) -> None:
    if limit := budget.passed_by(most):  # no day has room for it, so none is waited for
        raise _refused("day", budget, limit, taken.spent, model, most)
    if limit := budget.passed_by(taken.spent + most):
        raise _refused("day", budget, limit, taken.spent, model, most, not_before=_midnight(connection))


def _refused(
    which: str, budget: Budget, limit: Limit, spent: Amounts, model: str, most: Amounts, not_before: str | None = None
) -> BudgetError:
    allowed, gone, asked = getattr(budget, limit), getattr(spent, limit), getattr(most, limit)
    waits, ends = "this goes on after midnight UTC, or sooner if you raise it", "raise it, or choose another model"
    setting = {"video": "MOMENTS_VIDEO_BUDGET", "day": "MOMENTS_DAY_BUDGET"}[which]
    return BudgetError(
        f"{setting} allows a {which} {limit}={allowed:.15g}, {_shown(gone)} of it is spent, and "
        f"the next call of the model {model} may take {_shown(asked)}: {waits if not_before else ends}.",
        budget=which,
        limit=limit,
        allowed=allowed,
        spent=gone,
        may_take=asked,
        model=model,
        **({NOT_BEFORE: not_before} if not_before else {}),
    )


def _shown(value: float) -> str:
    return f"{round(value, 6):,.15g}"


def _midnight(connection: Connection) -> str:
    """When the next day begins, by the clock that counts the days."""
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    tomorrow = now.astimezone(UTC).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), UTC).isoformat()


def _taken(connection: Connection, query: str, **parameters: str) -> Taken:
    row = connection.execute(text(query), parameters).one()
    return Taken(Amounts(row[0], int(row[1]), row[2]), Amounts(row[3], int(row[4]), row[5]))


# Each sum is one statement: between two of them a call could end, and be in neither. What a call took that its server
# has not counted (yet) is what was reserved for it; so it is for one that was sent and whose end nobody noted.
_OF_VIDEO = """
select coalesce(sum(coalesce(seconds, 0) + reserved_seconds) filter (where not is_held), 0),
       coalesce(sum(coalesce(tokens_in, 0)::bigint + coalesce(tokens_out, 0) + reserved_tokens)
                filter (where not is_held), 0),
       coalesce(sum(cost + reserved_cost) filter (where not is_held), 0),
       coalesce(sum(reserved_seconds) filter (where is_held), 0),
       coalesce(sum(reserved_tokens) filter (where is_held), 0),
       coalesce(sum(reserved_cost) filter (where is_held), 0)
from (
    select c.*, c.outcome = 'open' and h.outcome = 'running' as is_held
    from public.model_calls c
    join public.pipeline_history h on h.attempt_id = c.attempt_id
    where c.video_id = :video_id and (c.outcome <> 'open' or h.outcome = 'running' or c.sent)
) counted
"""

# All open calls, whenever they began: one that is sent before midnight may end after it.
_OF_DAY = """
select coalesce(s.seconds, 0) + unheard.seconds, coalesce(s.tokens, 0) + uncounted.tokens + unheard.tokens,
       coalesce(s.cost, 0) + uncounted.cost + unheard.cost, held.seconds, held.tokens, held.cost
from (select (clock_timestamp() at time zone 'UTC')::date as day) today
left join public.spending s on s.day = today.day
cross join lateral (
    select coalesce(sum(reserved_tokens), 0) as tokens, coalesce(sum(reserved_cost), 0) as cost
    from public.model_calls
    where outcome <> 'open' and reserved_tokens > 0 and started_at >= today.day::timestamp at time zone 'UTC'
) uncounted
cross join lateral (
    select coalesce(sum(c.reserved_seconds), 0) as seconds, coalesce(sum(c.reserved_tokens), 0) as tokens,
           coalesce(sum(c.reserved_cost), 0) as cost
    from public.model_calls c
    join public.pipeline_history h on h.attempt_id = c.attempt_id
    where c.outcome = 'open' and h.outcome <> 'running' and c.sent
      and c.started_at >= today.day::timestamp at time zone 'UTC'
) unheard
cross join (
    select coalesce(sum(c.reserved_seconds), 0) as seconds, coalesce(sum(c.reserved_tokens), 0) as tokens,
           coalesce(sum(c.reserved_cost), 0) as cost
    from public.model_calls c
    join public.pipeline_history h on h.attempt_id = c.attempt_id
    where c.outcome = 'open' and h.outcome = 'running'
) held
"""


def note_spent(connection: Connection, call_id: int, values: Mapping[str, Any]) -> None:
    """Change the row of a call, and raise its day's spending by as much as its figures rose.

    So what is noted twice counts once. The day is the one on which the call was sent. A call that was removed
    meanwhile is not noted.
    """
    here = model_calls.c.call_id == call_id
    before = connection.execute(select(*_FIGURES).where(here).with_for_update()).mappings().first()
    if before is None:
        return
    after = connection.execute(model_calls.update().where(here).values(values).returning(*_FIGURES)).mappings().one()
    rise = [now - then for now, then in zip(astuple(_spent(after)), astuple(_spent(before)), strict=True)]
    if any(rise):
        _raise(connection, after["day"], Amounts(*rise))


_FIGURES = (
    model_calls.c.seconds,
    model_calls.c.tokens_in,
    model_calls.c.tokens_out,
    model_calls.c.cost,
    cast(func.timezone("UTC", model_calls.c.started_at), Date).label("day"),
)


def _spent(row: RowMapping) -> Amounts:
    return Amounts(row["seconds"] or 0.0, (row["tokens_in"] or 0) + (row["tokens_out"] or 0), row["cost"])


def _raise(connection: Connection, day: date, by: Amounts) -> None:
    row = insert_or(spending).values(day=day, seconds=by.seconds, tokens=by.tokens, cost=by.cost)
    sums = {name: spending.c[name] + row.excluded[name] for name in ("seconds", "tokens", "cost")}
    connection.execute(row.on_conflict_do_update(index_elements=[spending.c.day], set_=sums))
