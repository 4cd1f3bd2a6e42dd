"""Each check of the fault run finds what its guard forbids, once the guard is gone, and nothing where all is well."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from benchmarks.faults import invariants
from benchmarks.faults.processes import MARKER
from moments.services import Lakehouse
from moments_core.budget import Amounts, Budget, Budgets
from moments_core.errors import MediaError, TransientError
from moments_core.model_entry import Price
from moments_core.options import Options
from moments_resources.catalogue import Artifact, Draft, Recipe
from moments_resources.history import Attempt
from moments_resources.models.calls import CallLedger, Usage
from moments_resources.tables import ASSET_TABLES
from moments_resources.turns import Turns
from moments_resources.workers import Workers

VIDEO = "web-1"
ASSET = "scene_cuts"
CONTENT = b"a clip"
OBJECT = {"key": "videos/web-1/clips/1/clip.mp4", "bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}

Sql = Callable[..., None]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def sql(lakehouse: Lakehouse) -> Sql:
    def execute(statement: str, **values: object) -> None:
        with lakehouse.database.begin() as connection:
            connection.execute(text(statement), values)

    return execute


def opened(lakehouse: Lakehouse, asset: str = ASSET, *, video_id: str = VIDEO, intake_id: int | None = None) -> Attempt:
    return lakehouse.history.open_attempt(video_id, asset, run_id="run-1", intake_id=intake_id)


def committed(lakehouse: Lakehouse, *times: int, attempt: Attempt | None = None) -> Artifact:
    attempt = attempt or opened(lakehouse)
    rows = [{"time_ms": time, "score": 1.0} for time in times]
    return lakehouse.catalogue.commit(Draft(attempt, Recipe("1", {}), {}, rows, 0.1, objects=[OBJECT]))


def submitted(lakehouse: Lakehouse, url: str = "https://example.org/v.mp4") -> int:
    return lakehouse.intake.submit(url, Options(), submitted_by="test").intake_id


def completed(lakehouse: Lakehouse) -> int:
    """A submission that went through all assets, none of which had to be made."""
    intake_id = submitted(lakehouse)
    for asset in ASSET_TABLES:
        attempt = opened(lakehouse, asset, video_id=_name(lakehouse), intake_id=intake_id)
        lakehouse.history.close_reused(attempt)
    return intake_id


def there(_key: str) -> bytes:
    return CONTENT


def stale(lakehouse: Lakehouse) -> list[str]:
    return invariants.stale_writes(lakehouse.database, there)


_OPEN_AGAIN = """
update pipeline_history set outcome = 'running', class = null, cause = null, ended_at = null, try_again_at = null
where attempt_id = :number
"""


def test_nothing_is_found_where_all_is_well(lakehouse: Lakehouse, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    completed(lakehouse)
    submitted(lakehouse)
    committed(lakehouse, 10)
    committed(lakehouse, 20)
    database = lakehouse.database
    assert invariants.lost(database, {}) == []
    assert invariants.duplicated(database) == []
    assert stale(lakehouse) == []
    assert invariants.leaked_slots(database, instance) == []
    assert invariants.held_locks(database) == []
    assert invariants.unexplained(database) == []
    assert invariants.orphan_processes(uuid.uuid4().hex) == []
    assert invariants.leftovers(tmp_path / "home", tmp_path / "tmp") == []


def test_a_submission_without_an_end_is_lost(lakehouse: Lakehouse) -> None:
    number = submitted(lakehouse)
    assert invariants.lost(lakehouse.database, {}) == [f"submission {number} of {_name(lakehouse)} is waiting: None"]


def test_a_submission_that_failed_for_our_faults_is_lost_unless_that_was_foreseen(lakehouse: Lakehouse) -> None:
    number = submitted(lakehouse)
    lakehouse.history.close_failed(opened(lakehouse, intake_id=number), MediaError("Bad."), will_retry=False)
    assert [line.rsplit(" is ", 1)[1] for line in invariants.lost(lakehouse.database, {})] == ["failed permanent: Bad."]
    assert invariants.lost(lakehouse.database, {number: frozenset({"failed permanent"})}) == []
    assert invariants.lost(lakehouse.database, {number: frozenset({"cancelled"})}) != []


def test_a_duplicate_is_as_lost_as_what_it_is_a_duplicate_of(lakehouse: Lakehouse) -> None:
    first, second = submitted(lakehouse), submitted(lakehouse)
    lakehouse.intake.name_rows({first: VIDEO, second: VIDEO})
    assert len(invariants.lost(lakehouse.database, {})) == 2


def test_a_row_that_is_gone_is_missed(lakehouse: Lakehouse, sql: Sql) -> None:
    url = "https://example.org/v.mp4"
    numbers = [submitted(lakehouse, url), submitted(lakehouse, "https://example.org/w.mp4")]
    assert invariants.missing(lakehouse.database, [(url, 1)], numbers) == []
    sql("delete from url_intake where url = :url", url=url)
    assert invariants.missing(lakehouse.database, [(url, 1)], numbers) == [
        f"0 of 1 rows of {url}",
        f"submission {numbers[0]} has no row",
    ]


def test_two_current_versions_are_found(lakehouse: Lakehouse, sql: Sql) -> None:
    committed(lakehouse, 10)
    committed(lakehouse, 20)
    sql("drop index artifacts_current")
    sql("update artifacts set superseded_at = null")
    assert f"2 current versions of {ASSET} of {VIDEO}" in invariants.duplicated(lakehouse.database)


def test_two_results_of_one_attempt_are_found(lakehouse: Lakehouse, sql: Sql) -> None:
    attempt = opened(lakehouse)
    committed(lakehouse, 10, attempt=attempt)
    sql("update pipeline_history set outcome = 'running', ended_at = null")  # as if the fence had not closed it
    committed(lakehouse, 20, attempt=attempt)
    assert f"2 results of attempt {attempt.attempt_id}" in invariants.duplicated(lakehouse.database)


def test_rows_that_are_seen_twice_are_found(lakehouse: Lakehouse, sql: Sql) -> None:
    committed(lakehouse, 10)
    sql("alter table versions.scene_cuts drop constraint scene_cuts_pkey")
    sql("insert into versions.scene_cuts select * from versions.scene_cuts")
    assert f"2 rows of {VIDEO} in the view {ASSET}, 1 were made" in invariants.duplicated(lakehouse.database)


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_result_of_an_attempt_that_was_closed_is_found(lakehouse: Lakehouse, sql: Sql, outcome: str) -> None:
    committed(lakehouse, 10)
    sql("update pipeline_history set outcome = :outcome, class = 'transient', cause = 'It died.'", outcome=outcome)
    assert stale(lakehouse) == [f"{ASSET} version 1 of {VIDEO}: its attempt is {outcome}"]


def test_a_result_that_came_after_the_end_of_its_attempt_is_found(lakehouse: Lakehouse, sql: Sql) -> None:
    committed(lakehouse, 10)
    sql("update artifacts set committed_at = now() + interval '1 minute'")
    assert stale(lakehouse) == [f"{ASSET} version 1 of {VIDEO}: committed after the end of its attempt"]


def test_a_result_that_came_after_that_of_a_newer_attempt_is_found(lakehouse: Lakehouse, sql: Sql) -> None:
    old = opened(lakehouse)
    committed(lakehouse, 20)  # its attempt is newer, and has closed the old one
    sql(_OPEN_AGAIN, number=old.attempt_id)
    committed(lakehouse, 10, attempt=old)
    assert stale(lakehouse) == [f"{ASSET} version 2 of {VIDEO}: committed after the result of a newer attempt"]


def test_rows_without_a_result_are_found(lakehouse: Lakehouse, sql: Sql) -> None:
    committed(lakehouse, 10)
    sql("delete from artifacts")
    assert stale(lakehouse) == [f"rows of {ASSET} of {VIDEO} version 1: no result"]


def test_an_object_that_is_gone_or_another_is_found(lakehouse: Lakehouse) -> None:
    committed(lakehouse, 10)
    where = f"object {OBJECT['key']} of {ASSET} of {VIDEO}"
    assert invariants.stale_writes(lakehouse.database, lambda _: None) == [f"{where}: missing"]
    assert invariants.stale_writes(lakehouse.database, lambda _: b"other") == [f"{where}: has another content"]


def test_an_attempt_and_a_worker_and_a_run_that_are_left_are_found(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    attempt = opened(lakehouse)
    Workers(lakehouse.database).enter("run-1")
    instance.add_run(dg.DagsterRun("process_video", "run-1", status=dg.DagsterRunStatus.STARTED))
    assert invariants.leaked_slots(lakehouse.database, instance) == [
        f"worker {os.getpid()} is at run run-1",
        f"attempt {attempt.attempt_id} at {ASSET} is open",
        "run run-1 is STARTED",
    ]


def test_a_slot_of_a_run_that_is_over_is_found(
    lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from moments.services import prepare_dagster

    prepare_dagster(lakehouse.settings)
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("clips", 1)
        instance.event_log_storage.claim_concurrency_slot("clips", "dead", "clips")
        found = invariants.leaked_slots(lakehouse.database, instance)
    assert found == ["a slot of the pool clips is held by run dead"]


def test_a_place_that_is_not_given_back_is_found(lakehouse: Lakehouse) -> None:
    with Turns(lakehouse.database).turn("model:parakeet", 1):
        assert len(invariants.held_locks(lakehouse.database)) == 1
    assert invariants.held_locks(lakehouse.database) == []


def test_a_process_that_lives_on_is_found_with_its_port_whoever_its_parent_is() -> None:
    marker = uuid.uuid4().hex
    orphan = (
        "import socket, sys, time; server = socket.create_server(('127.0.0.1', 0));"
        " print(server.getsockname()[1], flush=True); time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    started = subprocess.Popen(
        [sys.executable, "-c", parent], env={**os.environ, MARKER: marker}, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    port = int(started.stdout.readline())
    started.stdout.close()
    started.wait()
    found = invariants.orphan_processes(marker)
    assert len(found) == 1
    assert str([port]) in found[0]
    _end(marker)
    assert invariants.orphan_processes(marker) == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_a_tunnel_that_is_left_open_is_found() -> None:
    assert invariants.orphan_processes(uuid.uuid4().hex, tunnels=2) == ["2 connections to the SSH host"]


@pytest.mark.parametrize(
    "name", ["home/scratch/1-a/video.mp4", "home/cache/turns/x.part", "home/store/.incoming/1", "tmp/moments-x/f"]
)
def test_a_file_that_is_left_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    found = dict(invariants.leftovers(tmp_path / "home", tmp_path / "tmp"))
    assert found[str(path)] == 5


def test_a_failure_without_cause_is_found(lakehouse: Lakehouse, sql: Sql) -> None:
    attempt = opened(lakehouse, intake_id=submitted(lakehouse))
    lakehouse.history.close_failed(attempt, TransientError("It broke."), will_retry=False)
    assert invariants.unexplained(lakehouse.database) == []
    sql("alter table pipeline_history drop constraint pipeline_history_failure_is_explained")
    sql("update pipeline_history set cause = null, try_again_at = null")
    assert invariants.unexplained(lakehouse.database) == [
        f"attempt {attempt.attempt_id} at {ASSET} is failed",
        "submission 1 is failed",
    ]


@pytest.mark.parametrize("budgets", [{"video": Budget(tokens=150)}, {"day": Budget(tokens=150)}])
def test_a_budget_that_was_passed_is_found(lakehouse: Lakehouse, budgets: dict[str, Budget]) -> None:
    """Two calls of 100 tokens, made by a program that keeps no budget."""
    ledger = CallLedger(lakehouse.database, opened(lakehouse), budgets=Budgets())
    for _ in range(2):
        reply = ledger.keep(ledger.begin("m", "0" * 64, None, Amounts(60, 1000)), "{}", seconds=2, price=Price())
        ledger.charge(reply, Usage(90, 10), Price())
    asked = {"video": Budget(), "day": Budget(), **budgets}
    assert all("took 200 tokens" in line for line in invariants.budgets_passed(lakehouse.database, **asked))
    assert len(invariants.budgets_passed(lakehouse.database, **asked)) >= 1
    enough = {"video": Budget(tokens=200, seconds=4), "day": Budget(tokens=200, seconds=4)}
    assert invariants.budgets_passed(lakehouse.database, **enough) == []
    assert invariants.budgets_passed(lakehouse.database, video=Budget(tokens=1), day=Budget(), videos=["web-2"]) == []


def test_what_a_call_on_its_way_may_take_counts(lakehouse: Lakehouse) -> None:
    ledger = CallLedger(lakehouse.database, opened(lakehouse), budgets=Budgets())
    ledger.begin("m", "0" * 64, None, Amounts(60, 1000))
    found = invariants.budgets_passed(lakehouse.database, video=Budget(tokens=999), day=Budget())
    assert found == [f"{VIDEO} took 1000 tokens"]


def test_what_a_dead_process_had_sent_counts_and_what_waited_for_its_turn_does_not(lakehouse: Lakehouse) -> None:
    ledger = CallLedger(lakehouse.database, opened(lakehouse), budgets=Budgets())
    sent, _waits = (ledger.begin("m", "0" * 64, None, Amounts(60, 1000)) for _ in range(2))
    ledger.note_sent(sent)
    opened(lakehouse)  # the next attempt closes the one before
    found = invariants.budgets_passed(lakehouse.database, video=Budget(tokens=999), day=Budget(tokens=999))
    assert [line.split(" took ")[1] for line in found] == ["1000 tokens"] * 2
    assert invariants.budgets_passed(lakehouse.database, video=Budget(tokens=1000), day=Budget(seconds=60)) == []


def _name(lakehouse: Lakehouse) -> str:
    with lakehouse.database.begin() as connection:
        return str(connection.scalar(text("select video_id from url_intake limit 1")))


def _end(marker: str) -> None:
    from benchmarks.faults.processes import marked

    for process in marked(marker):
        process.kill()
    deadline = time.monotonic() + 10
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
