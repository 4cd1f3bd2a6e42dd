"""The ledger of model calls: every call is a row, and a reply that arrived is kept before anybody reads it.

A step that is tried again asks the same questions. What was answered to them since its asset was last committed is
taken from here, so a crash between a reply and the commit costs nothing twice. After a commit the questions are new
ones: whoever forces a step wants new answers. A reply that could not be used is never taken again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or

from moments_core.budget import NO_LIMITS, NOTHING, Amounts, Budgets
from moments_core.errors import classify, reason
from moments_core.model_entry import Price
from moments_resources.database import Database
from moments_resources.history import Attempt
from moments_resources.models.budgets import HeldError, check_room, lock_budgets, note_spent
from moments_resources.storable import storable_text
from moments_resources.tables import artifacts, model_calls, pipeline_history, prompts

if TYPE_CHECKING:
    from moments_core.prompts import Prompt

_FREE = Price()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call took. Tokens are None where the server does not count them."""

    tokens_in: int | None = None
    tokens_out: int | None = None

    def cost(self, price: Price) -> float:
        """What the tokens cost, in the currency of the price."""
        return price.of_tokens(self.tokens_in or 0, self.tokens_out or 0)

    @property
    def is_known(self) -> bool:
        return self.tokens_in is not None or self.tokens_out is not None


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The body of an answer as it came. `reused`: it was stored by an earlier attempt."""

    call_id: int
    body: str
    reused: bool


class CallLedger:
    """The calls of one attempt at one asset, within the budgets. `measure` is told, by name, what they took so far.

    `since_run`: replies of earlier runs are not taken, for who started this one wants new ones.
    """

    is_a_trial = False

    def __init__(
        self,
        database: Database,
        attempt: Attempt,
        *,
        budgets: Budgets = NO_LIMITS,
        measure: Callable[..., None] | None = None,
        since_run: bool = False,
    ) -> None:
        self._database = database
        self._attempt = attempt
        self._budgets = budgets
        self._measure = measure
        self._since_run = since_run
        self._spent: Counter[str] = Counter()

    def stored(self, model: str, request_sha256: str) -> StoredReply | None:
        """A reply to this question that came since the asset was last committed."""
        committed = select(func.max(artifacts.c.attempt_id)).where(
            artifacts.c.video_id == self._attempt.video_id, artifacts.c.asset == self._attempt.asset
        )
        query = (
            select(model_calls.c.call_id, model_calls.c.reply)
            .where(
                model_calls.c.video_id == self._attempt.video_id,
                model_calls.c.asset == self._attempt.asset,
                model_calls.c.request_sha256 == request_sha256,
                model_calls.c.model == model,
                model_calls.c.outcome == "replied",
                model_calls.c.attempt_id > func.coalesce(committed.scalar_subquery(), 0),
                *([model_calls.c.attempt_id.in_(self._of_this_run())] if self._since_run else []),
            )
            .order_by(model_calls.c.call_id.desc())
            .limit(1)
        )
        with self._database.begin() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        self._spend(replies_reused=1)
        return StoredReply(row.call_id, row.reply, reused=True)

    def _of_this_run(self) -> Any:
        return select(pipeline_history.c.attempt_id).where(pipeline_history.c.run_id == self._attempt.run_id)

    def keep_prompt(self, prompt: Prompt) -> None:
        """Keep the text of a prompt, so that every call and every moment leads to it."""
        row = insert_or(prompts).values(
            sha256=prompt.sha256, name=prompt.name, version=prompt.version, text=prompt.text
        )
        with self._database.begin() as connection:
            connection.execute(row.on_conflict_do_nothing())

    def check_room(self, model: str, most: Amounts) -> None:
        """Raises BudgetError where a budget has no room for such a call. `begin` judges again, for good."""
        if self._budgets.are_set:
            with self._database.begin() as connection, suppress(HeldError):
                check_room(connection, self._budgets, self._attempt.video_id, model, most)

    def begin(self, model: str, request_sha256: str, prompt_sha256: str | None, most: Amounts = NOTHING) -> int:
        """Note that a call waits for its turn, or is on its way; its number. `most`: what it may take, reserved now.

        Raises BudgetError where a budget has no room for that, and HeldError where it may have some once other calls
        have ended; nothing is noted then.
        """
        row = insert(model_calls).values(
            video_id=self._attempt.video_id,
            asset=self._attempt.asset,
            attempt_id=self._attempt.attempt_id,
            model=model,
            request_sha256=request_sha256,
            prompt_sha256=prompt_sha256,
            outcome="open",
            **{f"reserved_{name}": value for name, value in asdict(most).items()},
        )
        with self._database.begin() as connection:
            if self._budgets.are_set:
                lock_budgets(connection, self._budgets, self._attempt.video_id)
                check_room(connection, self._budgets, self._attempt.video_id, model, most)
            number: int = connection.execute(row.returning(model_calls.c.call_id)).scalar_one()
        return number

    def note_sent(self, call_id: int) -> None:
        """The call goes out now: if nobody hears of its end, it has taken what was reserved."""
        here = model_calls.c.call_id == call_id
        with self._database.begin() as connection:
            connection.execute(model_calls.update().where(here).values(sent=True, started_at=func.clock_timestamp()))

    def keep(self, call_id: int, body: str, *, seconds: float, price: Price) -> StoredReply:
        """Keep the reply; what it says is not looked at. What is reserved for its tokens stays until `charge`."""
        text, cost, held = storable_text(body), price.of_time(seconds), _reserved_for_tokens(price)
        self._note(call_id, outcome="replied", reply=text, status=200, cost=cost, **held, **_took(seconds))
        self._spend(model_calls=1, model_seconds=seconds, model_cost=cost)
        return StoredReply(call_id, text, reused=False)

    def charge(self, reply: StoredReply, usage: Usage, price: Price) -> None:
        """Note the tokens that a call took, once its reply has told; done twice it changes nothing.

        Where the server does not count them, what was reserved for them counts as taken.
        """
        if not usage.is_known:
            return
        cost, time = usage.cost(price), func.coalesce(model_calls.c.seconds, 0) * price.per_hour / 3600
        tokens = {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
        self._note(reply.call_id, cost=time + cost, **tokens, **_NOTHING_RESERVED)
        if not reply.reused:
            self._spend(tokens_in=usage.tokens_in or 0, tokens_out=usage.tokens_out or 0, model_cost=cost)

    def refuse(self, call_id: int, error: BaseException) -> None:
        """The reply can't be used: it stays, and is not taken again."""
        self._note(call_id, outcome="refused", **_why(error))

    def fail(
        self,
        call_id: int,
        error: BaseException,
        *,
        seconds: float,
        price: Price = _FREE,
        made_nothing: bool = True,
        status: int | None = None,
    ) -> None:
        """No reply came; the time was taken all the same.

        Where the model may have made one, as before a deadline, what was reserved for its tokens counts as taken.
        """
        held = _NOTHING_RESERVED if made_nothing else _reserved_for_tokens(price)
        cost = price.of_time(seconds)
        self._note(call_id, outcome="failed", status=status, cost=cost, **held, **_took(seconds), **_why(error))
        self._spend(model_calls_failed=1)

    def withdraw(self, call_id: int) -> None:
        """The call was never made."""
        with self._database.begin() as connection:
            connection.execute(delete(model_calls).where(model_calls.c.call_id == call_id))

    def _spend(self, **more: float) -> None:
        self._spent.update(more)
        if self._measure:
            self._measure(**{name: round(value, 4) for name, value in self._spent.items()})

    def _note(self, call_id: int, **values: object) -> None:
        with self._database.begin() as connection:
            note_spent(connection, call_id, values)


_NOTHING_RESERVED: dict[str, object] = {"reserved_seconds": 0, "reserved_tokens": 0, "reserved_cost": 0}


def _reserved_for_tokens(price: Price) -> dict[str, object]:
    for_time = model_calls.c.reserved_seconds * price.per_hour / 3600
    return {"reserved_seconds": 0, "reserved_cost": func.greatest(0, model_calls.c.reserved_cost - for_time)}


def _took(seconds: float) -> dict[str, object]:
    # The row is older than the call: it waited for its turn.
    return {"seconds": seconds, "started_at": func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)}


def _why(error: BaseException) -> dict[str, object]:
    return {"class": classify(error).value, "cause": storable_text(reason(error))}
