"""When somebody is told: after a bad state stayed, once a day, when other problems came, and when it is over."""

from __future__ import annotations

from collections.abc import Iterable

from moments_core.alerting import REMIND_S, REPORT_S, RETRY_S, Memory, State, decide, read_memory

BAD, WORSE, WELL = ("daemon",), ("daemon", "disk"), ()
WAIT_S = 300.0


def told(states: Iterable[tuple[float, tuple[str, ...]]], memory: Memory | None = None) -> list[tuple[float, State]]:
    """The alerts of looks at these times, each of which arrives; the memory travels as text."""
    alerts: list[tuple[float, State]] = []
    text = memory.dumps() if memory else None
    for now, kinds in states:
        decision = decide(read_memory(text), kinds, now=now, wait_s=WAIT_S)
        after = decision.memory
        if decision.alert:
            alerts.append((now, decision.alert))
            after = after.after_telling(decision.alert, now)
        text = after.dumps()
    return alerts


def minutes(count: int, kinds: tuple[str, ...], start: int = 0) -> list[tuple[float, tuple[str, ...]]]:
    return [(60.0 * minute, kinds) for minute in range(start, start + count)]


def test_a_bad_state_is_told_once_it_stayed_and_once_more_when_it_is_over() -> None:
    assert told([*minutes(30, BAD), *minutes(30, WELL, 30)]) == [(300.0, "unhealthy"), (1800.0, "healthy")]


def test_a_bad_state_that_passes_is_not_told() -> None:
    assert told([*minutes(4, BAD), *minutes(4, WELL, 4), *minutes(4, BAD, 8), *minutes(9, WELL, 12)]) == []


def test_problems_that_take_turns_are_a_bad_state_that_stays() -> None:
    turns = [(60.0 * minute, BAD if minute % 2 else WORSE) for minute in range(20)]
    assert told(turns) == [(300.0, "unhealthy")]


def test_other_problems_than_were_told_are_told_once_they_stayed() -> None:
    assert told([*minutes(10, BAD), *minutes(20, WORSE, 10)]) == [(300.0, "unhealthy"), (900.0, "unhealthy")]


def test_a_bad_state_is_told_again_every_day() -> None:
    day = int(REMIND_S / 60)
    alerts = told(minutes(2 * day + 30, BAD))
    assert [now for now, _ in alerts] == [300.0, 300.0 + REMIND_S, 300.0 + 2 * REMIND_S]


def test_an_alert_that_did_not_arrive_is_tried_again_a_while_later() -> None:
    first = decide(Memory(), BAD, now=0.0, wait_s=0.0)
    assert first.alert == "unhealthy"
    failed = first.memory.after_failing(0.0)
    assert [decide(failed, BAD, now=now, wait_s=0.0).alert for now in (60.0, RETRY_S)] == [None, "unhealthy"]
    assert decide(failed, WELL, now=RETRY_S, wait_s=0.0).alert is None  # nobody has heard of it


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    failed = decide(Memory(), BAD, now=1e9, wait_s=0.0).memory.after_failing(1e9)
    assert decide(failed, BAD, now=1e6, wait_s=WAIT_S).alert == "unhealthy"


def test_the_state_is_reported_when_it_changes_and_every_quarter_of_an_hour() -> None:
    memory, reports = Memory(), []
    for now, kinds in [*minutes(20, WELL), *minutes(5, BAD, 20)]:
        decision = decide(memory, kinds, now=now, wait_s=WAIT_S)
        memory = decision.memory
        reports += [now] if decision.report else []
    assert reports == [0.0, REPORT_S, 1200.0]


def test_a_memory_that_cannot_be_read_is_an_empty_one() -> None:
    for text in (None, "", "{", "[]", '"x"', '{"kinds": 3}', '{"no_such": 1}'):
        assert read_memory(text) == Memory()
