"""Budgets: what a setting says, what fits, and the most that a call may take."""

from __future__ import annotations

from typing import Any

import pytest

from moments_core.budget import Amounts, Budget, Budgets, most_of_call, parse_budget
from moments_core.model_entry import ModelEntry, parse_entry


def chat(**fields: Any) -> ModelEntry:
    place = {"remote_host": "worker", "remote_port": 8000, "served_name": "m", "timeout_s": 60}
    return parse_entry("m", {"kind": "chat", **place, **fields})


def test_a_budget_limits_what_it_names_alone() -> None:
    assert parse_budget(" cost=2.5, tokens=200000 ") == Budget(tokens=200_000, cost=2.5)
    assert parse_budget("seconds=600") == Budget(seconds=600)
    assert parse_budget("") == Budget()


@pytest.mark.parametrize(
    "part",
    ["cost", "cost=", "=5", "cost=0", "cost=0.0", "cost=-1", "cost=nan", "cost=inf", "cost=1e3", "calls=5", "Cost=1",
     "tokens=1.5", "tokens=0", "cost=1;tokens=2", "tokens=1_000", "cost=1234567890123456"],
)  # fmt: skip
def test_a_part_that_is_no_limit_is_named(part: str) -> None:
    with pytest.raises(ValueError, match="is no limit such as") as raised:
        parse_budget(f"seconds=600,{part}")
    assert repr(part) in str(raised.value)


def test_a_limit_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'cost=2' is the second limit for cost"):
        parse_budget("cost=1,tokens=5,cost=2")


def test_a_budget_is_passed_by_more_than_it_allows_and_not_by_as_much() -> None:
    budget = Budget(seconds=600, tokens=1000, cost=1.0)
    assert budget.passed_by(Amounts(600, 1000, 1.0)) is None
    assert budget.passed_by(Amounts(600.1, 0, 0)) == "seconds"
    assert budget.passed_by(Amounts(0, 1001, 0)) == "tokens"
    assert budget.passed_by(Amounts(0, 0, 1.001)) == "cost"


def test_what_floats_add_to_a_sum_passes_no_limit() -> None:
    assert Budget(cost=0.3).passed_by(Amounts(cost=0.1) + Amounts(cost=0.2)) is None  # 0.30000000000000004


def test_without_a_limit_everything_fits() -> None:
    assert Budget().passed_by(Amounts(1e12, 10**12, 1e12)) is None
    assert not Budgets().are_set
    assert Budgets(day=Budget(cost=1)).are_set
    assert Budgets(video=Budget(tokens=1)).are_set


def test_a_call_may_take_its_prompt_its_longest_reply_and_its_whole_deadline() -> None:
    price = {"input_per_million": 1, "output_per_million": 10, "per_hour": 60}
    entry = chat(context_tokens=8192, defaults={"max_tokens": 1000}, price=price)
    most = most_of_call(entry, 5000)
    assert (most.seconds, most.tokens) == (60, 6000)
    assert most.cost == pytest.approx(5000e-6 + 1000e-5 + 1)


def test_prompt_and_reply_together_never_exceed_the_context() -> None:
    price = {"input_per_million": 1, "output_per_million": 10}
    entry = chat(context_tokens=8192, price=price)  # no max_tokens: what the prompt leaves
    most = most_of_call(entry, 5000)
    assert most.tokens == 8192
    assert most.cost == pytest.approx(8192e-5)  # a prompt that turns out short leaves all to the reply
    assert most_of_call(entry, 9000).tokens == 8192


def test_a_prompt_that_the_server_alone_can_count_may_fill_the_context() -> None:
    entry = chat(context_tokens=8192, defaults={"max_tokens": 1000}, price={"input_per_million": 1})
    most = most_of_call(entry, None)
    assert (most.tokens, most.cost) == (8192, pytest.approx(8192e-6))


def test_a_call_of_a_speech_model_takes_time_alone() -> None:
    entry = parse_entry(
        "p", {"kind": "asr", "remote_host": "w", "remote_port": 1, "timeout_s": 90, "price": {"per_hour": 4}}
    )
    assert most_of_call(entry, None) == Amounts(seconds=90, tokens=0, cost=0.1)
