"""The intake sensor: every waiting row becomes a partition and a run, or is refused with a reason."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import dagster as dg
import pytest
from sqlalchemy import text

from moments.services import Lakehouse
from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG, videos
from moments_core.errors import BudgetError, MediaError, TransientError
from moments_core.options import Options
from moments_resources.intake import IntakeRow
from moments_sensors import reconcile
from moments_sensors.intake import ANOTHER_TRY, IN_HAND, Accepted, Refused, decide, register, tick

URL = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
VIDEO = "youtube-dQw4w9WgXcQ"


def row(url: str, **options: object) -> IntakeRow:
    return IntakeRow(intake_id=1, url=url, video_id=None, options=options, priority=3, name=None)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def requests(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> Sequence[dg.RunRequest]:
    """The runs that one tick asks for."""
    result = tick(lakehouse.intake, lakehouse.history, instance)
    return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []


def keys(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> list[str | None]:
    return [request.run_key for request in requests(lakehouse, instance)]


def tried_again(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> Sequence[dg.RunRequest]:
    """The runs that one tick of `reconcile` asks for."""
    result = reconcile.tick(lakehouse.intake, lakehouse.history, instance)
    return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []


def run_of(
    instance: dg.DagsterInstance,
    intake_id: int,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    tags: dict[str, str] | None = None,
) -> dg.DagsterRun:
    """A run that was asked for, as far as Dagster got with it."""
    tags = {INTAKE_TAG: str(intake_id)} | (tags or {})
    run = dg.DagsterRun(process_video.name, str(uuid.uuid4()), status=status, tags=tags)
    instance.add_run(run)
    return run


def states(lakehouse: Lakehouse) -> list[str]:
    return [row["state"] for row in rows(lakehouse, "select state from intake_state order by intake_id")]


def rows(lakehouse: Lakehouse, query: str) -> list[dict[str, object]]:
    with lakehouse.database.begin() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def insert(lakehouse: Lakehouse, url: str, options: str = "{}") -> None:
    with lakehouse.database.begin() as connection:
        connection.execute(
            text("insert into url_intake (url, options) values (:url, cast(:options as jsonb))"),
            {"url": url, "options": options},
        )


def test_a_web_address_is_accepted_under_the_name_of_its_video() -> None:
    decision = decide(row("https://youtu.be/dQw4w9WgXcQ?t=3", query="bees"))
    assert isinstance(decision, Accepted)
    assert decision.video_id == "youtube-dQw4w9WgXcQ"
    assert decision.run_config == {"resources": {"run_options": {"config": {"query": "bees"}}}}
    assert decision.tags == {
        "moments/intake_id": "1",
        "dagster/priority": "3",
        "dagster/partition": "youtube-dQw4w9WgXcQ",
    }


def test_dagster_looks_for_no_partition_of_a_run_that_is_asked_for() -> None:
    decision = decide(row(URL))
    assert isinstance(decision, Accepted)
    assert decision.run_request("intake-1").has_resolved_partition()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("file:///etc/passwd", {}),
        ("upload:uploads/../../secret/x", {}),
        ("--exec", {}),
        ("https://example.org/v.mp4", {"max_moments": 0}),
        ("https://example.org/v.mp4", {"no_such_option": 1}),
    ],
)
def test_a_row_that_cannot_be_worked_on_is_refused_with_a_reason(url: str, options: dict[str, object]) -> None:
    decision = decide(row(url, **options))
    assert isinstance(decision, Refused)
    assert str(decision.error)


def test_a_row_that_claims_to_be_another_video_is_refused() -> None:
    claimed = IntakeRow(1, "https://youtu.be/dQw4w9WgXcQ", "youtube-another", {}, 0, None)
    decision = decide(claimed)
    assert isinstance(decision, Refused)
    assert "leave it empty" in str(decision.error)


def test_a_row_inserted_by_sql_becomes_a_partition_and_a_run(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    insert(lakehouse, f"{URL}&t=10", '{"max_moments": 3}')
    (request,) = requests(lakehouse, instance)
    assert (request.partition_key, request.run_key) == ("youtube-dQw4w9WgXcQ", "intake-1")
    assert instance.get_dynamic_partitions(str(videos.name)) == ["youtube-dQw4w9WgXcQ"]
    assert lakehouse.intake.row(1).video_id == "youtube-dQw4w9WgXcQ"


def test_a_hostile_row_is_refused_once_and_the_others_go_on(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    insert(lakehouse, "file:///etc/passwd")
    insert(lakehouse, "https://example.org/v.mp4", '["not", "options"]')
    insert(lakehouse, "https://example.org/w.mp4")
    assert keys(lakehouse, instance) == ["intake-3"]
    tick(lakehouse.intake, lakehouse.history, instance)
    refused = "select intake_id from pipeline_history order by attempt_id"
    assert [row["intake_id"] for row in rows(lakehouse, refused)] == [1, 2]
    assert states(lakehouse) == ["failed", "failed", "waiting"]


def test_the_same_video_twice_asks_for_one_run(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    lakehouse.intake.submit("https://youtu.be/dQw4w9WgXcQ", Options(), submitted_by="test")
    lakehouse.intake.submit("https://www.youtube.com/shorts/dQw4w9WgXcQ", Options(), submitted_by="test")
    assert keys(lakehouse, instance) == ["intake-1"]


def test_a_tick_with_nothing_waiting_says_so(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    result = tick(lakehouse.intake, lakehouse.history, instance)
    assert isinstance(result, dg.SkipReason)
    assert result.skip_message == "No submission is waiting."


def test_a_row_that_commits_late_is_not_lost(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    with lakehouse.database.engine.connect() as late, late.begin():
        late.execute(text("insert into url_intake (url) values ('https://example.org/late.mp4')"))
        insert(lakehouse, "https://example.org/early.mp4")  # a higher number, committed first
        assert keys(lakehouse, instance) == ["intake-2"]
    assert "intake-1" in keys(lakehouse, instance)


def test_a_tick_that_broke_off_is_made_good_by_the_next(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    insert(lakehouse, URL)
    lakehouse.intake.name_rows({1: "youtube-dQw4w9WgXcQ"})  # and then the daemon was killed
    assert keys(lakehouse, instance) == ["intake-1"]
    assert instance.get_dynamic_partitions(str(videos.name)) == ["youtube-dQw4w9WgXcQ"]


def test_a_submission_in_hand_is_not_asked_for_again_under_any_key(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    insert(lakehouse, URL)
    run_of(instance, 1)  # asked for by a sensor of another name, or by a tick whose end was lost
    assert keys(lakehouse, instance) == []


def test_no_more_runs_are_in_hand_than_can_be_used(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    with lakehouse.database.begin() as connection:
        many = "insert into url_intake (url) select 'https://example.org/' || n || '.mp4' from generate_series(1, 60) n"
        connection.execute(text(many))
    assert len(keys(lakehouse, instance)) == IN_HAND
    assert register(lakehouse.intake, instance) == 0
    assert len(instance.get_dynamic_partitions(str(videos.name))) == 60


def test_who_asks_first_by_priority_is_asked_for_first(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    for name, priority in (("a", 0), ("b", 5)):
        lakehouse.intake.submit(f"https://example.org/{name}.mp4", Options(), submitted_by="test", priority=priority)
    assert keys(lakehouse, instance) == ["intake-2", "intake-1"]


@pytest.mark.parametrize(
    ("status", "state"),
    [(dg.DagsterRunStatus.FAILURE, "waiting"), (dg.DagsterRunStatus.CANCELED, "cancelled")],
)
def test_a_run_that_ended_before_its_first_step_ends_its_submission_or_is_followed_by_another(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, state: str
) -> None:
    insert(lakehouse, URL)
    run_of(instance, 1, status)  # its key never fires again
    assert keys(lakehouse, instance) == []
    assert states(lakehouse) == [state]
    (attempt,) = rows(lakehouse, "select try_again_at is not null as again, cause from pipeline_history")
    assert attempt["again"] == (state == "waiting")


def struck(lakehouse: Lakehouse, instance: dg.DagsterInstance, options: str = "{}") -> None:
    """Submission 1 has its raw_video, and failed at audio for a reason that has passed by now."""
    insert(lakehouse, URL, options)
    tick(lakehouse.intake, lakehouse.history, instance)
    done = lakehouse.history.open_attempt(VIDEO, "raw_video", run_id="run-1", intake_id=1)
    lakehouse.history.close_reused(done)
    failed = lakehouse.history.open_attempt(VIDEO, "audio", run_id="run-1", intake_id=1)
    lakehouse.history.close_failed(failed, TransientError("Away."), will_retry=False)
    due(lakehouse)


def due(lakehouse: Lakehouse) -> None:
    with lakehouse.database.begin() as connection:
        connection.execute(text("update pipeline_history set try_again_at = now() where try_again_at is not null"))


def test_what_failed_and_may_go_well_is_asked_for_again_when_it_is_time(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    struck(lakehouse, instance)
    with lakehouse.database.begin() as connection:
        connection.execute(
            text("update pipeline_history set try_again_at = now() + interval '1 h' where try_again_at is not null")
        )
    assert tried_again(lakehouse, instance) == []
    due(lakehouse)
    (request,) = tried_again(lakehouse, instance)
    assert (request.run_key, request.tags["dagster/priority"]) == ("again-1-1", "1")  # before first runs
    assert request.asset_selection is None  # what stands is kept by the steps themselves, and checked to fit
    run_of(instance, 1)
    assert tried_again(lakehouse, instance) == []


def test_who_wants_everything_made_anew_gets_the_missing_assets_alone(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    struck(lakehouse, instance, '{"force": true}')
    (request,) = tried_again(lakehouse, instance)
    assert [key.path[-1] for key in request.asset_selection or ()] == [
        "audio", "transcript", "scene_cuts", "thumbnails", "moments", "clips", "refined_moments"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "state"),
    [(dg.DagsterRunStatus.FAILURE, "waiting"), (dg.DagsterRunStatus.CANCELED, "cancelled")],
)
def test_another_try_that_ended_before_its_first_step_is_not_waited_for_for_ever(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, state: str
) -> None:
    struck(lakehouse, instance)
    run_of(instance, 1, status)  # killed while it loaded its code, or cancelled in the queue: its key is used up
    assert tried_again(lakehouse, instance) == []
    assert states(lakehouse) == [state]
    due(lakehouse)
    assert [request.run_key for request in tried_again(lakehouse, instance)] == (
        ["again-1-2"] if state == "waiting" else []
    )


def test_a_run_that_was_cancelled_after_a_failure_of_its_own_is_not_tried_again(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    insert(lakehouse, URL)
    tick(lakehouse.intake, lakehouse.history, instance)
    run = run_of(instance, 1, dg.DagsterRunStatus.CANCELED)
    failed = lakehouse.history.open_attempt(VIDEO, "raw_video", run_id=run.run_id, intake_id=1)
    lakehouse.history.close_failed(failed, TransientError("Away."), will_retry=False)
    due(lakehouse)
    assert tried_again(lakehouse, instance) == []
    assert states(lakehouse) == ["cancelled"]


def test_other_tries_do_not_take_the_places_of_first_runs_nor_flood_the_queue(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    struck(lakehouse, instance)
    for number in range(reconcile.AT_ONCE):
        run_of(instance, 100 + number, tags={ANOTHER_TRY: "yes"})
    assert tried_again(lakehouse, instance) == []
    insert(lakehouse, "https://example.org/new.mp4")
    assert keys(lakehouse, instance) == ["intake-2"]


def test_a_failure_for_a_budget_is_no_try(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    insert(lakehouse, URL)
    tick(lakehouse.intake, lakehouse.history, instance)
    for number in range(9):
        attempt = lakehouse.history.open_attempt(VIDEO, "raw_video", run_id=f"day-{number}", intake_id=1)
        over = BudgetError("Over.", not_before="2020-01-01T00:00:00+00:00")
        lakehouse.history.close_failed(attempt, over, will_retry=False)
    last = lakehouse.history.open_attempt(VIDEO, "raw_video", run_id="run-1", intake_id=1)
    lakehouse.history.close_failed(last, TransientError("Away."), will_retry=False)
    assert states(lakehouse) == ["waiting"]


def test_what_will_fail_again_is_settled_and_not_asked_for(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> None:
    insert(lakehouse, URL)
    tick(lakehouse.intake, lakehouse.history, instance)
    attempt = lakehouse.history.open_attempt("youtube-dQw4w9WgXcQ", "raw_video", run_id="run-1", intake_id=1)
    lakehouse.history.close_failed(attempt, MediaError("Broken."), will_retry=False)
    assert (keys(lakehouse, instance), tried_again(lakehouse, instance)) == ([], [])
    assert rows(lakehouse, "select settled, state from intake_state") == [{"settled": True, "state": "failed"}]


def test_a_settled_submission_that_is_worked_on_again_is_seen_to_again(
    lakehouse: Lakehouse, instance: dg.DagsterInstance
) -> None:
    test_what_will_fail_again_is_settled_and_not_asked_for(lakehouse, instance)
    lakehouse.history.open_attempt("youtube-dQw4w9WgXcQ", "raw_video", run_id="run-2", intake_id=1)
    assert rows(lakehouse, "select settled, state from intake_state") == [{"settled": False, "state": "running"}]
