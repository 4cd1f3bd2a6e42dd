"""Superseded versions go after a while; what is current, what it was made from, and what is being read stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from moments_core.errors import TransientError
from moments_core.model_entry import Price
from moments_resources import gate
from moments_resources.catalogue import Artifact, Catalogue
from moments_resources.models.calls import CallLedger
from moments_resources.retention.part import Cleaned, Part, Retention
from moments_resources.retention.versions import OldReplies, OldVersions

Make = Callable[..., Artifact]
Run = Callable[[Part[Any]], Cleaned]
Sql = Callable[..., list[dict[str, Any]]]

STANDING = "select asset, version from artifacts order by asset, version"


@pytest.fixture
def part(retention: Retention) -> OldVersions:
    return OldVersions(retention)


def standing(sql: Sql) -> list[tuple[str, int]]:
    return [(row["asset"], row["version"]) for row in sql(STANDING)]


def test_a_version_that_was_superseded_long_ago_goes_with_its_rows(
    part: OldVersions, make: Make, age: Any, sql: Sql, run: Run, weigh: Run, catalogue: Catalogue, video_id: str
) -> None:
    for _ in range(3):
        current = make("scene_cuts")
    age("artifacts", "superseded_at", days=31)
    assert weigh(part) == {"versions": 2}
    assert standing(sql) == [("scene_cuts", 1), ("scene_cuts", 2), ("scene_cuts", 3)]
    assert run(part) == {"versions": 2, "rows": 2}
    assert standing(sql) == [("scene_cuts", 3)]
    assert sql("select version from versions.scene_cuts") == [{"version": 3}]
    assert catalogue.current(video_id, "scene_cuts") == current
    assert run(part) == {}
    assert make("scene_cuts").version == 4  # numbers are never given again


def test_a_version_that_was_superseded_lately_stays(
    part: OldVersions, make: Make, age: Any, sql: Sql, run: Run
) -> None:
    make("scene_cuts")
    make("scene_cuts")
    age("artifacts", "superseded_at", days=29)
    age("artifacts", "committed_at", days=400)
    assert run(part) == {}
    assert len(standing(sql)) == 2


def test_a_current_version_stays_however_old_it_is(part: OldVersions, make: Make, age: Any, sql: Sql, run: Run) -> None:
    make("scene_cuts")
    age("artifacts", "committed_at", days=400)
    assert run(part) == {}
    assert standing(sql) == [("scene_cuts", 1)]


def test_what_a_version_that_stays_was_made_from_stays_too(
    part: OldVersions, make: Make, age: Any, sql: Sql, run: Run
) -> None:
    """The clips of moments v1 are current: so moments v1 stays, and raw_video v1 that it was made from."""
    make("raw_video")
    make("moments", inputs={"raw_video": 1})
    make("clips", inputs={"moments": 1})
    make("moments", inputs={"raw_video": 1})  # never used
    make("raw_video")
    make("moments", inputs={"raw_video": 2})
    age("artifacts", "superseded_at", days=31)
    assert run(part)["versions"] == 1
    assert standing(sql) == [("clips", 1), ("moments", 1), ("moments", 3), ("raw_video", 1), ("raw_video", 2)]


def test_lineage_of_a_version_that_is_still_kept_leads_somewhere(
    part: OldVersions, make: Make, age: Any, sql: Sql, run: Run
) -> None:
    make("raw_video")
    make("scene_cuts", inputs={"raw_video": 1})
    make("raw_video")
    age("artifacts", "superseded_at", days=31)
    make("scene_cuts", inputs={"raw_video": 2})  # supersedes the first just now
    assert run(part) == {"versions": 0, "rows": 0}
    assert len(standing(sql)) == 4


def test_nothing_goes_of_a_video_at_which_a_step_is_at_work(
    part: OldVersions, make: Make, age: Any, sql: Sql, run: Run, weigh: Run, catalogue: Catalogue, video_id: str
) -> None:
    make("scene_cuts")
    make("scene_cuts")
    age("artifacts", "superseded_at", days=31)
    attempt = catalogue.history.open_attempt(video_id, "clips", run_id="run-2")
    assert weigh(part)["versions"] == run(part)["versions"] == 0
    assert len(standing(sql)) == 2
    catalogue.history.close_failed(attempt, TransientError("Away."), will_retry=True)  # the next try reads it again
    run(part)
    assert len(standing(sql)) == 2
    again = catalogue.history.open_attempt(video_id, "clips", run_id="run-2")
    catalogue.history.close_reused(again)
    assert run(part)["versions"] == 1


def test_a_step_that_begins_meanwhile_waits_until_the_versions_are_gone(
    part: OldVersions, make: Make, age: Any, sql: Sql, database: Any, video_id: str, waiters: Any, until: Any
) -> None:
    make("scene_cuts")
    make("scene_cuts")
    age("artifacts", "superseded_at", days=31)
    with database.begin() as connection:
        gate.enter(connection, video_id)  # somebody is about to begin
        cleaning = threading.Thread(target=part.remove, args=(video_id,))
        cleaning.start()
        until(waiters)
        assert len(standing(sql)) == 2
    cleaning.join()
    assert standing(sql) == [("scene_cuts", 2)]


def test_replies_go_with_the_version_that_they_led_to_and_their_numbers_stay(
    retention: Retention, make: Make, age: Any, sql: Sql, run: Run, weigh: Run, catalogue: Catalogue, video_id: str
) -> None:
    def ask(question: str) -> None:
        attempt = catalogue.history.open_attempt(video_id, "moments", run_id="run-1")
        ledger = CallLedger(retention.database, attempt)
        ledger.keep(ledger.begin("model", question, None), f"to {question}", seconds=1, price=Price(per_hour=1800))
        catalogue.history.close_failed(attempt, TransientError("Away."), will_retry=False)

    ask("first")
    make("moments")
    ask("second")
    make("moments")
    ask("third")  # an attempt that failed: the next one takes the reply
    age("artifacts", "superseded_at", days=31)
    age("model_calls", "started_at", days=31)
    part = OldReplies(retention)
    assert run(part) == {}  # its version still stands
    run(OldVersions(retention))
    assert weigh(part) == run(part) == {"replies": 1}
    replies = sql("select reply, cost from model_calls order by call_id")
    assert [row["reply"] for row in replies] == ["", "to second", "to third"]
    assert {row["cost"] for row in replies} == {0.5}
    again = catalogue.history.open_attempt(video_id, "moments", run_id="run-2")
    stored = CallLedger(retention.database, again)
    assert stored.stored("model", "first") is None
    taken = stored.stored("model", "third")
    assert taken is not None
    assert taken.body == "to third"
    assert run(part) == {}
