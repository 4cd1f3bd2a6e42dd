"""What a fault run says of itself: how long videos took to come forward, and whether enough was tried."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import text

from benchmarks.faults.verdict import shortfalls
from benchmarks.faults.watch import Watch, ended_at
from moments.services import Lakehouse
from moments_core.errors import MediaError
from moments_core.options import Options
from tests.moments.production import until

GOOD = {
    "planned": 40,
    "faults": 32,
    "kinds": 20,
    "submissions": 26,
    "files": 10,
    "budgets_passed": 0,
    "recovery_p95_s": 80.0,
}


def watched(lakehouse: Lakehouse) -> Watch:
    def rows(query: str, **parameters: object) -> list[dict[str, Any]]:
        with lakehouse.database.begin() as connection:
            return [dict(row) for row in connection.execute(text(query), parameters).mappings()]

    return Watch(rows)


def finish(lakehouse: Lakehouse, asset: str) -> None:
    lakehouse.history.close_reused(lakehouse.history.open_attempt("web-1", asset, run_id="run-1"))


def test_a_step_that_ended_before_the_strike_is_no_recovery_also_where_it_is_seen_after_it(
    lakehouse: Lakehouse,
) -> None:
    finish(lakehouse, "audio")
    struck = time.monotonic()
    with watched(lakehouse) as watch:
        until(lambda: watch.forward["web-1"])
        assert watch.recovery_s("web-1", struck, given_up=struck + 300) == 300
        finish(lakehouse, "transcript")
        came = time.monotonic()
        until(lambda: len(watch.forward["web-1"]) == 2)
    found = watch.recovery_s("web-1", struck, given_up=struck + 300)
    assert found is not None
    assert 0 < found <= came - struck


def test_a_video_whose_end_had_come_before_the_strike_has_nothing_to_recover(lakehouse: Lakehouse) -> None:
    row = lakehouse.intake.submit("https://example.org/v.mp4", Options(), submitted_by="test")
    video_id = str(row.video_id)
    attempt = lakehouse.history.open_attempt(video_id, "audio", run_id="run-1", intake_id=row.intake_id)
    lakehouse.history.close_failed(attempt, MediaError("Bad."), will_retry=False)
    struck = time.monotonic()
    with watched(lakehouse) as watch:
        until(lambda: watch.over[video_id])
    assert watch.recovery_s(video_id, struck, given_up=struck + 300) is None


@pytest.mark.parametrize(
    ("age", "when"),
    [
        pytest.param(0.3, 9.7, id="as it is"),
        pytest.param(120.0, 9.0, id="set forward meanwhile"),
        pytest.param(-20.0, 10.0, id="set back meanwhile"),
    ],
)
def test_a_clock_that_is_set_moves_no_end_beyond_two_looks(age: float, when: float) -> None:
    assert ended_at(age, now=10.0, earliest=9.0) == pytest.approx(when)


def test_a_run_that_tried_enough_is_not_short() -> None:
    assert list(shortfalls(GOOD, submissions=300, is_strict=True)) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"faults": 31}, "31 of 40 faults struck"),
        ({"kinds": 19}, "19 kinds"),
        ({"files": 0}, "no file"),
        ({"files": 26}, "no address"),
        ({"files": 0, "submissions": 0}, "no file"),
        ({"budgets_passed": None}, "budgets were not played"),
        ({"recovery_p95_s": 90.1}, "recovery_p95_s is 90.1"),
        ({"recovery_p95_s": None}, "recovery_p95_s is None"),
    ],
)
def test_a_run_that_tried_too_little_is_short(figures: dict[str, Any], words: str) -> None:
    found = list(shortfalls({**GOOD, **figures}, submissions=300, is_strict=True))
    assert words in found[0]


@pytest.mark.parametrize(
    "figures",
    [
        {"planned": 20, "faults": 16, "kinds": 16},
        {"budgets_passed": None},
        {"recovery_p95_s": 400.0},
    ],
)
def test_what_a_small_run_or_a_loaded_machine_lacks_does_not_fail_it(figures: dict[str, Any]) -> None:
    assert list(shortfalls({**GOOD, **figures}, submissions=20)) == []
