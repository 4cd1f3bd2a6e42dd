"""A cancel that was not heeded is found: at once, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from benchmarks.faults.cancelling import broken, is_open, note_command, note_run, open_work
from benchmarks.faults.field import Field
from moments.services import Lakehouse
from moments_core.errors import CancelledError, TransientError
from moments_core.options import Options
from moments_resources.catalogue import Draft, Recipe
from moments_resources.history import Attempt
from moments_resources.stopping import stop

Rows = Callable[..., list[dict[str, Any]]]

ASSET = "scene_cuts"
OPEN_AGAIN = """
update pipeline_history set outcome = 'running', class = null, cause = null, ended_at = null where attempt_id = :number
"""


@pytest.fixture
def rows(lakehouse: Lakehouse) -> Rows:
    def ask(query: str, **parameters: object) -> list[dict[str, Any]]:
        with lakehouse.database.begin() as connection:
            result = connection.execute(text(query), parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return ask


@pytest.fixture
def struck(lakehouse: Lakehouse) -> Attempt:
    """An attempt that somebody works on."""
    row = lakehouse.intake.submit("https://example.org/v.mp4", Options(), submitted_by="test")
    assert row.video_id is not None
    return lakehouse.history.open_attempt(row.video_id, ASSET, run_id="run-1", intake_id=row.intake_id)


def seen(rows: Rows, attempt: Attempt) -> dict[str, Any]:
    """As Watch.victim tells of it."""
    return rows("select * from pipeline_history where attempt_id = :id", id=attempt.attempt_id)[0]


def cancel(lakehouse: Lakehouse, video_id: str) -> None:
    with lakehouse.database.begin() as connection:
        stop(connection, video_id, runs=["run-1"], by="test")


def test_a_cancel_that_was_heeded_is_fine(lakehouse: Lakehouse, rows: Rows, struck: Attempt) -> None:
    row = seen(rows, struck)
    cancel(lakehouse, struck.video_id)
    assert open_work(rows, row) == []
    assert broken(rows, note_command(rows, row)) == []


def test_work_that_a_cancel_left_open_is_found(rows: Rows, struck: Attempt) -> None:
    row = seen(rows, struck)
    assert open_work(rows, row) == [f"attempt {struck.attempt_id} of {struck.video_id} was cancelled and is open"]
    assert broken(rows, note_command(rows, row)) == [
        f"attempt {struck.attempt_id} of {struck.video_id} is running after its cancel",
        f"submission {row['intake_id']} is running after its cancel",
    ]


@pytest.mark.parametrize("run_id", ["run-1", "run-2"])
def test_an_attempt_that_begins_after_a_cancel_is_found(
    lakehouse: Lakehouse, rows: Rows, struck: Attempt, run_id: str
) -> None:
    """Of the run, or of the submission in another run; also when it is over by the time of the question."""
    row = seen(rows, struck)
    cancel(lakehouse, struck.video_id)
    cancelled = note_command(rows, row)
    rows("delete from cancellations")  # as if the gate did not look
    later = lakehouse.history.open_attempt(struck.video_id, ASSET, run_id=run_id, intake_id=row["intake_id"])
    lakehouse.history.close_reused(later)
    found = broken(rows, cancelled)
    assert f"attempt {later.attempt_id} of {struck.video_id} began after its cancel (reused)" in found


def test_a_result_that_is_committed_after_a_cancel_is_found(lakehouse: Lakehouse, rows: Rows, struck: Attempt) -> None:
    row = seen(rows, struck)
    cancel(lakehouse, struck.video_id)
    cancelled = note_command(rows, row)
    rows(OPEN_AGAIN, number=struck.attempt_id)  # as if nothing fenced it off
    lakehouse.catalogue.commit(Draft(struck, Recipe("1", {}), {}, [{"time_ms": 1, "score": 1.0}], 0.1))
    found = broken(rows, cancelled)
    assert f"attempt {struck.attempt_id} of {struck.video_id} committed after its cancel" in found


def test_a_result_from_before_a_cancel_stays(lakehouse: Lakehouse, rows: Rows, struck: Attempt) -> None:
    row = seen(rows, struck)
    lakehouse.catalogue.commit(Draft(struck, Recipe("1", {}), {}, [{"time_ms": 1, "score": 1.0}], 0.1))
    cancel(lakehouse, struck.video_id)
    assert broken(rows, note_command(rows, row)) == []


def test_a_submission_that_is_tried_again_after_its_run_was_cancelled_is_found(
    lakehouse: Lakehouse, rows: Rows, struck: Attempt
) -> None:
    row = seen(rows, struck)
    lakehouse.history.end_run("run-1", CancelledError("In the UI."), intake_id=row["intake_id"])
    cancelled = note_run(rows, row)
    assert broken(rows, cancelled) == []
    again = lakehouse.history.open_attempt(struck.video_id, ASSET, run_id="run-2", intake_id=row["intake_id"])
    assert f"attempt {again.attempt_id} of {struck.video_id} is running after its cancel" in broken(rows, cancelled)


def test_a_step_that_waits_for_its_retry_is_open_until_the_reaper_has_ended_the_cancelled_run(
    lakehouse: Lakehouse, rows: Rows, struck: Attempt
) -> None:
    """Other steps go on meanwhile, so the cancel meets one of those."""
    row = seen(rows, struck)
    run = {"run_id": "run-1", "intake_id": row["intake_id"]}
    waits = lakehouse.history.open_attempt(struck.video_id, "thumbnails", **run)
    lakehouse.history.close_failed(waits, TransientError("Busy."), will_retry=True)
    lakehouse.history.close_failed(struck, CancelledError("In the UI."), will_retry=False)
    assert is_open(rows, "run-1")
    assert broken(rows, note_run(rows, row)) == [f"submission {row['intake_id']} is running after its cancel"]
    lakehouse.history.end_run("run-1", CancelledError("In the UI."), intake_id=row["intake_id"])
    assert not is_open(rows, "run-1")
    assert broken(rows, note_run(rows, row)) == []


def test_a_step_that_was_tried_again_is_not_open(lakehouse: Lakehouse, rows: Rows, struck: Attempt) -> None:
    lakehouse.history.close_failed(struck, TransientError("Busy."), will_retry=True)
    intake_id = seen(rows, struck)["intake_id"]
    again = lakehouse.history.open_attempt(struck.video_id, ASSET, run_id="run-1", intake_id=intake_id)
    lakehouse.history.close_reused(again)
    assert not is_open(rows, "run-1")


def test_a_submission_whose_process_died_before_it_heard_of_the_cancel_is_tried_again(
    lakehouse: Lakehouse, rows: Rows, struck: Attempt
) -> None:
    row = seen(rows, struck)
    lakehouse.history.end_run("run-1", TransientError("It died."), intake_id=row["intake_id"])
    cancelled = note_run(rows, row)
    lakehouse.history.open_attempt(struck.video_id, ASSET, run_id="run-2", intake_id=row["intake_id"])
    assert broken(rows, cancelled) == []
    later = lakehouse.history.open_attempt(struck.video_id, "audio", run_id="run-1")
    assert f"attempt {later.attempt_id} of {struck.video_id} began after its cancel (running)" in broken(
        rows, cancelled
    )


def test_a_strike_at_postgresql_excuses_a_command_for_half_a_minute(tmp_path: Path) -> None:
    field = Field(cast("Any", SimpleNamespace(folder=tmp_path)), cast("Any", None))
    field.hit("worker_killed_in_moments")
    assert field.postgres_answered(since=0)
    field.hit("postgres_killed")
    at = field.struck[-1].at
    assert not field.postgres_answered(since=at - 1)
    assert not field.postgres_answered(since=at + 29)
    assert field.postgres_answered(since=at + 31)
