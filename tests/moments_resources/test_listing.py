"""The videos of a list become submissions: all of them or none, each once, and no deeper than a list in a list."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from moments_core.errors import FenceError, SourceError
from moments_core.options import Options
from moments_resources import gate, tombstones
from moments_resources.database import Database
from moments_resources.intake import Intake, IntakeRow
from moments_resources.listing import submit_entries
from moments_resources.sites import identify
from moments_resources.step import Step
from moments_resources.video_lists import Entry, ListFound

Sql = Callable[..., list[dict[str, Any]]]
NewStep = Callable[..., Step]

LIST = "https://example.org/list"
TALKS = tuple(f"https://example.org/{name}.mp4" for name in "cab")
_LISTED = "select url, name from url_intake where listed_in = :id order by intake_id"


def listed(*urls: str, skipped: int = 0) -> ListFound:
    return ListFound(tuple(Entry(url, identify(url), url[-5]) for url in urls), skipped)


@pytest.fixture
def row(intake: Intake) -> IntakeRow:
    """A submission whose address is a list's."""
    return intake.submit(LIST, Options(max_moments=3), submitted_by="an analyst", priority=7)


@pytest.fixture
def expand(new_step: NewStep) -> Callable[..., None]:
    """`expand(row, found)`: a step at raw_video that finds the list."""

    def expand(row: IntakeRow, found: ListFound) -> None:
        with new_step("raw_video", str(row.video_id), intake_id=row.intake_id) as step:
            step.expand(found, row.intake_id)

    return expand


def test_each_video_becomes_a_submission_like_the_lists_own(
    row: IntakeRow, expand: Callable[..., None], intake: Intake, sql: Sql
) -> None:
    expand(row, listed(*TALKS, skipped=1))
    assert sql(_LISTED, id=row.intake_id) == [{"url": url, "name": url[-5]} for url in TALKS]
    rows = intake.listed_in(row.intake_id)
    assert [(new.url, new.video_id, new.options, new.priority) for new in rows] == [
        (url, identify(url), {"max_moments": 3}, 7) for url in TALKS
    ]
    assert sql("select distinct submitted_by from url_intake") == [{"submitted_by": "an analyst"}]
    [ended] = sql("select outcome, evidence, ended_at is not null as has_ended from pipeline_history")
    assert (ended["outcome"], ended["has_ended"]) == ("listed", True)
    assert (ended["evidence"]["entries"], ended["evidence"]["new"], ended["evidence"]["skipped"]) == (3, 3, 1)
    states = sql("select intake_id, state from intake_state order by intake_id")
    assert [state["state"] for state in states] == ["completed", "waiting", "waiting", "waiting"]


def test_a_list_that_is_taken_in_again_adds_only_what_is_new(
    row: IntakeRow, expand: Callable[..., None], sql: Sql
) -> None:
    expand(row, listed(*TALKS[:2]))
    expand(row, listed(*TALKS))
    assert [new["url"] for new in sql(_LISTED, id=row.intake_id)] == [*TALKS[:2], TALKS[2]]
    ended = sql("select evidence->'new' as new from pipeline_history order by attempt_id")
    assert [attempt["new"] for attempt in ended] == [2, 1]


def test_a_video_that_was_taken_down_does_not_come_back_with_its_list(
    row: IntakeRow, expand: Callable[..., None], database: Database, sql: Sql
) -> None:
    """Nor do its address and its title."""
    with database.begin() as connection:
        tombstones.lay(connection, identify(TALKS[1]), by="test")
    expand(row, listed(*TALKS, skipped=1))
    assert [new["url"] for new in sql(_LISTED, id=row.intake_id)] == [TALKS[0], TALKS[2]]
    [ended] = sql("select evidence from pipeline_history")
    assert (ended["evidence"]["entries"], ended["evidence"]["new"], ended["evidence"]["skipped"]) == (2, 2, 2)
    assert ended["evidence"]["note"] == "Left out, for they are no web addresses: 1. 1 were taken down."


def test_a_takedown_that_goes_on_meanwhile_is_waited_for(
    row: IntakeRow, expand: Callable[..., None], database: Database, sql: Sql, waiters: Any, until: Any
) -> None:
    with database.begin() as connection:
        gate.shut(connection, identify(TALKS[1]))
        tombstones.lay(connection, identify(TALKS[1]), by="test")
        expanding = threading.Thread(target=expand, args=(row, listed(*TALKS)))
        expanding.start()
        until(lambda: waiters() or not expanding.is_alive())
    expanding.join()
    assert [new["url"] for new in sql(_LISTED, id=row.intake_id)] == [TALKS[0], TALKS[2]]


def test_a_list_that_is_submitted_again_is_read_again_and_its_videos_are_worked_on_once(
    row: IntakeRow, expand: Callable[..., None], intake: Intake, sql: Sql
) -> None:
    expand(row, listed(*TALKS))
    again = intake.submit(LIST, Options(max_moments=3), submitted_by="test")
    assert sql("select state from intake_state where intake_id = :id", id=again.intake_id) == [{"state": "waiting"}]
    expand(again, listed(*TALKS))
    states = sql("select state from intake_state where listed_in = :id", id=again.intake_id)
    assert [state["state"] for state in states] == ["duplicate"] * 3


def test_an_attempt_that_was_overtaken_submits_nothing(row: IntakeRow, new_step: NewStep, sql: Sql) -> None:
    """As after a crash: what came back to life, or was only slow, meets the attempt that took its place."""

    def work() -> None:
        with new_step("raw_video", str(row.video_id), intake_id=row.intake_id) as step:
            sql("update pipeline_history set outcome = 'failed', class = 'transient', cause = 'x', ended_at = now()")
            step.expand(listed(*TALKS), row.intake_id)

    with pytest.raises(FenceError):
        work()
    assert sql(_LISTED, id=row.intake_id) == []
    assert sql("select outcome from pipeline_history") == [{"outcome": "failed"}]


def test_a_list_that_breaks_off_half_way_leaves_no_part_of_it(
    changes_schema: None, row: IntakeRow, new_step: NewStep, database: Database, sql: Sql
) -> None:
    sql("alter table pipeline_history add constraint no_lists check (outcome <> 'listed')")
    step = new_step("raw_video", str(row.video_id), intake_id=row.intake_id)
    with pytest.raises(Exception, match="no_lists"), step:
        submit_entries(database, step.attempt, row.intake_id, listed(*TALKS))
    assert sql(_LISTED, id=row.intake_id) == []
    assert sql("select outcome from pipeline_history") == [{"outcome": "failed"}]


def test_a_list_in_a_list_is_taken_in_and_one_in_that_is_refused(
    row: IntakeRow, expand: Callable[..., None], intake: Intake, sql: Sql
) -> None:
    expand(row, listed("https://example.org/inner"))
    [inner] = intake.listed_in(row.intake_id)
    expand(inner, listed("https://example.org/innermost"))
    [innermost] = intake.listed_in(inner.intake_id)
    with pytest.raises(SourceError, match="innermost is a list in a list in a list, which is not opened"):
        expand(innermost, listed(*TALKS))
    assert intake.listed_in(innermost.intake_id) == []
    last = "select outcome, class from pipeline_history order by attempt_id desc limit 1"
    assert sql(last) == [{"outcome": "failed", "class": "permanent"}]


def test_lists_that_name_each_other_do_not_name_each_other_again(
    row: IntakeRow, expand: Callable[..., None], intake: Intake
) -> None:
    expand(row, listed("https://example.org/other", TALKS[0]))
    other = intake.listed_in(row.intake_id)[0]
    expand(other, listed(LIST, TALKS[1]))
    assert [new.url for new in intake.listed_in(other.intake_id)] == [TALKS[1]]


def test_rows_that_somebody_wrote_in_a_circle_have_an_end(
    row: IntakeRow, expand: Callable[..., None], sql: Sql
) -> None:
    sql("update url_intake set listed_in = intake_id")
    with pytest.raises(SourceError, match="a list in a list in a list"):
        expand(row, listed(*TALKS))
