"""A plan is decided by its seed, and every kind of fault that it names can be played."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from benchmarks.faults import on_processes, on_servers, on_work
from benchmarks.faults.plan import KINDS, OUTAGES, make_plan


def test_a_seed_decides_the_plan() -> None:
    assert make_plan(7, faults=40, submissions=30) == make_plan(7, faults=40, submissions=30)
    assert make_plan(7, faults=40, submissions=30) != make_plan(8, faults=40, submissions=30)


def test_each_kind_comes_as_often_as_any_other() -> None:
    counts = Counter(fault.kind for fault in make_plan(1, faults=400, submissions=300).faults)
    assert set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert sum(counts.values()) == 400


def test_every_kind_can_be_played() -> None:
    assert {**on_processes.faults(), **on_servers.faults(), **on_work.faults()}.keys() == set(KINDS)


def test_what_a_machine_can_not_play_is_not_planned() -> None:
    plan = make_plan(1, faults=40, submissions=30, without=["disk_full"])
    assert "disk_full" not in {fault.kind for fault in plan.faults}
    assert len(plan.faults) == 40


def test_everything_has_its_time_and_outages_are_apart() -> None:
    plan = make_plan(3, faults=40, submissions=30)
    times = [fault.at_s for fault in plan.faults]
    assert times == sorted(times)
    assert 0 <= min(times) <= max(times) <= plan.seconds
    assert all(submission.at_s <= plan.seconds for submission in plan.submissions)
    outages = [fault.at_s for fault in plan.faults if fault.kind in OUTAGES]
    assert all(second - first >= 5 for first, second in pairwise(outages))


def test_the_short_form_fits_into_its_five_minutes() -> None:
    """Half of them; the other half is for what comes after the plan: retries, the budgets, the stop."""
    assert make_plan(1, faults=40, submissions=20).seconds <= 150
