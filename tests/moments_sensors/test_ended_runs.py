"""A run that ends badly leaves nothing open: no attempt, and no submission that waits for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from moments.services import Lakehouse
from moments_assets.partitions import INTAKE_TAG
from moments_core.errors import CancelledError, MomentsError, TransientError
from moments_core.options import Options
from moments_resources.intake import IntakeRow
from moments_sensors.ended import close

URL = "https://example.org/v.mp4"


@pytest.fixture
def row(lakehouse: Lakehouse) -> IntakeRow:
    return lakehouse.intake.submit(URL, Options(), submitted_by="test")


@pytest.fixture
def run(row: IntakeRow) -> Iterator[dg.DagsterRun]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield dg.DagsterRun(job_name="process_video", run_id="run-1", tags={INTAKE_TAG: str(row.intake_id)})
        assert instance.get_runs() == []


def ended(lakehouse: Lakehouse, run: dg.DagsterRun, error: MomentsError) -> dict[str, Any]:
    close(lakehouse.catalogue, lakehouse.intake, run, error)
    with lakehouse.database.begin() as connection:
        query = text("select state, failed_asset, class, cause from intake_state")
        return dict(connection.execute(query).mappings().one())


def test_a_run_that_was_cancelled_in_the_queue_ends_its_submission(lakehouse: Lakehouse, run: dg.DagsterRun) -> None:
    assert ended(lakehouse, run, CancelledError("Cancelled.")) == {
        "state": "cancelled",
        "failed_asset": "raw_video",
        "class": "cancelled",
        "cause": "Cancelled.",
    }
    assert lakehouse.intake.waiting(10) == []


def test_a_run_that_died_at_work_closes_its_attempt_where_it_was(
    lakehouse: Lakehouse, row: IntakeRow, run: dg.DagsterRun
) -> None:
    lakehouse.catalogue.open_attempt(str(row.video_id), "audio", run_id="run-1", intake_id=row.intake_id)
    state = ended(lakehouse, run, TransientError("Died."))
    assert (state["state"], state["failed_asset"], state["class"]) == ("failed", "audio", "transient")


def test_a_failure_that_is_recorded_keeps_its_own_reason(
    lakehouse: Lakehouse, row: IntakeRow, run: dg.DagsterRun
) -> None:
    attempt = lakehouse.catalogue.open_attempt(str(row.video_id), "audio", run_id="run-1", intake_id=row.intake_id)
    lakehouse.catalogue.close_failed(attempt, TransientError("The disk is full."), will_retry=False)
    assert ended(lakehouse, run, TransientError("Died."))["cause"] == "The disk is full."


def test_a_run_that_nobody_submitted_is_closed_too(lakehouse: Lakehouse, row: IntakeRow) -> None:
    lakehouse.catalogue.open_attempt(str(row.video_id), "audio", run_id="run-2")
    close(lakehouse.catalogue, lakehouse.intake, dg.DagsterRun("__ASSET_JOB", "run-2"), TransientError("Died."))
    with lakehouse.database.begin() as connection:
        assert connection.scalar(text("select outcome from pipeline_history")) == "failed"
        assert connection.scalar(text("select state from intake_state")) == "waiting"
