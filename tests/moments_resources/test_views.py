from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moments_core.errors import CancelledError, MediaError, NetworkError, SourceError
from moments_resources.catalogue import Artifact, Catalogue, Draft, Recipe
from moments_resources.database import Database
from moments_resources.history import Attempt, History
from moments_resources.intake import Intake, IntakeRow
from moments_resources.tables import ASSET_TABLES

Sql = Callable[..., list[dict[str, Any]]]
Submit = Callable[..., IntakeRow]
Commit = Callable[..., Artifact]
URL = "https://example.org/talk.mp4"


@pytest.fixture
def states(sql: Sql) -> Callable[[], list[str]]:
    """The state of each submission, the oldest first."""
    return lambda: [row["state"] for row in sql("select state from intake_state order by intake_id")]


@pytest.fixture
def begin(catalogue: Catalogue) -> Callable[[IntakeRow, str], Attempt]:
    """Opens an attempt at an asset for a submission."""

    def run(row: IntakeRow, asset: str) -> Attempt:
        return catalogue.history.open_attempt(
            str(row.video_id), asset, run_id=f"run-{row.intake_id}", intake_id=row.intake_id
        )

    return run


@pytest.fixture
def finish(catalogue: Catalogue, begin: Callable[[IntakeRow, str], Attempt]) -> Callable[..., None]:
    """Takes a submission through assets; every second one is found to stand."""

    def run(row: IntakeRow, *assets: str) -> None:
        for number, asset in enumerate(assets or ASSET_TABLES):
            attempt = begin(row, asset)
            if number % 2:
                catalogue.history.close_reused(attempt)
            else:
                catalogue.commit(Draft(attempt, Recipe("1", {}), {}, [], 0.0))

    return run


def fail(catalogue: Catalogue, attempt: Attempt, error: BaseException, *, will_retry: bool = False) -> None:
    catalogue.history.close_failed(attempt, error, will_retry=will_retry)


def test_a_submission_waits_until_its_first_attempt(submit: Submit, begin: Any, states: Any) -> None:
    row = submit(URL)
    assert states() == ["waiting"]
    begin(row, "raw_video")
    assert states() == ["running"]


def test_a_submission_runs_between_two_assets_and_while_it_is_retried(
    submit: Submit, begin: Any, finish: Any, catalogue: Catalogue, states: Any
) -> None:
    row = submit(URL)
    finish(row, "raw_video")
    assert states() == ["running"]
    fail(catalogue, begin(row, "audio"), NetworkError("Away."), will_retry=True)
    assert states() == ["running"]


def test_a_submission_is_completed_when_every_asset_is_there_made_or_kept(
    submit: Submit, finish: Any, states: Any
) -> None:
    row = submit(URL)
    finish(row, *list(ASSET_TABLES)[:-1])
    assert states() == ["running"]
    finish(row, list(ASSET_TABLES)[-1])
    assert states() == ["completed"]


def test_a_submission_that_failed_says_where_and_why(
    submit: Submit, begin: Any, finish: Any, catalogue: Catalogue, sql: Sql
) -> None:
    row = submit(URL)
    finish(row, "raw_video")
    fail(catalogue, begin(row, "audio"), MediaError("No sound can be read."))
    assert sql("select state, failed_asset, class, cause from intake_state") == [
        {"state": "failed", "failed_asset": "audio", "class": "permanent", "cause": "No sound can be read."}
    ]


def test_a_submission_runs_as_long_as_one_of_its_assets_does(
    submit: Submit, begin: Any, catalogue: Catalogue, states: Any
) -> None:
    row = submit(URL)
    begin(row, "scene_cuts")
    fail(catalogue, begin(row, "audio"), MediaError("x"))
    assert states() == ["running"]


def test_a_retry_that_goes_well_takes_a_failure_back(
    submit: Submit, begin: Any, finish: Any, catalogue: Catalogue, states: Any
) -> None:
    row = submit(URL)
    fail(catalogue, begin(row, "raw_video"), NetworkError("x"))
    assert states() == ["waiting"]
    finish(row)
    assert states() == ["completed"]


def test_a_submission_that_somebody_stopped_is_cancelled(
    submit: Submit, begin: Any, catalogue: Catalogue, states: Any
) -> None:
    fail(catalogue, begin(submit(URL), "raw_video"), CancelledError("Stopped."))
    assert states() == ["cancelled"]


def test_a_refused_submission_has_failed_and_so_has_the_same_one_again(submit: Submit, states: Any) -> None:
    for _ in range(2):
        submit("ftp://example.org/x")
    assert states() == ["failed", "failed"]


def test_the_same_asked_for_again_is_a_duplicate_of_the_first(submit: Submit, finish: Any, sql: Sql) -> None:
    first, _, _ = submit(URL, max_moments=3, query="x"), submit(URL, query="x", max_moments=3), submit(URL)
    finish(first)
    rows = sql("select state, duplicate_of from intake_state order by intake_id")
    assert [row["state"] for row in rows] == ["completed", "duplicate", "waiting"]
    assert [row["duplicate_of"] for row in rows] == [None, first.intake_id, None]


def test_a_duplicate_is_one_while_the_first_still_waits_or_runs(submit: Submit, begin: Any, states: Any) -> None:
    first, _ = submit(URL), submit(URL)
    assert states() == ["waiting", "duplicate"]
    begin(first, "raw_video")
    assert states() == ["running", "duplicate"]


def test_asked_for_again_after_a_failure_it_is_run_again(
    submit: Submit, begin: Any, catalogue: Catalogue, intake: Intake, states: Any
) -> None:
    fail(catalogue, begin(submit(URL), "raw_video"), SourceError("404"))
    second, _ = submit(URL), submit(URL)
    assert states() == ["failed", "waiting", "duplicate"]
    intake.mark_registered([1, 2, 3, second.intake_id, second.intake_id + 1])
    assert [row.intake_id for row in intake.waiting(10)] == [second.intake_id]


def test_a_failure_that_may_go_well_waits_for_its_next_try_and_equal_submissions_wait_with_it(
    submit: Submit, begin: Any, catalogue: Catalogue, states: Any, sql: Sql
) -> None:
    first = submit(URL)
    fail(catalogue, begin(first, "raw_video"), NetworkError("Away."))
    submit(URL)
    assert states() == ["waiting", "duplicate"]
    row = sql("select cause, failed_asset, tries, not_before > now() as later from intake_state order by intake_id")[0]
    assert row == {"cause": "Away.", "failed_asset": "raw_video", "tries": 1, "later": True}


def test_a_submission_has_failed_once_its_tries_are_used_up(
    submit: Submit, database: Database, begin: Any, states: Any, sql: Sql
) -> None:
    row, history = submit(URL), History(database, tries=3)
    pauses = []
    for number in range(3):
        attempt = history.open_attempt(str(row.video_id), "raw_video", run_id=f"run-{number}", intake_id=row.intake_id)
        history.close_failed(attempt, NetworkError("Away."), will_retry=False)
        newest = "select extract(epoch from try_again_at - ended_at) as s from latest_attempts"
        pauses.append(sql(newest)[0]["s"])
    assert [None if pause is None else round(pause) for pause in pauses] == [10, 30, None]
    assert states() == ["failed"]


def test_once_something_was_made_tries_and_pauses_begin_anew(submit: Submit, database: Database, sql: Sql) -> None:
    row, history = submit(URL), History(database, tries=3)

    def failed_at(asset: str, number: int) -> int:
        attempt = history.open_attempt(str(row.video_id), asset, run_id=f"run-{number}", intake_id=row.intake_id)
        history.close_failed(attempt, NetworkError("Away."), will_retry=False)
        newest = "select extract(epoch from try_again_at - ended_at) as s from pipeline_history"
        return round(sql(f"{newest} order by attempt_id desc limit 1")[0]["s"])

    assert [failed_at("raw_video", 1), failed_at("raw_video", 2)] == [10, 30]
    history.open_attempt(str(row.video_id), "raw_video", run_id="run-3", intake_id=row.intake_id)
    sql("update pipeline_history set outcome = 'completed', ended_at = now(), seconds = 1 where outcome = 'running'")
    assert [failed_at("audio", 3), failed_at("audio", 4)] == [10, 30]


def test_one_asset_that_will_fail_again_decides_over_others_that_may_go_well(
    submit: Submit, begin: Any, catalogue: Catalogue, states: Any, sql: Sql
) -> None:
    row = submit(URL)
    fail(catalogue, begin(row, "audio"), SourceError("No sound."))
    fail(catalogue, begin(row, "scene_cuts"), NetworkError("Away."))
    assert states() == ["failed"]
    assert sql("select cause from intake_state") == [{"cause": "No sound."}]


def test_a_duplicate_stays_one_whatever_is_made_of_the_video_later(
    submit: Submit, finish: Any, states: Any, begin: Any
) -> None:
    finish(submit(URL))
    submit(URL)
    finish(submit(URL, max_moments=2))
    assert states() == ["completed", "duplicate", "completed"]


def test_equal_submissions_share_the_failure_of_the_one_that_ran(
    submit: Submit, begin: Any, catalogue: Catalogue, intake: Intake, sql: Sql
) -> None:
    first, _ = submit(URL), submit(URL)
    fail(catalogue, begin(first, "raw_video"), SourceError("404"))
    rows = sql("select state, duplicate_of from intake_state order by intake_id")
    assert [(row["state"], row["duplicate_of"]) for row in rows] == [("failed", None), ("duplicate", first.intake_id)]
    assert intake.waiting(10) == []


def test_asked_for_again_after_something_else_was_made_of_the_video_it_is_run_again(
    submit: Submit, finish: Any, states: Any
) -> None:
    finish(submit(URL))
    finish(submit(URL, max_moments=2), "raw_video", "moments")
    submit(URL)
    assert states()[-1] == "waiting"


def test_a_forced_submission_is_no_duplicate(submit: Submit, states: Any) -> None:
    for _ in range(2):
        submit(URL, force=True)
    submit(URL, force=False)
    submit(URL, force=False)
    assert states() == ["waiting", "waiting", "waiting", "duplicate"]


def test_other_videos_are_no_duplicates(submit: Submit, states: Any) -> None:
    for number in range(2):
        submit(f"{URL}?n={number}")
    assert states() == ["waiting", "waiting"]


@pytest.mark.parametrize("options", ["[]", "null", '"force"', "true", "3", '["force"]', '{"force": "yes"}'])
def test_hostile_options_do_not_break_the_view(submit: Submit, sql: Sql, states: Any, options: str) -> None:
    for _ in range(2):
        sql(
            "insert into url_intake (url, video_id, options) values (:url, 'web-1', cast(:options as jsonb))",
            url=URL,
            options=options,
        )
    submit(URL)
    assert states() == ["waiting", "duplicate", "waiting"]


def test_failures_name_the_newest_attempt_with_its_address_and_title(
    submit: Submit, begin: Any, finish: Any, catalogue: Catalogue, intake: Intake, sql: Sql
) -> None:
    row = submit(URL)
    fail(catalogue, begin(row, "audio"), NetworkError("The first."))
    fail(catalogue, begin(row, "audio"), MediaError("The second."))
    fail(catalogue, begin(row, "moments"), MediaError("It was."))
    finish(row, "moments")
    refused = submit("ftp://example.org/x")
    intake.refuse(refused, SourceError("Again."))
    rows = sql("select video_id, url, asset, class, cause from failures order by video_id")
    assert rows == [
        {"video_id": row.video_id, "url": URL, "asset": "audio", "class": "permanent", "cause": "The second."},
        {"video_id": None, "url": refused.url, "asset": "raw_video", "class": "permanent", "cause": "Again."},
    ]


def test_a_stopped_attempt_is_among_the_failures_and_a_running_one_is_not(
    submit: Submit, begin: Any, catalogue: Catalogue, sql: Sql
) -> None:
    row = submit(URL)
    fail(catalogue, begin(row, "audio"), KeyboardInterrupt())
    begin(row, "moments")
    assert [row["asset"] for row in sql("select asset from failures")] == ["audio"]


def test_a_view_shows_the_current_version_alone_with_times_in_seconds(
    commit: Commit, sql: Sql, moment_rows: Callable[..., list[dict[str, Any]]]
) -> None:
    recipe = Recipe("1", {"maker": "test"})
    commit(moment_rows(recipe, 3), "moments")
    commit(moment_rows(recipe, 1), "moments")
    commit(moment_rows(recipe, 2), "moments", video_id="web-2")
    rows = sql("select video_id, version, start_time, end_time from moments order by video_id, ordinal")
    assert [(row["version"], float(row["start_time"]), float(row["end_time"])) for row in rows] == [
        (2, 10.0, 15.5),
        (1, 10.0, 15.5),
        (1, 20.0, 25.5),
    ]
    assert sql("select count(*) as n from versions.moments") == [{"n": 6}]


def test_a_view_takes_no_version_of_another_asset_for_its_own(commit: Commit, sql: Sql) -> None:
    commit([{"time_ms": 1, "score": 1.0}])
    commit([])
    commit([], asset="thumbnails")  # version 1, current: it says nothing on the scene cuts
    assert sql("select * from scene_cuts") == []


def transcript(*sentences: str) -> dict[str, Any]:
    segments = [
        {"start_ms": n * 1000, "end_ms": n * 1000 + 900, "text": text, "speaker": None if n else "Ada"}
        for n, text in enumerate(sentences)
    ]
    return {
        "has_speech": bool(sentences),
        "language": "en",
        "source": "speech_model",
        "model": "m",
        "word_timing": "none",
        "full_text": " ".join(sentences),
        "word_timestamps": [],
        "segment_timestamps": segments,
    }


def test_the_sentences_of_a_transcript_are_rows_in_time_order(commit: Commit, sql: Sql) -> None:
    commit([transcript("Ships sail.", "Old.")], "transcript")
    commit([transcript("Ships sail.", "They sink.")], "transcript")
    rows = sql("select version, ordinal, start_time, text, speaker from transcript_segments order by ordinal")
    assert [
        (row["version"], row["ordinal"], float(row["start_time"]), row["text"], row["speaker"]) for row in rows
    ] == [
        (2, 1, 0.0, "Ships sail.", "Ada"),
        (2, 2, 1.0, "They sink.", None),
    ]


def test_a_video_without_speech_has_no_sentences(commit: Commit, sql: Sql) -> None:
    commit([transcript()], "transcript")
    assert sql("select * from transcript_segments") == []
    assert sql("select has_speech from transcripts") == [{"has_speech": False}]


def test_what_was_said_is_found_by_the_index(commit: Commit, catalogue: Catalogue, sql: Sql) -> None:
    commit([transcript("Ships sail.", *[f"Nothing {number}." for number in range(3000)])], "transcript")
    search = "select text from transcript_segments where to_tsvector('simple', text) @@ to_tsquery('simple', 'ships')"
    assert sql(search) == [{"text": "Ships sail."}]
    with catalogue.database.begin() as connection:
        connection.exec_driver_sql("analyze versions.transcript_segments, public.artifacts")
        plan = "\n".join(connection.exec_driver_sql(f"explain {search}").scalars())
    assert "transcript_segments_text" in plan
