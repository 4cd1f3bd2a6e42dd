"""Work on a video begins at its gate; whoever stops the video shuts it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert

from moments_core.errors import CancelledError, PermanentError
from moments_resources import gate
from moments_resources.database import Database
from moments_resources.history import History
from moments_resources.tables import cancellations, tombstones

Sql = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def history(database: Database) -> History:
    return History(database)


def cancel(database: Database, video_id: str, **what: list[Any]) -> None:
    values = {"run_ids": [], "intake_ids": [], **what}
    with database.begin() as connection:
        connection.execute(insert(cancellations).values(video_id=video_id, cancelled_by="test", **values))


@pytest.mark.parametrize("what", [{"run_ids": ["other", "run-1"]}, {"intake_ids": [7, 8]}])
def test_nothing_begins_for_what_was_cancelled(
    database: Database, history: History, video_id: str, sql: Sql, what: dict[str, list[Any]]
) -> None:
    cancel(database, video_id, **what)
    with pytest.raises(CancelledError, match="submit it again"):
        history.open_attempt(video_id, "audio", run_id="run-1", intake_id=7)
    assert sql("select * from pipeline_history") == []


def test_other_runs_and_submissions_of_a_cancelled_video_begin(
    database: Database, history: History, video_id: str
) -> None:
    cancel(database, video_id, run_ids=["run-1"], intake_ids=[7])
    assert history.open_attempt(video_id, "audio", run_id="run-2", intake_id=8).number == 1
    assert history.open_attempt(video_id, "clips", run_id="run-3").number == 1


def test_nothing_begins_for_a_video_that_was_taken_down(database: Database, history: History, video_id: str) -> None:
    with database.begin() as connection:
        connection.execute(insert(tombstones).values(video_id=video_id, deleted_by="test"))
    with pytest.raises(PermanentError, match="--revive"):
        history.open_attempt(video_id, "audio", run_id="run-1")
    history.open_attempt("web-other", "audio", run_id="run-1")


def test_who_shuts_the_gate_sees_all_that_has_begun_and_nothing_begins_meanwhile(
    database: Database, history: History, video_id: str, sql: Sql, waiters: Callable[[], int], until: Any
) -> None:
    began: list[object] = []

    def begin() -> None:
        try:
            began.append(history.open_attempt(video_id, "audio", run_id="run-1"))
        except CancelledError as error:
            began.append(error)

    thread = threading.Thread(target=begin)
    with database.begin() as connection:
        gate.shut(connection, video_id)
        thread.start()
        until(lambda: waiters() == 1)
        assert sql("select * from pipeline_history") == []
        connection.execute(
            insert(cancellations).values(video_id=video_id, cancelled_by="test", run_ids=["run-1"], intake_ids=[])
        )
    thread.join()
    assert [type(result) for result in began] == [CancelledError]


def test_two_steps_of_a_video_go_through_the_gate_side_by_side(
    database: Database, history: History, video_id: str
) -> None:
    with database.begin() as connection:
        gate.enter(connection, video_id)
        history.open_attempt(video_id, "audio", run_id="run-1")
