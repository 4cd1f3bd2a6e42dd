"""A caller whose step has a budget: what is refused costs nothing, what fits is made, one by one if need be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from moments_core.budget import Amounts, Budget, Budgets
from moments_core.errors import BudgetError, MomentsError, NetworkError, ServiceError
from moments_core.model_entry import ModelEntry
from moments_resources.database import Database
from moments_resources.models.caller import ModelCaller
from moments_resources.models.calls import CallLedger
from moments_resources.models.chat import ChatModel, ChatRequest
from moments_resources.models.link import ModelLink
from moments_resources.step import Step
from moments_resources.turns import Turns
from tests.stand_ins import faults
from tests.stand_ins.http_exchange import Asked, Exchange, Reply
from tests.stand_ins.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

Question = Callable[..., ChatRequest]
Sql = Callable[..., list[dict[str, Any]]]
Ask = Callable[..., list[str]]


class UncommittedError(MomentsError):
    """Ends a step before its commit."""


@pytest.fixture
def ask(database: Database, new_step: Callable[..., Step]) -> Ask:
    """Asks all the questions in a step of its own that is not committed."""

    def asked(
        entry: ModelEntry, questions: list[ChatRequest], *, patience: Mapping[str, Any] | None = None, **budget: Any
    ) -> list[str]:
        with suppress(UncommittedError), new_step("moments") as step:
            ledger = CallLedger(database, step.attempt, budgets=Budgets(video=Budget(**budget)))
            link = step.hold(ModelLink(entry, connect_s=5))
            times = {"pauses_s": (0.02,) * 4, **(patience or {})}
            caller = ModelCaller(entry, link=link, database=database, ledger=ledger, **times)
            said = [reply.text for reply in ChatModel(caller).ask_all(questions)]
            raise UncommittedError("a crash")
        return said

    return asked


def test_calls_that_fit_one_after_the_other_are_made_one_after_the_other(
    model_server: ModelServer, ask: Ask, question: Question
) -> None:
    """Each may take a minute of the 90 s, and takes no time."""
    entry = model_server.entry(timeout_s=60, parallel=4)
    assert len(ask(entry, [question(f"number {n}") for n in range(4)], seconds=90)) == 4
    assert model_server.most_at_once == 1


def test_a_call_without_room_opens_no_way_and_prepares_nothing(
    model_server: ModelServer, ask: Ask, question: Question, sql: Sql
) -> None:
    prepared: list[str] = []

    def messages() -> list[dict[str, object]]:
        prepared.append("encoded")
        return [{"role": "user", "content": "a clip"}]

    shown = ChatRequest(question().prompt, messages, question().schema, identity={"clip": "1"})
    with pytest.raises(BudgetError, match="may take 8,192"):
        ask(model_server.entry(context_tokens=8192), [shown], tokens=8191)
    assert (model_server.asked, model_server.looked, prepared) == ([], [], [])
    assert sql("select 1 from model_calls") == []


def test_the_second_call_is_refused_before_it_is_prepared(
    model_server: ModelServer, ask: Ask, question: Question, sql: Sql
) -> None:
    prepared: list[int] = []

    def shown(number: int) -> ChatRequest:
        def messages() -> list[dict[str, object]]:
            prepared.append(number)
            return [{"role": "user", "content": f"clip {number}"}]

        return ChatRequest(question().prompt, messages, question().schema, identity={"clip": number})

    with pytest.raises(BudgetError):
        ask(model_server.entry(context_tokens=8192), [shown(1), shown(2)], tokens=8193)
    assert (len(model_server.asked), prepared) == (1, [1])
    assert [row["outcome"] for row in sql("select outcome from model_calls")] == ["replied"]


def test_a_reply_that_is_there_is_never_refused(model_server: ModelServer, ask: Ask, question: Question) -> None:
    entry = model_server.entry(context_tokens=8192)
    first = ask(entry, [question()], tokens=8192)
    assert ask(entry, [question()], tokens=1) == first
    assert len(model_server.asked) == 1


def test_tokens_are_counted_as_each_reply_comes(model_server: ModelServer, ask: Ask, question: Question) -> None:
    """Ten calls that may take 1,100 each fit into 3,000: each takes some 20."""
    entry = model_server.entry(context_tokens=8192, defaults={"max_tokens": 1000})
    assert len(ask(entry, [question(f"number {n}") for n in range(10)], tokens=3000)) == 10


def test_a_reply_that_is_not_whole_has_taken_what_it_might(
    model_server: ModelServer, ask: Ask, question: Question, sql: Sql
) -> None:
    model_server.faults.append(lambda exchange: exchange.send(Reply(200, b'{"rubbish": true')))
    entry = model_server.entry(context_tokens=8192)
    with pytest.raises(MomentsError):
        ask(entry, [question()], tokens=10_000)
    assert [row["outcome"] for row in sql("select outcome from model_calls")] == ["refused"]
    with pytest.raises(BudgetError):
        ask(entry, [question()], tokens=10_000)
    assert len(model_server.asked) == 1


ONE_CALL = {"context_tokens": 8192, "timeout_s": 0.5}


@pytest.mark.parametrize("fault", [faults.hang, faults.slow_drip, faults.broken_off, faults.reset])
def test_a_call_that_was_sent_and_not_answered_has_taken_what_it_might(
    model_server: ModelServer, ask: Ask, question: Question, fault: faults.Fault
) -> None:
    model_server.faults.append(fault)
    with pytest.raises(BudgetError, match="8,192 of it is spent"):
        ask(model_server.entry(**ONE_CALL), [question()], tokens=10_000)
    assert len(model_server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_call_that_was_answered_with_a_failure_has_taken_no_tokens(
    model_server: ModelServer, ask: Ask, question: Question, status: int
) -> None:
    model_server.faults.append(faults.status(status))
    assert ask(model_server.entry(**ONE_CALL), [question()], tokens=10_000)


def test_a_call_that_reached_nobody_has_taken_no_tokens(ask: Ask, question: Question, sql: Sql) -> None:
    with ModelServer() as server:

        def messages() -> list[dict[str, object]]:
            server.close()  # the way to it was opened before
            return [{"role": "user", "content": "a clip"}]

        shown = ChatRequest(question().prompt, messages, question().schema, identity={"clip": "1"})
        with pytest.raises(NetworkError):
            ask(server.entry(**ONE_CALL), [shown], tokens=10_000)
    assert sql("select outcome, reserved_tokens from model_calls") == [{"outcome": "failed", "reserved_tokens": 0}]


def test_a_call_is_noted_as_sent_when_it_goes_out_and_not_while_it_waits_for_its_turn(
    ask: Ask, question: Question, database: Database, sql: Sql, until: Callable[..., None]
) -> None:
    seen: list[Any] = []

    def answer(_: Asked) -> str:
        seen.extend(sql("select sent, outcome from model_calls"))
        return "{}"

    with ModelServer(answer=answer) as server, ThreadPoolExecutor(1) as pool:
        with Turns(database).turn("model:stand-in", 1):
            asking = pool.submit(ask, server.entry(parallel=1), [question()])
            until(lambda: sql("select 1 from model_calls"))
            assert sql("select sent from model_calls") == [{"sent": False}]
        assert asking.result(timeout=30) == ["{}"]
    assert seen == [{"sent": True, "outcome": "open"}]


@pytest.fixture
def database_goes(server: str, changes_schema: None, database: Database) -> Iterator[Callable[..., faults.Fault]]:
    """`database_goes(fault, for_s=1)`: the fault, and nobody reaches the database for so long."""
    name = make_url(database.url).database
    as_superuser = create_engine(server, isolation_level="AUTOCOMMIT")
    timers: list[threading.Timer] = []

    def let_in(allowed: str) -> None:
        with as_superuser.connect() as connection:
            connection.execute(text(f'alter database "{name}" allow_connections {allowed}'))
            ended = f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'"  # noqa: S608
            connection.execute(text(ended))

    def make(fault: faults.Fault, *, for_s: float) -> faults.Fault:
        def play(exchange: Exchange) -> None:
            let_in("false")
            timers.append(threading.Timer(for_s, let_in, ["true"]))
            timers[-1].name = "stand-in for a restart"
            timers[-1].start()
            fault(exchange)

        return play

    yield make
    for timer in timers:
        timer.join()
    as_superuser.dispose()


def test_a_call_does_not_wait_for_room_that_its_own_last_try_held(
    model_server: ModelServer, ask: Ask, question: Question, database_goes: Callable[..., faults.Fault], sql: Sql
) -> None:
    """It fails while PostgreSQL restarts, and there is room for one call."""
    model_server.faults.append(database_goes(faults.status(500), for_s=0.7))
    patience = {"pauses_s": (1.5,), "patience_s": 2}
    assert ask(model_server.entry(timeout_s=1), [question()], patience=patience, seconds=1.9)
    assert [row["outcome"] for row in sql("select outcome from model_calls order by call_id")] == ["failed", "replied"]


def test_a_call_whose_end_can_not_be_noted_ends_its_step(
    model_server: ModelServer, ask: Ask, question: Question, database_goes: Callable[..., faults.Fault], sql: Sql
) -> None:
    """The step's end closes the attempt, and with it the reservation; the pause outlasts the restart."""
    model_server.faults.append(database_goes(faults.status(500), for_s=2.5))
    patience = {"patience_s": 0.5, "pauses_s": (3.0,)}
    with pytest.raises(ServiceError, match="PostgreSQL does not answer"):
        ask(model_server.entry(timeout_s=1), [question()], patience=patience, seconds=1.9)
    assert len(model_server.asked) == 1


def test_waiting_for_room_that_others_hold_has_an_end(
    model_server: ModelServer, ask: Ask, question: Question, new_step: Callable[..., Step], database: Database
) -> None:
    with suppress(UncommittedError), new_step("refined_moments") as step:
        CallLedger(database, step.attempt).begin("m", "0" * 64, None, Amounts(seconds=60))
        with pytest.raises(ServiceError, match=r"have held the rest of a budget for 1 s, .* run this again"):
            ask(model_server.entry(timeout_s=0.4), [question()], patience={"patience_s": 0.2}, seconds=60)
        raise UncommittedError("a crash")
    assert model_server.asked == []
