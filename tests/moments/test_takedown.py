"""What `moments delete` removes of a video, what of others it leaves, and that it can be repeated after any end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from sqlalchemy import text

from moments.results import Results
from moments.services import Lakehouse, prepare_dagster
from moments.takedown import _Removal, take_down
from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG, videos
from moments_core.errors import PermanentError, ServiceError
from moments_core.options import Options
from moments_core.source import video_id_for_content
from moments_resources import tombstones
from moments_resources.catalogue import Recipe
from moments_resources.intake import Intake, IntakeRow
from moments_resources.step import Step, StepRequest
from moments_resources.store.file import FileStore, file_sha256
from moments_resources.store.interface import StoredObject
from moments_sensors.intake import take_in
from tests.moments_resources.conftest import moment_rows

Command = Callable[..., subprocess.CompletedProcess[str]]

URL = "https://example.org/bees.mp4"
PATIENCE_S = 60
RECIPE = Recipe("1", {"maker": "test", "options": {"query": "what the user asked"}})


@pytest.fixture
def instance(lakehouse: Lakehouse) -> Iterator[dg.DagsterInstance]:
    prepare_dagster(lakehouse.settings)
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def make(lakehouse: Lakehouse, instance: dg.DagsterInstance, tmp_path: Path) -> Callable[[str], IntakeRow]:
    """A video with something in every place where a video leaves something."""

    def made(source: str) -> IntakeRow:
        row = lakehouse.intake.submit(source, Options(query="what the user asked"), submitted_by="test")
        assert row.video_id is not None
        run = _run(instance, row)
        _results(lakehouse, row, run.run_id, tmp_path)
        _asset_events(instance, row.video_id, run.run_id)
        log = lakehouse.settings.state / "logs" / f"intake-{row.intake_id}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("the last words of a worker")
        return row

    return made


def _run(instance: dg.DagsterInstance, row: IntakeRow) -> dg.DagsterRun:
    assert row.video_id is not None
    instance.add_dynamic_partitions(str(videos.name), [row.video_id])
    tags = {INTAKE_TAG: str(row.intake_id), "dagster/partition": row.video_id}
    run = dg.DagsterRun(process_video.name, str(uuid.uuid4()), status=dg.DagsterRunStatus.SUCCESS, tags=tags)
    instance.add_run(run)
    return run


def _results(lakehouse: Lakehouse, row: IntakeRow, run_id: str, folder: Path) -> None:
    request = StepRequest(str(row.video_id), "moments", run_id, row.intake_id)
    clip = folder / "clip.mp4"
    clip.write_bytes(b"a clip")
    stored = lakehouse.store.copy_in(clip, f"videos/{row.video_id}/clips/abc/clip.mp4")
    lakehouse.store.copy_in(clip, f"videos/{row.video_id}/refined_moments/abc/proxy.mp4")  # no row names it
    with Step(lakehouse.catalogue, folder / "scratch", request) as step:
        step.recipe = RECIPE
        step.commit(moment_rows(RECIPE), [stored.as_json()])
    with lakehouse.database.begin() as connection:
        for statement in (
            "insert into prompts (sha256, name, version, text) values ('p', 'n', '1', 't') on conflict do nothing",
            "insert into model_calls"
            " (video_id, asset, attempt_id, model, request_sha256, prompt_sha256, outcome, reply)"
            " select video_id, asset, attempt_id, 'm', 'r', 'p', 'replied', 'said' from artifacts where video_id = :id",
            "insert into garbage (key) values ('videos/' || :id || '/x/y.mp4')",
            "insert into cancellations (video_id, cancelled_by, run_ids, intake_ids) values (:id, 'x', '{}', '{}')",
        ):
            connection.execute(text(statement), {"id": row.video_id})


def _asset_events(instance: dg.DagsterInstance, video_id: str, run_id: str) -> None:
    """A materialization and a check of a run, a materialization without a run, a tick that asked for the run."""
    materialized = dg.AssetMaterialization("moments", partition=video_id, metadata={"title": "bees"})
    instance.report_runless_asset_event(materialized)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("moments"), check_name="c", passed=True, metadata={}, partition=video_id
        )
    )
    folder = Path(instance.storage_directory()) / run_id / "compute_logs"
    folder.mkdir(parents=True)
    (folder / "words.out").write_text("what a run said")


_ALL_TABLES = """
select schemaname || '.' || tablename from pg_tables where schemaname in ('public', 'versions', 'dagster')"""


def left_of(lakehouse: Lakehouse, instance: dg.DagsterInstance, row: IntakeRow) -> dict[str, int]:
    """Everything that names the video, found in another way than the program does: its name in any row of any table."""
    stored = list(lakehouse.store.keys())
    found = {key: 1 for key in stored if str(row.video_id) in key}
    with lakehouse.database.begin() as connection:
        for table in connection.scalars(text(_ALL_TABLES)).all():
            query = f"select count(*) from {table} t where strpos(t::text, :id) > 0"  # noqa: S608 - our own names
            found[table] = connection.scalar(text(query), {"id": row.video_id}) or 0
    found["partition"] = int(str(row.video_id) in instance.get_dynamic_partitions(str(videos.name)))
    found["log"] = int((lakehouse.settings.state / "logs" / f"intake-{row.intake_id}.log").exists())
    found["run logs"] = len(list(Path(instance.storage_directory()).glob("*/compute_logs/words.out")))
    return {name: count for name, count in found.items() if count and name != "public.tombstones"}


def one(lakehouse: Lakehouse, query: str, **parameters: object) -> Any:
    with lakehouse.database.begin() as connection:
        return connection.scalar(text(query), parameters)


VERIFIED = "select verified_at is not null from tombstones where video_id = :id"


def test_nothing_that_names_the_video_is_left_anywhere(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, make: Callable[[str], IntakeRow]
) -> None:
    row = make(URL)
    before = left_of(lakehouse, instance, row)
    expected = {
        "versions.moments", "public.artifacts", "public.model_calls", "public.pipeline_history", "public.url_intake",
        "public.garbage", "public.cancellations", "dagster.event_logs", "dagster.run_tags", "dagster.asset_keys",
        "dagster.dynamic_partitions", "dagster.asset_check_executions", "partition", "log", "run logs",
    }  # fmt: skip
    assert expected <= set(before)
    removed = take_down(lakehouse, str(row.video_id))
    assert left_of(lakehouse, instance, row) == {}
    assert (removed["objects"], removed["bytes"], removed["runs"]) == (2, 12, 1)
    # Two moments, artifact, call, attempt, cancellation, submission; and the end of the submission, twice.
    assert removed["rows"] == 9
    assert one(lakehouse, VERIFIED, id=row.video_id) is True
    assert one(lakehouse, "select count(*) from generation_configs") == 0  # it held the query
    assert one(lakehouse, "select count(*) from prompts") == 0


def test_another_video_keeps_all_that_it_has(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, make: Callable[[str], IntakeRow]
) -> None:
    other, row = make("https://example.org/other.mp4"), make(URL)
    before = left_of(lakehouse, instance, other)
    take_down(lakehouse, str(row.video_id))
    after = left_of(lakehouse, instance, other)
    # In the place of what Dagster showed as the newest materialization there is this video's now.
    assert after == {**before, "run logs": 1, "dagster.asset_keys": 1}
    assert one(lakehouse, "select count(*) from generation_configs") == 1
    assert one(lakehouse, "select count(*) from prompts") == 1
    newest = instance.get_latest_materialization_event(dg.AssetKey("moments"))
    assert newest is not None
    assert newest.dagster_event is not None
    assert newest.dagster_event.partition == other.video_id


def test_prompts_stay_while_somebody_is_at_work(lakehouse: Lakehouse, make: Callable[[str], IntakeRow]) -> None:
    """A prompt is noted before the first call that refers to it."""
    row = make(URL)
    lakehouse.history.open_attempt("web-other", "moments", run_id="run-2")
    take_down(lakehouse, str(row.video_id))
    assert one(lakehouse, "select count(*) from prompts") == 1


def test_an_attempt_that_was_tried_again_long_ago_keeps_no_prompt(
    lakehouse: Lakehouse, make: Callable[[str], IntakeRow]
) -> None:
    row = make(URL)
    first = lakehouse.history.open_attempt("web-other", "moments", run_id="run-2")
    lakehouse.history.close_failed(first, ServiceError("Away: wait."), will_retry=True)
    lakehouse.history.close_reused(lakehouse.history.open_attempt("web-other", "moments", run_id="run-2"))
    take_down(lakehouse, str(row.video_id))
    assert one(lakehouse, "select count(*) from prompts") == 0


def test_prompts_stay_while_somebody_is_about_to_try_again(
    lakehouse: Lakehouse, make: Callable[[str], IntakeRow]
) -> None:
    row = make(URL)
    attempt = lakehouse.history.open_attempt("web-other", "moments", run_id="run-2")
    lakehouse.history.close_failed(attempt, ServiceError("Away: wait."), will_retry=True)
    take_down(lakehouse, str(row.video_id))
    assert one(lakehouse, "select count(*) from prompts") == 1


def test_an_entry_of_a_list_that_was_taken_down_brings_no_video_back(lakehouse: Lakehouse, taken_down: str) -> None:
    """Not even one of a list with --revive: nobody has named that video."""
    listing = lakehouse.intake.submit("https://example.org/list", Options(), submitted_by="test")
    entry = _by_sql(lakehouse, '{"revive": true, "max_moments": 3}', listing.intake_id)
    broken = _by_sql(lakehouse, "[1]", listing.intake_id)
    take_down(lakehouse, str(listing.video_id))
    entry, broken = lakehouse.intake.row(entry.intake_id), lakehouse.intake.row(broken.intake_id)
    assert (entry.listed_in, entry.options) == (None, {"max_moments": 3})
    assert str(broken.options) == "[1]"
    assert take_in(lakehouse.intake, [entry]) == []
    assert lakehouse.intake.taken_down({taken_down}) != {}


@pytest.mark.usefixtures("instance")
def test_videos_of_a_list_stay_as_submissions_of_their_own(lakehouse: Lakehouse) -> None:
    row = lakehouse.intake.submit("https://example.org/list", Options(), submitted_by="test")
    entry = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    one(lakehouse, "update url_intake set listed_in = :list where intake_id = :id returning 1", list=row.intake_id,
        id=entry.intake_id)  # fmt: skip
    take_down(lakehouse, str(row.video_id))
    assert one(lakehouse, "select listed_in is null from url_intake where intake_id = :id", id=entry.intake_id) is True


@pytest.mark.usefixtures("instance")
def test_an_upload_goes_under_all_of_its_names(lakehouse: Lakehouse, tmp_path: Path) -> None:
    rows = []
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"a video")
        rows.append(lakehouse.intake.submit(str(tmp_path / name), Options(), submitted_by="test"))
    one(lakehouse, "delete from url_intake where intake_id = :id returning 1", id=rows[0].intake_id)  # died before it
    assert take_down(lakehouse, str(rows[1].video_id))["objects"] == 2
    assert list(lakehouse.store.keys()) == []


class SlowStore(FileStore):
    """A folder in which a copy is there, and has not ended, until the test lets it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached, self.may_go_on = threading.Event(), threading.Event()

    def copy_in(self, path: Path, key: str) -> StoredObject:
        self.reached.set()
        assert self.may_go_on.wait(PATIENCE_S)
        return super().copy_in(path, key)


@pytest.fixture
def on_its_way(lakehouse: Lakehouse, tmp_path: Path) -> Iterator[tuple[Callable[[], IntakeRow], FileStore, str]]:
    """An upload whose copy has begun: what ends it and gives its row, its store, and its video's name."""
    file = tmp_path / "long.mp4"
    file.write_bytes(b"a long video")
    slow = SlowStore(lakehouse.settings.state / "store")
    intake = Intake(lakehouse.database, slow)
    with ThreadPoolExecutor() as threads:
        submitting = threads.submit(intake.submit, str(file), Options(), submitted_by="test")
        assert slow.reached.wait(PATIENCE_S)

        def end() -> IntakeRow:
            slow.may_go_on.set()
            return submitting.result(PATIENCE_S)

        yield end, slow, video_id_for_content(file_sha256(file))
        slow.may_go_on.set()


@pytest.mark.usefixtures("instance")
def test_a_removal_waits_for_an_upload_that_is_on_its_way_and_nothing_of_it_stays(
    lakehouse: Lakehouse, on_its_way: Any
) -> None:
    end, store, video_id = on_its_way
    with ThreadPoolExecutor() as threads:
        removing = threads.submit(take_down, lakehouse, video_id)
        _until(lambda: one(lakehouse, "select count(*) from tombstones") == 1)
        with pytest.raises(FutureTimeout):
            removing.result(5)
        row = end()
        removing.result(PATIENCE_S)
    assert "was taken down" in (lakehouse.intake.refusal(row) or ("", ""))[1]
    assert list(store.keys()) == []
    assert one(lakehouse, VERIFIED, id=video_id) is True


def test_an_upload_that_is_refused_when_it_is_there_goes_unless_a_row_names_it(
    lakehouse: Lakehouse, on_its_way: Any
) -> None:
    end, store, video_id = on_its_way
    with lakehouse.database.begin() as connection:
        tombstones.lay(connection, video_id, by="test")
    assert lakehouse.intake.refusal(end()) is not None
    assert list(store.keys()) == []


def test_an_upload_that_is_refused_when_it_is_there_stays_where_a_row_names_it(
    lakehouse: Lakehouse, on_its_way: Any, tmp_path: Path
) -> None:
    end, store, video_id = on_its_way
    lakehouse.intake.submit(str(tmp_path / "long.mp4"), Options(), submitted_by="test")
    with lakehouse.database.begin() as connection:
        tombstones.lay(connection, video_id, by="test")
    assert lakehouse.intake.refusal(end()) is not None
    assert len(list(store.keys())) == 1


def test_a_submission_that_is_refused_while_its_row_goes_leaves_no_reason(
    lakehouse: Lakehouse, make: Callable[[str], IntakeRow]
) -> None:
    row = make(URL)
    removal = _Removal(lakehouse, str(row.video_id))
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

    def remove() -> None:
        with lakehouse.database.begin() as connection:
            removal.submissions(connection)

    with ThreadPoolExecutor() as threads:
        with lakehouse.database.engine.connect() as connection:
            # After the reasons went, before the rows do.
            connection.execute(text("lock table public.cancellations in exclusive mode"))
            removing = threads.submit(remove)
            _until(lambda: one(lakehouse, waits) == 1)
            refusing = threads.submit(lakehouse.intake.refuse, row, PermanentError("No."))
            _until(lambda: one(lakehouse, waits) == 2 or refusing.done())
            connection.rollback()
        removing.result(PATIENCE_S)
        refusing.result(PATIENCE_S)
    assert one(lakehouse, "select count(*) from url_intake") == 0
    assert one(lakehouse, "select count(*) from pipeline_history") == 0


# A removal that breaks off


TAKES_DOWN = """
import sys
from moments.services import connect
from moments.settings import load_settings
from moments.takedown import take_down
take_down(connect(load_settings()), sys.argv[1])
"""

#: Where the removal is killed: it waits for a lock on this table. In the order in which they are written to.
POINTS = [
    "public.tombstones",
    "versions.moments",
    "public.artifacts",
    "public.garbage",
    "dagster.asset_check_executions",
    "dagster.event_logs",
    "dagster.runs",
    "dagster.asset_keys",
    "dagster.dynamic_partitions",
    "public.url_intake",
    "public.prompts",
]


@pytest.mark.parametrize("table", POINTS)
def test_a_removal_that_was_killed_is_finished_by_the_next_one(
    table: str, lakehouse: Lakehouse, instance: dg.DagsterInstance, make: Callable[[str], IntakeRow]
) -> None:
    row = make(URL)
    waits = "select count(*) from pg_locks where not granted and relation = cast(:table as regclass)"
    with lakehouse.database.engine.connect() as connection:
        connection.execute(text(f"lock table {table} in exclusive mode"))  # who reads gets past it
        process = subprocess.Popen([sys.executable, "-c", TAKES_DOWN, str(row.video_id)])
        _until(lambda: one(lakehouse, waits, table=table) or process.poll() is not None)
        assert process.poll() is None, f"it did not write to {table}"
        process.kill()
        process.wait()
        connection.rollback()
    _until(lambda: one(lakehouse, waits, table=table) == 0)
    began = table != "public.tombstones"
    assert one(lakehouse, VERIFIED, id=row.video_id) is (False if began else None)
    if began:  # whatever is left, nothing of it begins again, and it is still known
        with pytest.raises(PermanentError, match="taken down"):
            lakehouse.history.open_attempt(str(row.video_id), "audio", run_id="run-2")
    take_down(lakehouse, str(row.video_id))
    assert left_of(lakehouse, instance, row) == {}
    assert one(lakehouse, VERIFIED, id=row.video_id) is True


def _until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_what_is_left_is_named_and_not_verified(lakehouse: Lakehouse, make: Callable[[str], IntakeRow]) -> None:
    """A row that somebody brings back behind our back."""
    row = make(URL)
    with lakehouse.database.begin() as connection:
        connection.execute(
            text("create rule stays as on delete to versions.moments where old.moment_id = 'm_8' do instead nothing")
        )
    with pytest.raises(ServiceError, match=r"1 rows of versions.moments.*repeat `moments delete"):
        take_down(lakehouse, str(row.video_id))
    assert one(lakehouse, VERIFIED, id=row.video_id) is False


# What a tombstone keeps away


@pytest.fixture
def taken_down(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> str:
    row = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    take_down(lakehouse, str(row.video_id))
    return str(row.video_id)


@pytest.mark.usefixtures("taken_down")
def test_a_submission_of_a_video_that_was_taken_down_is_refused(lakehouse: Lakehouse) -> None:
    row = lakehouse.intake.submit(URL, Options(), submitted_by="test")
    failure_class, cause = lakehouse.intake.refusal(row) or ("", "")
    assert failure_class == "permanent"
    assert "was taken down on 20" in cause
    assert "--revive" in cause
    assert take_in(lakehouse.intake, lakehouse.intake.unregistered(10)) == []


def test_a_file_that_was_taken_down_is_not_even_stored(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"a video")
    take_down(lakehouse, str(lakehouse.intake.submit(str(file), Options(), submitted_by="test").video_id))
    row = lakehouse.intake.submit(str(file), Options(), submitted_by="test")
    assert lakehouse.intake.refusal(row) is not None
    assert list(lakehouse.store.keys()) == []


def _by_sql(lakehouse: Lakehouse, options: str = "{}", listed_in: int | None = None) -> IntakeRow:
    statement = "insert into url_intake (url, options, listed_in) values (:url, cast(:options as jsonb), :listed_in)"
    number = one(lakehouse, f"{statement} returning intake_id", url=URL, options=options, listed_in=listed_in)
    return lakehouse.intake.row(number)


@pytest.mark.parametrize(("options", "listed_in"), [("{}", None), ('{"revive": false}', None), ('{"revive": true}', 1)])
def test_the_sensor_refuses_it_too_also_as_the_entry_of_a_list(
    options: str, listed_in: int | None, lakehouse: Lakehouse, taken_down: str
) -> None:
    row = _by_sql(lakehouse, options, listed_in)
    assert take_in(lakehouse.intake, [row]) == []
    assert "was taken down" in (lakehouse.intake.refusal(row) or ("", ""))[1]
    assert lakehouse.intake.taken_down({taken_down}) != {}


def test_revive_brings_it_back(lakehouse: Lakehouse, taken_down: str) -> None:
    row = _by_sql(lakehouse, '{"revive": true}')
    (accepted,) = take_in(lakehouse.intake, [row])
    assert accepted.video_id == taken_down
    assert accepted.run_config == {"resources": {"run_options": {"config": {}}}}
    assert lakehouse.intake.taken_down({taken_down}) == {}
    lakehouse.history.open_attempt(taken_down, "raw_video", run_id="run-2", intake_id=row.intake_id)
    assert lakehouse.intake.refusal(lakehouse.intake.submit(URL, Options(), submitted_by="test")) is None


def test_revive_waits_for_the_end_of_the_removal(lakehouse: Lakehouse, taken_down: str) -> None:
    one(lakehouse, "update tombstones set verified_at = null returning 1")
    row = lakehouse.intake.submit(URL, Options(revive=True), submitted_by="test")
    assert "is not finished" in (lakehouse.intake.refusal(row) or ("", ""))[1]
    assert take_in(lakehouse.intake, [_by_sql(lakehouse, '{"revive": true}')]) == []
    assert lakehouse.intake.taken_down({taken_down}) != {}


def test_a_video_that_is_taken_down_while_it_is_taken_in_is_not_named(lakehouse: Lakehouse, taken_down: str) -> None:
    row = _by_sql(lakehouse)
    assert lakehouse.intake.name_rows({row.intake_id: taken_down}) == set()
    assert lakehouse.intake.row(row.intake_id).video_id is None


def test_revive_makes_no_other_submission_of_an_equal_one(lakehouse: Lakehouse) -> None:
    first = lakehouse.intake.submit(URL, Options(max_moments=3), submitted_by="test")
    lakehouse.intake.submit(URL, Options(max_moments=3, revive=True), submitted_by="test")
    states = Results(lakehouse).rows("select state, duplicate_of from intake_state order by intake_id desc")
    assert states[0] == {"state": "duplicate", "duplicate_of": first.intake_id}


def test_what_a_straggler_says_of_a_video_that_is_gone_is_not_kept(lakehouse: Lakehouse, taken_down: str) -> None:
    error = PermanentError("It did not go well.")
    lakehouse.history.note_failure(taken_down, "audio", run_id="run-1", intake_id=1, error=error)
    lakehouse.intake.refuse(IntakeRow(1, URL, taken_down, {}, 0, None), error)
    assert one(lakehouse, "select count(*) from pipeline_history") == 0


# The commands


def test_several_videos_need_a_second_word(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, moments_command: Command
) -> None:
    urls = [URL, "https://example.org/other.mp4"]
    for url in urls:
        lakehouse.intake.submit(url, Options(), submitted_by="test")
    refused = moments_command("delete", *urls, "--yes")
    assert refused.returncode == 2
    assert "add --bulk" in refused.stderr
    assert one(lakehouse, "select count(*) from url_intake") == 2
    done = moments_command("delete", *urls, "--yes", "--bulk", "--json")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(line) for line in told] == [{"video_id", "objects", "bytes", "rows", "runs"}] * 2
    assert one(lakehouse, "select count(*) from url_intake") == 0


def test_a_video_that_was_taken_down_is_shown_by_nobody_and_can_be_deleted_again(
    lakehouse: Lakehouse, taken_down: str, moments_command: Command
) -> None:
    one(lakehouse, "update tombstones set verified_at = null returning 1")  # as if the end of it had broken off
    assert Results(lakehouse).states().rows == []
    for video in (taken_down, URL):
        shown = moments_command("show", video)
        assert shown.returncode == 1
        assert f"{taken_down} was taken down on" in shown.stderr
    again = moments_command("delete", URL, "--yes")
    assert again.returncode == 0, again.stderr
    assert "nothing is left" in again.stdout
    assert one(lakehouse, VERIFIED, id=taken_down) is True


def test_process_tells_and_revives(lakehouse: Lakehouse, instance: dg.DagsterInstance, tmp_path: Path,
                                   moments_command: Command) -> None:  # fmt: skip
    file = tmp_path / "no.mp4"
    file.write_bytes(b"no video")
    video_id = str(lakehouse.intake.submit(str(file), Options(), submitted_by="test").video_id)
    take_down(lakehouse, video_id)
    refused = moments_command("process", str(file), "--json")
    assert refused.returncode == 1
    assert "was taken down" in json.loads(refused.stdout)["error"]["reason"]
    back = json.loads(moments_command("process", str(file), "--json", "--revive").stdout)
    assert (back["video_id"], back["failed_asset"]) == (video_id, "raw_video")
    assert "taken down" not in back["error"]["reason"]
    assert lakehouse.intake.taken_down({video_id}) == {}


def test_work_is_stopped_before_anything_is_removed(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, make: Callable[[str], IntakeRow]
) -> None:
    """A process that can't be stopped could bring objects back."""
    row = make(URL)
    attempt = lakehouse.history.open_attempt(str(row.video_id), "audio", run_id="run-7", intake_id=row.intake_id)
    started = psutil.Process().create_time()
    worker = (
        "insert into workers (run_id, host, machine, pid, process_started)"
        " values ('run-7', 'elsewhere', 'another', 1, :at) returning 1"
    )
    one(lakehouse, worker, at=started)
    stopping = subprocess.Popen([sys.executable, "-c", TAKES_DOWN, str(row.video_id)], stderr=subprocess.PIPE)
    try:
        _until(lambda: one(lakehouse, "select stop_reason from workers"))
        assert one(lakehouse, "select count(*) from artifacts") == 1
        query = "select outcome from pipeline_history where attempt_id = :id"
        assert one(lakehouse, query, id=attempt.attempt_id) == "cancelled"
        one(lakehouse, "delete from workers returning 1")
        assert stopping.wait(PATIENCE_S) == 0
    finally:
        stopping.kill()
        stopping.communicate()
    assert left_of(lakehouse, instance, row) == {}
