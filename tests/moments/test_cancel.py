"""`moments cancel` and the UI's "Terminate": work stops at once, nothing is committed after it, nothing is left."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from moments import cancel as cancelling
from moments.cancel import cancel
from moments.process_group import kill_with_all_below
from moments.results import Results
from moments.services import Lakehouse, prepare_dagster
from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG
from moments_core.errors import CancelledError, FenceError, TransientError
from moments_core.options import Options
from moments_resources.catalogue import Draft, Recipe
from moments_resources.intake import IntakeRow
from moments_resources.workers import Workers, this_machine
from moments_sensors import reconcile
from moments_sensors.intake import register, tick
from moments_sensors.reaper import UNHEEDED_S, Reaper
from tests.moments.production import long_video, until

URL = "https://example.org/bees.mp4"
PATIENCE_S = 180  # a busy machine; an idle one needs a fifth of it


@pytest.fixture
def instance(lakehouse: Lakehouse) -> Iterator[dg.DagsterInstance]:
    prepare_dagster(lakehouse.settings)
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def row(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> IntakeRow:
    row = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    register(lakehouse.intake, instance)
    return row


def cancelled(lakehouse: Lakehouse, row: IntakeRow) -> dict[str, Any]:
    return cancel(lakehouse, str(row.video_id), tell=lambda _: None)


def rows(lakehouse: Lakehouse, query: str, **parameters: object) -> list[dict[str, Any]]:
    return Results(lakehouse).rows(query, **parameters)


def state(lakehouse: Lakehouse, row: IntakeRow) -> dict[str, Any]:
    query = "select state, class, cause, not_before from intake_state where intake_id = :id"
    return rows(lakehouse, query, id=row.intake_id)[0]


def assert_cancelled(lakehouse: Lakehouse, row: IntakeRow) -> None:
    found = state(lakehouse, row)
    assert (found["state"], found["class"], found["not_before"]) == ("cancelled", "cancelled", None)
    assert "(moments cancel)" in found["cause"]


def run_of(instance: dg.DagsterInstance, row: IntakeRow, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    tags = {INTAKE_TAG: str(row.intake_id), "dagster/partition": str(row.video_id)}
    run = dg.DagsterRun(process_video.name, str(uuid.uuid4()), status=status, tags=tags)
    instance.add_run(run)
    return run


def asked_for(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> list[str | None]:
    """What both sensors ask for."""
    results = (
        tick(lakehouse.intake, lakehouse.history, instance),
        reconcile.tick(lakehouse.intake, lakehouse.history, instance),
    )
    return [
        request.run_key
        for result in results
        if isinstance(result, dg.SensorResult)
        for request in result.run_requests or ()
    ]


def test_an_attempt_at_work_is_closed_and_may_not_commit(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.STARTED)
    attempt = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id=run.run_id, intake_id=row.intake_id)
    told = cancelled(lakehouse, row)
    assert told == {"video_id": row.video_id, "runs": 1, "attempts": 1, "submissions": [row.intake_id]}
    assert_cancelled(lakehouse, row)
    with pytest.raises(FenceError):
        lakehouse.catalogue.commit(Draft(attempt, Recipe("1", {}), {}, [], 0.1))
    with pytest.raises(CancelledError):  # the next step of the same process
        lakehouse.history.open_attempt(str(row.video_id), "transcript", run_id=run.run_id, intake_id=row.intake_id)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.CANCELED
    assert asked_for(lakehouse, instance) == []


def test_a_submission_that_waits_and_its_duplicates_end(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow
) -> None:
    duplicate = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    other = lakehouse.intake.submit(URL, Options(max_moments=2), submitted_by="test")
    queued = run_of(instance, row, dg.DagsterRunStatus.NOT_STARTED)
    assert cancelled(lakehouse, row)["submissions"] == [row.intake_id, duplicate.intake_id, other.intake_id]
    assert_cancelled(lakehouse, row)
    assert_cancelled(lakehouse, other)
    assert state(lakehouse, duplicate)["state"] == "duplicate"
    assert Results(lakehouse).submission(duplicate, URL)["error"]["class"] == "cancelled"
    ended = instance.get_run_by_id(queued.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.CANCELED
    assert asked_for(lakehouse, instance) == []


def test_a_failure_that_was_to_be_tried_again_is_not(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow
) -> None:
    lakehouse.history.note_failure(
        str(row.video_id), "audio", run_id="run-1", intake_id=row.intake_id, error=TransientError("Away: try again.")
    )
    rows(lakehouse, "update pipeline_history set try_again_at = now() returning 1")
    assert state(lakehouse, row)["state"] == "waiting"
    cancelled(lakehouse, row)
    assert_cancelled(lakehouse, row)
    assert asked_for(lakehouse, instance) == []


def test_a_step_between_two_tries_and_a_run_between_two_steps_end(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow
) -> None:
    video_id, history = str(row.video_id), lakehouse.history
    done = history.open_attempt(video_id, "raw_video", run_id="run-1", intake_id=row.intake_id)
    history.close_reused(done)
    cancelled(lakehouse, row)
    assert_cancelled(lakehouse, row)

    again = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    attempt = history.open_attempt(video_id, "audio", run_id="run-2", intake_id=again.intake_id)
    history.close_failed(attempt, TransientError("Away: try again."), will_retry=True)
    assert cancelled(lakehouse, again)["attempts"] == 1
    assert_cancelled(lakehouse, again)


def test_a_new_submission_of_the_same_address_runs(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow
) -> None:
    cancelled(lakehouse, row)
    again = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    assert asked_for(lakehouse, instance) == [f"intake-{again.intake_id}"]
    lakehouse.history.open_attempt(str(row.video_id), "raw_video", run_id="run-9", intake_id=again.intake_id)
    assert state(lakehouse, again)["state"] == "running"


def test_what_has_ended_is_left_alone(lakehouse: Lakehouse, row: IntakeRow) -> None:
    cancelled(lakehouse, row)
    assert cancelled(lakehouse, row) == {"video_id": row.video_id, "runs": 0, "attempts": 0, "submissions": []}
    assert rows(lakehouse, "select count(*) as n from cancellations") == [{"n": 1}]


def test_a_process_that_is_gone_is_not_waited_for_and_one_that_stays_is_named(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "PATIENCE_S", 2.0)
    run = run_of(instance, row, dg.DagsterRunStatus.STARTED)
    worker = (
        "insert into workers (run_id, host, machine, pid, process_started)"
        " values (:run, 'other', :machine, 1234567, 0) returning 1"
    )
    rows(lakehouse, worker, run=run.run_id, machine=this_machine())
    cancelled(lakehouse, row)
    assert Workers(lakehouse.database).all() == []

    rows(lakehouse, worker, run=run.run_id, machine="another start, or another container")
    with pytest.raises(TransientError, match="process 1234567 on other did not stop within 2 s"):
        cancelled(lakehouse, row)
    assert rows(lakehouse, "select stop_reason is not null as asked from workers") == [{"asked": True}]


def test_a_termination_that_did_not_reach_its_process_is_passed_on(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow
) -> None:
    run = run_of(instance, row, dg.DagsterRunStatus.CANCELING)
    workers = Workers(lakehouse.database)
    workers.enter(run.run_id)
    reaper = Reaper(lakehouse.history, workers)
    reaper.reap(instance)
    assert workers.beat(run.run_id) is None  # its own interrupt may be on the way
    reaper._terminated._seen = {run.run_id: ("terminated", UNHEEDED_S)}
    reaper.reap(instance)
    assert "cancelled" in (workers.beat(run.run_id) or "")


# With real processes


def _ffmpeg_of_the_step(lakehouse: Lakehouse) -> list[psutil.Process]:
    """What the step that cuts clips has started, once it has."""
    at_work = "select pid from pipeline_history where asset = 'clips' and outcome = 'running'"
    ((pid,),) = [tuple(found.values()) for found in until(lambda: rows(lakehouse, at_work), seconds=PATIENCE_S)]
    found: list[psutil.Process] = until(lambda: psutil.Process(pid).children(recursive=True), seconds=PATIENCE_S)
    return found


def _assert_nothing_goes_on(lakehouse: Lakehouse, ffmpeg: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(ffmpeg, timeout=30)
    assert alive == []
    assert until(lambda: not Workers(lakehouse.database).all(), seconds=PATIENCE_S)
    ended = "select outcome, class from pipeline_history where asset = 'clips'"
    assert rows(lakehouse, ended) == [{"outcome": "cancelled", "class": "cancelled"}]
    assert rows(lakehouse, "select state, class from intake_state") == [{"state": "cancelled", "class": "cancelled"}]
    assert rows(lakehouse, "select 1 from artifacts where asset in ('clips', 'refined_moments')") == []
    assert list((lakehouse.settings.state / "scratch").glob("*")) == []


def test_a_worker_of_process_is_stopped_and_process_says_so(
    lakehouse: Lakehouse, tmp_path: Path, moments_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    video = long_video(tmp_path / "long.mp4")
    process = subprocess.Popen(
        [sys.executable, "-m", "moments.cli", "process", str(video), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    ffmpeg = _ffmpeg_of_the_step(lakehouse)
    stopped = moments_command("cancel", "long.mp4", "--json")
    assert stopped.returncode == 0, stopped.stderr
    told = json.loads(stopped.stdout)
    assert (told["runs"], told["attempts"]) == (1, 1)
    stdout, _ = process.communicate(timeout=PATIENCE_S)
    result = json.loads(stdout)
    assert process.returncode == 1
    assert (result["status"], result["error"]["class"]) == ("failed", "cancelled")
    assert "(moments cancel)" in result["error"]["reason"]
    _assert_nothing_goes_on(lakehouse, ffmpeg)
    nothing = moments_command("cancel", "long.mp4")
    assert nothing.returncode == 0
    assert "nothing to cancel" in nothing.stdout


@contextmanager
def _dev(port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moments.cli", "dev", "--port", str(port)], stdout=file, stderr=file
        )
        try:
            yield
        finally:
            kill_with_all_below(process)


def _terminate(port: int, run_id: str) -> str:
    """What the button in the UI sends."""
    query = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
    body = json.dumps({"query": query, "variables": {"id": run_id}}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
        answer: str = json.load(reply)["data"]["terminateRun"]["__typename"]
        return answer


def test_a_run_that_is_terminated_in_the_ui_ends_as_cancelled(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    lakehouse.intake.submit(str(long_video(tmp_path / "long.mp4")), Options(), submitted_by="test")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with _dev(port, tmp_path / "dev.log"):
        ffmpeg = _ffmpeg_of_the_step(lakehouse)
        (run,) = instance.get_runs()
        assert _terminate(port, run.run_id) == "TerminateRunSuccess"
        ended = until(lambda: [found for found in instance.get_runs() if found.is_finished], seconds=PATIENCE_S)
        assert [found.status for found in ended] == [dg.DagsterRunStatus.CANCELED]
        _assert_nothing_goes_on(lakehouse, ffmpeg)
