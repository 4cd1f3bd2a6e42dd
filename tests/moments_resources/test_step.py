from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import DIED, CheckError, FenceError, MediaError, NetworkError
from moments_resources.catalogue import Catalogue
from moments_resources.database import Database
from moments_resources.history import History
from moments_resources.step import Step

Sql = Callable[..., list[dict[str, Any]]]
NewStep = Callable[..., Step]
_HISTORY = "select attempt, outcome, class, cause from pipeline_history order by attempt"


@pytest.fixture
def is_free(database: Database, video_id: str) -> Callable[[], bool]:
    """Whether nobody's turn it is at the scene cuts of the video."""

    def ask() -> bool:
        with database.try_lock(f"step:{video_id}:scene_cuts") as ours:
            return ours

    return ask


def test_a_step_that_went_well_leaves_its_result_and_nothing_else(
    new_step: NewStep, scratch: Path, sql: Sql, is_free: Callable[[], bool]
) -> None:
    with new_step() as step:
        (step.folder() / "part").write_text("x")
        step.measure(cuts=1)
        assert not is_free()
        made = step.commit([{"time_ms": 1, "score": 1.0}])
    assert (made.inputs, made.measures, made.row_count) == ({}, {"cuts": 1}, 1)
    assert list(scratch.iterdir()) == []
    assert is_free()
    assert [row["outcome"] for row in sql(_HISTORY)] == ["completed"]


@pytest.mark.parametrize("error", [MediaError("Broken."), ValueError("x"), KeyboardInterrupt(), GeneratorExit()])
def test_a_step_that_failed_leaves_its_reason_and_nothing_else(
    new_step: NewStep, scratch: Path, sql: Sql, is_free: Callable[[], bool], error: BaseException
) -> None:
    def work() -> None:
        with new_step() as step:
            for name in ("a", "b"):
                (step.folder() / name).write_text("x")
            raise error

    with pytest.raises(type(error)):
        work()
    assert list(scratch.iterdir()) == []
    assert is_free()
    (row,) = sql(_HISTORY)
    assert row["outcome"] in {"failed", "cancelled"}
    assert row["cause"]


def test_each_folder_is_a_new_one(new_step: NewStep) -> None:
    with new_step() as step:
        assert step.folder() != step.folder()
        step.commit([])


@pytest.mark.parametrize(
    ("error", "retries_left", "outcome"),
    [
        (NetworkError("Away."), True, "retrying"),
        (NetworkError("Away."), False, "failed"),
        (MediaError("Broken."), True, "failed"),
    ],
)
def test_only_what_may_go_well_is_retried_and_only_while_retries_are_left(
    new_step: NewStep, sql: Sql, error: Exception, retries_left: bool, outcome: str
) -> None:
    with pytest.raises(type(error)), new_step(retries_left=retries_left):
        raise error
    assert [row["outcome"] for row in sql(_HISTORY)] == [outcome]


def test_a_step_ended_from_outside_is_over_though_its_block_goes_on(
    new_step: NewStep, scratch: Path, sql: Sql, is_free: Callable[[], bool]
) -> None:
    step = new_step()
    step.__enter__()
    step.folder()
    step.end(MediaError("Could not be written."))
    assert is_free()
    assert list(scratch.iterdir()) == []
    step.__exit__(GeneratorExit, GeneratorExit(), None)
    assert [(row["outcome"], row["cause"]) for row in sql(_HISTORY)] == [("failed", "Could not be written.")]
    with pytest.raises(FenceError):
        step.commit([])


def test_a_step_without_a_result_does_not_pass_for_done(
    new_step: NewStep, sql: Sql, is_free: Callable[[], bool]
) -> None:
    with pytest.raises(CheckError, match="without a result"), new_step():
        pass
    assert is_free()
    assert [row["outcome"] for row in sql(_HISTORY)] == ["failed"]


def test_a_step_that_keeps_the_current_version_says_so(new_step: NewStep, sql: Sql) -> None:
    with new_step() as step:
        made = step.commit([])
    with new_step() as step:
        assert step.current() == made
        step.reuse()
    assert [row["outcome"] for row in sql(_HISTORY)] == ["completed", "reused"]


def test_a_failure_that_can_not_be_recorded_goes_with_the_first_error(
    changes_schema: None, new_step: NewStep, scratch: Path, sql: Sql, is_free: Callable[[], bool]
) -> None:
    def work() -> None:
        with new_step() as step:
            step.folder()
            sql("alter table pipeline_history rename to elsewhere")
            raise MediaError("Broken.")

    with pytest.raises(MediaError, match="Broken") as caught:
        work()
    assert "could not be recorded" in caught.value.__notes__[0]
    assert list(scratch.iterdir()) == []
    assert is_free()


def test_a_step_that_can_not_open_its_attempt_gives_its_turn_back(
    changes_schema: None, new_step: NewStep, sql: Sql, is_free: Callable[[], bool]
) -> None:
    sql("alter table pipeline_history add constraint nobody check (run_id <> 'run-1')")
    with pytest.raises(Exception, match="nobody"), new_step():
        pytest.fail("it was opened")
    assert is_free()


def test_the_step_after_a_killed_process_closes_its_attempt_and_goes_on(
    new_step: NewStep, sql: Sql, video_id: str, elsewhere: Callable[..., subprocess.Popen[str]]
) -> None:
    first = elsewhere(
        "from moments_resources.history import History\n"
        "history = History(database)\n"
        f"with history.turn('{video_id}', 'scene_cuts'):\n"
        f"    history.open_attempt('{video_id}', 'scene_cuts', run_id='run-0')\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(600)\n"
    )
    first.kill()
    with new_step() as step:
        step.commit([])
    assert [(row["outcome"], row["cause"]) for row in sql(_HISTORY)] == [("failed", DIED), ("completed", None)]


def test_progress_is_written_once_a_second(new_step: NewStep, sql: Sql) -> None:
    def progress() -> float | None:
        shown: float | None = sql("select progress from pipeline_history")[0]["progress"]
        return shown

    with new_step() as step:
        step.progress(0.1)
        step._reported += 3600  # however slow this machine is, no second has passed
        step.progress(0.2)
        assert progress() == 0.1
        step._reported -= 7200
        step.progress_of(200)(60)
        assert progress() == 0.3
        step._reported -= 7200
        step.progress_of(0)(60)
        assert progress() == 0.0
        step.commit([])


def test_progress_that_can_not_be_written_ends_nothing(scratch: Path, new_step: NewStep) -> None:
    away = Catalogue(History(Database("postgresql://nobody@127.0.0.1:1/nowhere")))
    with new_step() as step:
        there, step._catalogue = step._catalogue, away
        step.progress(0.5)
        step._catalogue = there
        step.commit([])


def test_numbers_and_previews_are_kept_apart(new_step: NewStep) -> None:
    with new_step() as step:
        step.measure(cuts=2)
        step.show(preview="…")
        assert (step.measures, step.previews) == ({"cuts": 2}, {"preview": "…"})
        step.commit([])


def test_the_attempt_names_its_submission(new_step: NewStep, sql: Sql, catalogue: Catalogue) -> None:
    with new_step(intake_id=12) as step:
        step.commit([])
    assert sql("select intake_id, run_id from pipeline_history") == [{"intake_id": 12, "run_id": "run-1"}]
