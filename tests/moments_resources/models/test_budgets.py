"""Budgets on a real database: what is reserved, what is spent, and that many at once can't pass a limit together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moments_core.budget import Amounts, Budget, Budgets
from moments_core.errors import BudgetError, FailureClass, ServiceError, may_help_at_once
from moments_core.model_entry import Price
from moments_resources.catalogue import Catalogue
from moments_resources.database import Database
from moments_resources.models.budgets import HeldError
from moments_resources.models.calls import CallLedger, Usage

Sql = Callable[..., list[dict[str, Any]]]
Ledgers = Callable[..., CallLedger]

MOST = Amounts(seconds=60, tokens=1000, cost=0.5)
PRICE = Price(input_per_million=100, output_per_million=400, per_hour=360)  # 0.1 a second


@pytest.fixture
def ledger_of(database: Database, catalogue: Catalogue) -> Ledgers:
    """`ledger_of("web-1", day=…)`: the ledger of a new attempt at a video's moments."""

    def make(video_id: str = "web-1", **budgets: Budget) -> CallLedger:
        attempt = catalogue.history.open_attempt(video_id, "moments", run_id=f"run-{video_id}")
        return CallLedger(database, attempt, budgets=Budgets(**budgets))

    return make


def begin(ledger: CallLedger, most: Amounts = MOST) -> int:
    return ledger.begin("m", "0" * 64, None, most)


def replied(ledger: CallLedger, *, seconds: float = 2, tokens: int | None = 100) -> int:
    """A call from its beginning to its charge."""
    number = begin(ledger)
    reply = ledger.keep(number, "{}", seconds=seconds, price=PRICE)
    ledger.charge(reply, Usage(tokens, 0 if tokens is not None else None), PRICE)
    return number


def reserved(sql: Sql) -> list[tuple[float, int, float]]:
    rows = sql("select reserved_seconds, reserved_tokens, reserved_cost from model_calls order by call_id")
    return [tuple(row.values()) for row in rows]


# A video


def test_a_call_that_would_pass_the_budget_of_its_video_is_never_begun(ledger_of: Ledgers, sql: Sql) -> None:
    ledger = ledger_of(video=Budget(tokens=1050))
    replied(ledger, tokens=100)
    for refuse in (begin, lambda ledger: ledger.check_room("m", MOST)):
        with pytest.raises(BudgetError) as raised:
            refuse(ledger)
    assert str(raised.value) == (
        "MOMENTS_VIDEO_BUDGET allows a video tokens=1050, 100 of it is spent, and the next call of the model m may "
        "take 1,000: raise it, or choose another model."
    )
    assert raised.value.failure_class is FailureClass.BUDGET
    assert "not_before" not in raised.value.evidence
    assert not may_help_at_once(raised.value)
    assert len(sql("select 1 from model_calls")) == 1


@pytest.mark.parametrize("limit", [{"seconds": 61}, {"tokens": 1001}, {"cost": 0.51}])
def test_each_limit_counts_what_was_taken(ledger_of: Ledgers, limit: dict[str, Any]) -> None:
    ledger = ledger_of(video=Budget(**limit))
    replied(ledger, seconds=2, tokens=100)  # 0.21 in cost
    with pytest.raises(BudgetError, match=next(iter(limit))):
        begin(ledger)


def test_a_budget_is_that_of_one_video(ledger_of: Ledgers) -> None:
    replied(ledger_of("web-1", video=Budget(tokens=1050)))
    replied(ledger_of("web-2", video=Budget(tokens=1050)))


def test_a_call_waits_for_room_that_others_hold_and_may_leave(ledger_of: Ledgers, sql: Sql) -> None:
    ledger = ledger_of(video=Budget(tokens=1500))
    first = begin(ledger)
    with pytest.raises(HeldError):
        begin(ledger)
    ledger.check_room("m", MOST)  # there may be room by then
    ledger.fail(first, ServiceError("It is down."), seconds=1, price=PRICE)
    ledger.withdraw(begin(ledger))
    begin(ledger)
    assert reserved(sql) == [(0, 0, 0), (60, 1000, 0.5)]


def test_what_a_dead_process_has_reserved_counts_until_its_attempt_is_closed(ledger_of: Ledgers) -> None:
    died = ledger_of(video=Budget(tokens=1500), day=Budget(tokens=1500))
    begin(died)
    with pytest.raises(HeldError):
        begin(died)
    begin(ledger_of(video=Budget(tokens=1500), day=Budget(tokens=1500)))  # the next attempt closes the one before


@pytest.mark.parametrize("which", ["video", "day"])
@pytest.mark.parametrize("limit", ["tokens", "seconds", "cost"])
def test_a_call_that_a_dead_process_had_sent_has_taken_what_it_reserved(
    ledger_of: Ledgers, sql: Sql, which: str, limit: str
) -> None:
    budget = {which: Budget(**{limit: 1.5 * getattr(MOST, limit)})}
    died = ledger_of(**budget)
    number = begin(died)
    died.note_sent(number)
    with pytest.raises(HeldError):
        begin(died)
    again = ledger_of(**budget)
    for _ in range(2):
        with pytest.raises(BudgetError, match=f"{limit}=.* of it is spent"):
            begin(again)
    reply = died.keep(number, "{}", seconds=2, price=PRICE)  # it lived after all
    died.charge(reply, Usage(5, 1), PRICE)
    begin(again)
    assert sql("select seconds, tokens from spending") == [{"seconds": 2, "tokens": 6}]


def test_what_a_dead_process_had_sent_counts_on_the_day_of_its_call(ledger_of: Ledgers, sql: Sql) -> None:
    died = ledger_of(day=Budget(tokens=1500))
    number = begin(died)
    sql("update model_calls set started_at = started_at - interval '1 day'")  # it waited for its turn over midnight
    died.note_sent(number)
    with pytest.raises(BudgetError):
        begin(ledger_of(day=Budget(tokens=1500)))
    sql("update model_calls set started_at = started_at - interval '1 day'")
    begin(ledger_of(day=Budget(tokens=1500)))


@pytest.mark.parametrize("which", ["video", "day"])
def test_a_call_that_failed_after_the_model_may_have_replied_has_taken_its_tokens(
    ledger_of: Ledgers, sql: Sql, which: str
) -> None:
    ledger = ledger_of(**{which: Budget(tokens=1999)})
    number = begin(ledger, Amounts(60, 1000, 6.4))
    for _ in range(2):  # the answer to the first one may be lost
        ledger.fail(number, ServiceError("No answer."), seconds=60, price=PRICE, made_nothing=False)
    assert reserved(sql) == [(0, 1000, pytest.approx(0.4))]
    with pytest.raises(BudgetError, match="1,000 of it is spent"):
        begin(ledger)
    assert sql("select seconds, tokens, cost from spending") == [{"seconds": 60, "tokens": 0, "cost": 6}]


def test_a_call_that_fails_has_taken_its_time(ledger_of: Ledgers, sql: Sql) -> None:
    ledger = ledger_of(video=Budget(seconds=100))
    ledger.fail(begin(ledger), ServiceError("No answer."), seconds=60, price=PRICE)
    with pytest.raises(BudgetError, match="60 of it is spent"):
        begin(ledger)
    assert sql("select seconds, tokens, cost from spending") == [{"seconds": 60, "tokens": 0, "cost": 6}]


def test_until_a_server_has_counted_what_was_reserved_counts_as_taken(ledger_of: Ledgers, sql: Sql) -> None:
    """Replies are kept before they are read: a step's calls must not pass the budget in between."""
    for budget in ({"video": Budget(tokens=1999)}, {"day": Budget(tokens=1999)}):
        ledger = ledger_of(**budget)
        reply = ledger.keep(begin(ledger), "{}", seconds=2, price=PRICE)
        assert reserved(sql) == [(0, 1000, pytest.approx(0))]  # 60 s are dearer than all that was reserved
        with pytest.raises(BudgetError):
            begin(ledger)
        ledger.charge(reply, Usage(None, None), PRICE)
        with pytest.raises(BudgetError):
            begin(ledger)
        ledger.charge(reply, Usage(5, 1), PRICE)
        begin(ledger)
        sql("delete from model_calls")
        sql("delete from spending")


def test_what_is_reserved_for_tokens_stays_when_the_time_is_known(ledger_of: Ledgers, sql: Sql) -> None:
    ledger = ledger_of()
    ledger.keep(begin(ledger, Amounts(60, 1000, 6.4)), "{}", seconds=2, price=PRICE)
    assert reserved(sql) == [(0, 1000, pytest.approx(0.4))]


# A day


def test_a_call_that_would_pass_the_budget_of_the_day_goes_on_at_midnight(ledger_of: Ledgers) -> None:
    replied(ledger_of("web-1"), tokens=100)  # counted, though no budget was set
    with pytest.raises(BudgetError, match="MOMENTS_DAY_BUDGET allows a day tokens=1050") as raised:
        begin(ledger_of("web-2", day=Budget(tokens=1050)))
    assert "goes on after midnight UTC" in str(raised.value)
    not_before = datetime.fromisoformat(str(raised.value.evidence["not_before"]))
    assert not_before == datetime.combine(datetime.now(UTC).date(), datetime.min.time(), UTC) + timedelta(days=1)


def test_a_call_that_no_day_has_room_for_does_not_wait(ledger_of: Ledgers) -> None:
    with pytest.raises(BudgetError, match="choose another model") as raised:
        begin(ledger_of(day=Budget(cost=0.4)))
    assert "not_before" not in raised.value.evidence


def test_what_other_days_have_spent_is_theirs(ledger_of: Ledgers, sql: Sql) -> None:
    replied(ledger_of("web-1"), tokens=None)
    sql("update model_calls set started_at = started_at - interval '1 day'")
    sql("update spending set day = day - 1, tokens = 1000000")
    begin(ledger_of("web-2", day=Budget(tokens=1050)))


def test_open_calls_of_all_videos_count_whenever_they_began(ledger_of: Ledgers, sql: Sql) -> None:
    """One that was asked for before midnight is sent after it."""
    begin(ledger_of("web-1"))
    sql("update model_calls set started_at = started_at - interval '1 day'")
    with pytest.raises(HeldError):
        begin(ledger_of("web-2", day=Budget(tokens=1500)))


def test_a_day_s_spending_is_the_sum_of_its_calls_and_nothing_counts_twice(ledger_of: Ledgers, sql: Sql) -> None:
    ledger = ledger_of()
    number = begin(ledger)
    for _ in range(2):  # the answer to the first one may be lost
        reply = ledger.keep(number, "{}", seconds=2, price=PRICE)
    for _ in range(2):
        ledger.charge(reply, Usage(100, 50), PRICE)
    ledger.refuse(number, ServiceError("Rubbish."))
    ledger.fail(begin(ledger), ServiceError("It is down."), seconds=1, price=PRICE)
    (day,) = sql("select day, seconds, tokens, cost from spending")
    (calls,) = sql(
        "select (min(started_at) at time zone 'UTC')::date as day, sum(seconds) as seconds,"
        " sum(tokens_in + tokens_out) as tokens, sum(cost) as cost from model_calls"
    )
    assert day == {**calls, "cost": pytest.approx(calls["cost"])}
    assert (day["seconds"], day["tokens"], day["cost"]) == (3, 150, pytest.approx(0.3 + 0.01 + 0.02))


def test_a_day_keeps_what_a_video_took_that_is_taken_down(ledger_of: Ledgers, sql: Sql) -> None:
    replied(ledger_of("web-1"), tokens=100)
    sql("delete from model_calls where video_id = 'web-1'")
    with pytest.raises(BudgetError, match="100 of it is spent"):
        begin(ledger_of("web-2", day=Budget(tokens=1050)))


# Many at once


@pytest.mark.parametrize("which", ["video", "day"])
def test_eight_at_once_can_not_pass_a_limit_together(ledger_of: Ledgers, sql: Sql, which: str) -> None:
    room_for = 3
    budget = {which: Budget(tokens=1000 * room_for)}
    ledgers = [ledger_of(**budget)] * 8 if which == "video" else [ledger_of(f"web-{n}", **budget) for n in range(8)]
    start = threading.Barrier(len(ledgers))

    def try_one(ledger: CallLedger) -> bool:
        start.wait()
        try:
            begin(ledger)
        except HeldError:
            return False
        return True

    with ThreadPoolExecutor(len(ledgers)) as pool:
        for _ in range(5):
            assert sum(pool.map(try_one, ledgers)) == room_for
            sql("delete from model_calls")


def test_a_call_waits_while_another_process_judges_its_own(
    ledger_of: Ledgers, elsewhere: Callable[[str], Any], waiters: Callable[[], int], until: Callable[..., None]
) -> None:
    judging = elsewhere("""
from moments_core.budget import Budget, Budgets
from moments_resources.models.budgets import lock_budgets
with database.begin() as connection:
    lock_budgets(connection, Budgets(day=Budget(cost=1)), "web-1")
    print("judging", flush=True)
    time.sleep(600)
""")
    begin(ledger_of("web-2"))  # without a budget nobody waits for anybody
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(begin, ledger_of("web-3", day=Budget(cost=9)))
        until(waiters)
        judging.kill()
        assert begun.result(timeout=30) > 0


def test_a_process_that_is_frozen_while_it_judges_does_not_stop_the_others(
    ledger_of: Ledgers, changes_schema: None, sql: Sql
) -> None:
    """The server ends a session that says nothing in this transaction."""
    sql("create table seen (setting text)")
    sql(
        "create function see() returns trigger language plpgsql as $$ begin"
        " insert into seen values (current_setting('idle_in_transaction_session_timeout')); return new; end $$"
    )
    sql("create trigger see before insert on model_calls for each row execute function see()")
    begin(ledger_of(video=Budget(cost=9)))
    begin(ledger_of())
    assert [row["setting"] for row in sql("select setting from seen")] == ["10s", "0"]
