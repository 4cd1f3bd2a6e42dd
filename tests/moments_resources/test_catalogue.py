from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from moments_core.errors import (
    DIED,
    CancelledError,
    FenceError,
    MediaError,
    NetworkError,
    PermanentError,
    TransientError,
)
from moments_resources.catalogue import Artifact, Catalogue, Draft, Recipe, canonical_sha256
from moments_resources.history import Attempt, evidence_of

Sql = Callable[..., list[dict[str, Any]]]
Commit = Callable[..., Artifact]
RECIPE = Recipe("1", {"maker": "test"})


@pytest.fixture
def attempt(catalogue: Catalogue, video_id: str) -> Attempt:
    return catalogue.history.open_attempt(video_id, "scene_cuts", run_id="run-1")


def draft(attempt: Attempt, *times: int, **more: Any) -> Draft:
    rows = [{"time_ms": time, "score": 1.0} for time in times]
    return Draft(attempt, more.pop("recipe", RECIPE), more.pop("inputs", {}), more.pop("rows", rows), 0.1, **more)


def nothing_is_kept(sql: Sql) -> bool:
    tables = ("versions.scene_cuts", "artifacts", "generation_configs")
    return all(sql(f"select * from {table}") == [] for table in tables)  # noqa: S608


def test_a_commit_is_rows_an_artifact_and_the_end_of_the_attempt(
    catalogue: Catalogue, attempt: Attempt, sql: Sql
) -> None:
    _input(catalogue, attempt.video_id)
    shown = {"measures": {"cuts": 2}, "previews": {"preview": "**2** cuts"}}
    made = catalogue.commit(draft(attempt, 10, 20, inputs={"raw_video": 1}, **shown))
    assert (made.version, made.row_count, made.inputs, made.measures) == (1, 2, {"raw_video": 1}, {"cuts": 2})
    assert made.previews == {"preview": "**2** cuts"}
    assert catalogue.current(attempt.video_id, "scene_cuts") == made
    assert catalogue.rows(made) == [{"time_ms": 10, "score": 1.0}, {"time_ms": 20, "score": 1.0}]
    query = "select outcome, ended_at is null as is_open, attempt from pipeline_history where asset = 'scene_cuts'"
    assert sql(query) == [{"outcome": "completed", "is_open": False, "attempt": 1}]


def test_the_artifact_says_what_its_hash_was_made_from(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    catalogue.commit(draft(attempt, 10))
    row = sql("select config, config_hash from artifacts")[0]
    assert canonical_sha256(row["config"]) == row["config_hash"] == RECIPE.sha256


def test_a_result_without_rows_is_a_result(catalogue: Catalogue, attempt: Attempt) -> None:
    made = catalogue.commit(draft(attempt))
    assert (made.row_count, catalogue.rows(made)) == (0, [])


def test_a_new_version_supersedes_and_the_old_one_stays(
    catalogue: Catalogue, commit: Commit, video_id: str, sql: Sql
) -> None:
    versions = [commit([{"time_ms": time, "score": 1.0}]) for time in (10, 20, 30)]
    assert [made.version for made in versions] == [1, 2, 3]
    assert catalogue.current(video_id, "scene_cuts") == versions[2]
    assert [catalogue.rows(made)[0]["time_ms"] for made in versions] == [10, 20, 30]
    current = sql("select version, superseded_at is null as current from artifacts order by version")
    assert [row["current"] for row in current] == [False, False, True]


def test_two_current_versions_can_not_be_written(commit: Commit, sql: Sql) -> None:
    commit([])
    commit([])
    with pytest.raises(IntegrityError, match="artifacts_current"):
        sql("update artifacts set superseded_at = null")


def test_versions_are_counted_for_each_video_and_asset(commit: Commit, catalogue: Catalogue, video_id: str) -> None:
    assert [commit([], video_id=other).version for other in (video_id, "web-2", video_id)] == [1, 1, 2]
    assert commit([], asset="thumbnails").version == 1
    assert catalogue.current("web-3", "scene_cuts") is None


# The fence


def superseded(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.open_attempt(attempt.video_id, attempt.asset, run_id="run-2")


def failed(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.close_failed(attempt, MediaError("Broken."), will_retry=False)


def retrying(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.close_failed(attempt, NetworkError("Away."), will_retry=True)


def cancelled(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.close_failed(attempt, CancelledError("Stopped."), will_retry=False)


def buried(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.close_run(attempt.run_id, TransientError(DIED))


@pytest.mark.parametrize("ended_by", [superseded, failed, retrying, cancelled, buried])
def test_an_attempt_that_is_over_may_not_commit(
    catalogue: Catalogue, attempt: Attempt, sql: Sql, ended_by: Callable[[Catalogue, Attempt], None]
) -> None:
    ended_by(catalogue, attempt)
    with pytest.raises(FenceError, match="not kept"):
        catalogue.commit(draft(attempt, 10))
    assert nothing_is_kept(sql)
    assert catalogue.current(attempt.video_id, attempt.asset) is None


def test_an_attempt_commits_once(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    made = catalogue.commit(draft(attempt, 10))
    with pytest.raises(FenceError):
        catalogue.commit(draft(attempt, 20))
    assert catalogue.current(attempt.video_id, attempt.asset) == made
    assert sql("select time_ms from versions.scene_cuts") == [{"time_ms": 10}]


def test_an_overtaken_attempt_leaves_the_current_version_as_it_is(catalogue: Catalogue, attempt: Attempt) -> None:
    newer = catalogue.history.open_attempt(attempt.video_id, attempt.asset, run_id="run-2")
    made = catalogue.commit(draft(newer, 10))
    with pytest.raises(FenceError):
        catalogue.commit(draft(attempt, 20))
    assert catalogue.current(attempt.video_id, attempt.asset) == made


def test_an_attempt_at_a_video_that_was_deleted_meanwhile_may_not_commit(
    catalogue: Catalogue, attempt: Attempt, sql: Sql
) -> None:
    sql("delete from pipeline_history")
    with pytest.raises(FenceError):
        catalogue.commit(draft(attempt, 10))
    assert nothing_is_kept(sql)


def test_attempts_at_other_videos_and_assets_are_left_alone(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.open_attempt(attempt.video_id, "thumbnails", run_id="run-2")
    catalogue.history.open_attempt("web-2", attempt.asset, run_id="run-2")
    assert catalogue.commit(draft(attempt, 10)).version == 1


@pytest.fixture
def stalling(changes_schema: None, sql: Sql) -> str:
    """Name of an advisory lock at which every commit stops, its rows written, as long as somebody holds it."""
    sql(
        "create function stall() returns trigger language plpgsql as $$"
        " begin perform pg_advisory_xact_lock(7); return new; end $$"
    )
    sql("create trigger stall before insert on artifacts for each row execute function stall()")
    return "select pg_advisory_xact_lock(7)"


def test_a_reader_sees_the_old_version_until_the_new_one_is_whole(
    catalogue: Catalogue,
    commit: Commit,
    video_id: str,
    sql: Sql,
    stalling: str,
    waiters: Callable[[], int],
    until: Callable[..., None],
) -> None:
    old = commit([{"time_ms": 10, "score": 1.0}])
    newer = catalogue.history.open_attempt(video_id, "scene_cuts", run_id="run-2")
    thread = threading.Thread(target=catalogue.commit, args=[draft(newer, 20, 30)])
    with catalogue.database.begin() as connection:
        connection.exec_driver_sql(stalling)
        thread.start()
        until(lambda: waiters() == 1)
        assert catalogue.current(video_id, "scene_cuts") == old
        assert sql("select time_ms from scene_cuts") == [{"time_ms": 10}]
    thread.join()
    assert sql("select time_ms from scene_cuts order by 1") == [{"time_ms": 20}, {"time_ms": 30}]


def test_a_commit_that_has_begun_is_not_overtaken(
    catalogue: Catalogue, attempt: Attempt, stalling: str, waiters: Callable[[], int], until: Callable[..., None]
) -> None:
    committing = threading.Thread(target=catalogue.commit, args=[draft(attempt, 10)])
    overtaking = threading.Thread(target=superseded, args=[catalogue, attempt])
    with catalogue.database.begin() as connection:
        connection.exec_driver_sql(stalling)
        committing.start()
        until(lambda: waiters() == 1)
        overtaking.start()
        until(lambda: waiters() == 2)
    committing.join()
    overtaking.join()
    current = catalogue.current(attempt.video_id, attempt.asset)
    assert current is not None
    assert current.attempt_id == attempt.attempt_id


# One transaction


@pytest.mark.parametrize(
    "bad",
    [
        {"time_ms": None, "score": 1.0},
        {"time_ms": 10, "score": 1.0},  # the key of a row before it
        {"time_ms": 1 << 70, "score": 1.0},
        {"time_ms": "soon", "score": 1.0},
    ],
)
def test_one_bad_row_leaves_nothing_of_a_commit(
    catalogue: Catalogue, attempt: Attempt, sql: Sql, bad: dict[str, Any]
) -> None:
    with pytest.raises(DBAPIError):
        catalogue.commit(draft(attempt, rows=[{"time_ms": 10, "score": 1.0}, bad]))
    assert nothing_is_kept(sql)
    assert sql("select outcome from pipeline_history") == [{"outcome": "running"}]


def test_a_commit_that_fails_leaves_the_current_version_current(
    catalogue: Catalogue, commit: Commit, video_id: str
) -> None:
    old = commit([{"time_ms": 10, "score": 1.0}])
    newer = catalogue.history.open_attempt(video_id, "scene_cuts", run_id="run-2")
    with pytest.raises(DBAPIError):
        catalogue.commit(draft(newer, 20, 20))
    assert catalogue.current(video_id, "scene_cuts") == old
    assert catalogue.commit(draft(newer, 20)).version == 2


def test_rows_come_back_in_time_order_whatever_they_are_called(
    catalogue: Catalogue, commit: Commit, moment_rows: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = moment_rows(RECIPE, 3)
    made = commit(rows[::-1], "moments")
    assert catalogue.rows(made) == rows


def test_the_way_in_which_moments_were_found_is_stored_once(
    commit: Commit, sql: Sql, moment_rows: Callable[..., list[dict[str, Any]]]
) -> None:
    commit([], recipe=Recipe("1", {"what": "scene cuts, no moments"}))
    for video_id in ("web-1", "web-2"):
        commit(moment_rows(RECIPE), "moments", video_id=video_id)
    assert sql("select sha256, config from generation_configs") == [
        {"sha256": RECIPE.sha256, "config": {"code_version": "1", "maker": "test"}}
    ]


# Reuse


def test_an_equal_recipe_and_equal_inputs_make_an_equal_result(catalogue: Catalogue, attempt: Attempt) -> None:
    recipe = Recipe("1", {"options": {"a": 1, "b": 2}, "makers": {}})
    for asset in ("raw_video", "audio", "audio"):
        _input(catalogue, attempt.video_id, asset)
    made = catalogue.commit(draft(attempt, 10, recipe=recipe, inputs={"raw_video": 1, "audio": 2}))
    same = Recipe("1", {"makers": {}, "options": {"b": 2, "a": 1}})
    assert made.is_made_by(same, {"audio": 2, "raw_video": 1})


@pytest.mark.parametrize(
    ("recipe", "inputs"),
    [
        (Recipe("2", {"options": {"a": 1}}), {"raw_video": 1}),
        (Recipe("1", {"options": {"a": 2}}), {"raw_video": 1}),
        (Recipe("1", {}), {"raw_video": 1}),
        (Recipe("1", {"options": {"a": 1}}), {"raw_video": 2}),
        (Recipe("1", {"options": {"a": 1}}), {"raw_video": 1, "audio": 1}),
        (Recipe("1", {"options": {"a": 1}}), {}),
    ],
)
def test_another_recipe_or_input_makes_another_result(recipe: Recipe, inputs: dict[str, int]) -> None:
    base = Recipe("1", {"options": {"a": 1}})
    made = Artifact("v", "moments", 1, 1, base.sha256, {"raw_video": 1}, (), 0, {}, {}, 0.0)
    assert made.is_made_by(base, {"raw_video": 1})
    assert not made.is_made_by(recipe, inputs)


def test_a_result_whose_input_was_made_anew_meanwhile_is_not_kept(catalogue: Catalogue, attempt: Attempt) -> None:
    _input(catalogue, attempt.video_id)
    _input(catalogue, attempt.video_id)
    with pytest.raises(TransientError, match="raw_video changed"):
        catalogue.commit(draft(attempt, 10, inputs={"raw_video": 1}))
    assert catalogue.current(attempt.video_id, "scene_cuts") is None


def _input(catalogue: Catalogue, video_id: str, asset: str = "raw_video") -> None:
    """Make the next version of another asset; without rows, which is all the same here."""
    attempt = catalogue.history.open_attempt(video_id, asset, run_id="run-0")
    catalogue.commit(Draft(attempt, RECIPE, {}, [], 0.1))


# Turns and the history


def test_the_next_process_gets_its_turn_when_the_first_is_gone(
    catalogue: Catalogue,
    video_id: str,
    elsewhere: Callable[..., subprocess.Popen[str]],
    waiters: Callable[[], int],
    until: Callable[..., None],
) -> None:
    entered = threading.Event()

    def second() -> None:
        with catalogue.history.turn(video_id, "scene_cuts"):
            entered.set()

    first = elsewhere(f"with database.lock('step:{video_id}:scene_cuts'): print('mine', flush=True); time.sleep(600)")
    thread = threading.Thread(target=second)
    thread.start()
    until(lambda: waiters() == 1)
    assert not entered.is_set()
    first.kill()
    thread.join()
    assert entered.is_set()


def test_turns_of_other_videos_and_assets_are_not_waited_for(catalogue: Catalogue, video_id: str) -> None:
    with (
        catalogue.history.turn(video_id, "audio"),
        catalogue.history.turn(video_id, "moments"),
        catalogue.history.turn("web-2", "audio"),
    ):
        pass


def test_an_attempt_left_open_is_closed_as_died_by_the_next_one(
    catalogue: Catalogue, attempt: Attempt, sql: Sql
) -> None:
    newer = catalogue.history.open_attempt(attempt.video_id, attempt.asset, run_id="run-2")
    assert newer.number == 2
    assert sql("select attempt, outcome, class, cause from pipeline_history order by attempt") == [
        {"attempt": 1, "outcome": "failed", "class": "transient", "cause": DIED},
        {"attempt": 2, "outcome": "running", "class": None, "cause": None},
    ]


def test_an_end_is_kept_once(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    catalogue.history.close_failed(attempt, MediaError("The first.", stream=3), will_retry=False)
    catalogue.history.close_failed(attempt, MediaError("The second."), will_retry=False)
    row = sql("select outcome, class, cause, evidence, seconds >= 0 as timed from pipeline_history")[0]
    assert row == {
        "outcome": "failed",
        "class": "permanent",
        "cause": "The first.",
        "evidence": {"error": "MediaError", "stream": 3},
        "timed": True,
    }


@pytest.mark.parametrize(
    ("error", "will_retry", "outcome", "failure_class"),
    [
        (NetworkError("x"), True, "retrying", "transient"),
        (NetworkError("x"), False, "failed", "transient"),
        (KeyboardInterrupt(), False, "cancelled", "cancelled"),
        (ValueError("x"), False, "failed", "permanent"),
    ],
)
def test_the_outcome_of_a_failure(
    catalogue: Catalogue,
    attempt: Attempt,
    sql: Sql,
    error: BaseException,
    will_retry: bool,
    outcome: str,
    failure_class: str,
) -> None:
    catalogue.history.close_failed(attempt, error, will_retry=will_retry)
    assert sql("select outcome, class from pipeline_history") == [{"outcome": outcome, "class": failure_class}]


def test_a_hostile_reason_is_kept_all_the_same(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    name = "talk\udcff\0.mp4"
    error = MediaError(f"{name} is broken. " + "x" * 10_000, name=name, ratio=float("nan"), log="y" * 10_000)
    catalogue.history.close_failed(attempt, error, will_retry=False)
    row = sql("select cause, evidence from pipeline_history")[0]
    assert row["cause"].startswith("talk?\ufffd.mp4 is broken.")
    assert len(row["cause"]) == 2000
    assert (row["evidence"]["name"], row["evidence"]["ratio"]) == ("talk?\ufffd.mp4", None)
    assert len(row["evidence"]["log"]) == 4000


def test_the_evidence_names_what_caused_an_error() -> None:
    error = MediaError("Broken.", stream=1)
    error.__cause__ = EOFError()
    assert evidence_of(error) == {"error": "MediaError", "caused_by": "EOFError", "stream": 1}


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("outcome = 'failed', ended_at = now()", "failure_is_explained"),
        ("outcome = 'failed', ended_at = now(), class = 'permanent'", "failure_is_explained"),
        ("outcome = 'cancelled', ended_at = now(), cause = 'x'", "failure_is_explained"),
        ("outcome = 'retrying', ended_at = now(), cause = 'x'", "failure_is_explained"),
        ("outcome = 'failed', class = 'permanent', cause = 'x'", "running_is_open"),
        ("ended_at = now()", "running_is_open"),
        ("outcome = 'lost', ended_at = now()", "history_outcome"),
        ("class = 'odd'", "history_class"),
    ],
)
def test_the_history_takes_no_end_that_is_unexplained(attempt: Attempt, sql: Sql, change: str, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        sql(f"update pipeline_history set {change}")  # noqa: S608


def test_no_attempt_has_the_number_of_another(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    superseded(catalogue, attempt)
    with pytest.raises(IntegrityError, match="pipeline_history_attempt"):
        sql("update pipeline_history set attempt = 1")


def test_a_dead_run_is_closed_and_no_other(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    waiting = catalogue.history.open_attempt(attempt.video_id, "audio", run_id="run-1")
    catalogue.history.close_failed(waiting, NetworkError("x"), will_retry=True)
    catalogue.history.open_attempt(attempt.video_id, "moments", run_id="run-2")
    assert catalogue.history.close_run("run-1", TransientError("The machine went down.")) == 2
    assert catalogue.history.close_run("run-1", TransientError(DIED)) == 0
    rows = sql("select asset, outcome, cause from pipeline_history order by asset")
    assert [tuple(row.values()) for row in rows] == [
        ("audio", "failed", "The machine went down."),
        ("moments", "running", None),
        ("scene_cuts", "failed", "The machine went down."),
    ]


def test_what_was_tried_again_keeps_its_own_reason(catalogue: Catalogue, attempt: Attempt, sql: Sql) -> None:
    catalogue.history.close_failed(attempt, NetworkError("The line broke."), will_retry=True)
    again = catalogue.history.open_attempt(attempt.video_id, attempt.asset, run_id="run-1")
    catalogue.history.close_failed(again, NetworkError("It broke again."), will_retry=False)
    assert catalogue.history.close_run("run-1", TransientError(DIED)) == 0
    causes = sql("select outcome, cause from pipeline_history order by attempt_id")
    assert [tuple(row.values()) for row in causes] == [("retrying", "The line broke."), ("failed", "It broke again.")]


def test_a_failure_that_no_attempt_recorded_is_kept(catalogue: Catalogue, video_id: str, sql: Sql) -> None:
    for cause in ("There is no audio.", "Again."):
        catalogue.history.note_failure(video_id, "moments", run_id="run-1", intake_id=7, error=PermanentError(cause))
    assert sql("select outcome, class, cause, intake_id from pipeline_history") == [
        {"outcome": "failed", "class": "permanent", "cause": "There is no audio.", "intake_id": 7}
    ]


def test_noting_one_runs_failure_does_not_end_the_work_of_another(catalogue: Catalogue, attempt: Attempt) -> None:
    catalogue.history.note_failure(
        attempt.video_id, attempt.asset, run_id="run-2", intake_id=None, error=PermanentError("No such model.")
    )
    assert catalogue.commit(draft(attempt, 10)).version == 1


def test_progress_is_kept_between_0_and_1_and_only_while_it_runs(
    catalogue: Catalogue, attempt: Attempt, sql: Sql
) -> None:
    shown = []
    for done in (-1.0, 0.25, 7.0, float("nan")):
        catalogue.history.note_progress(attempt, done)
        shown.append(sql("select progress from pipeline_history")[0]["progress"])
    assert shown == [0.0, 0.25, 1.0, 0.0]
    catalogue.commit(draft(attempt))
    catalogue.history.note_progress(attempt, 0.5)
    assert sql("select progress from pipeline_history") == [{"progress": 0.0}]


def test_measures_that_json_can_not_hold_do_not_cost_the_result(catalogue: Catalogue, attempt: Attempt) -> None:
    made = catalogue.commit(draft(attempt, measures={"loudness": float("-inf"), "title": "a\0b", "cuts": 2}))
    assert made.measures == {"loudness": None, "title": "a\ufffdb", "cuts": 2}
