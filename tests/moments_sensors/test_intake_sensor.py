"""The intake sensor: every waiting row becomes a partition and a run, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import pytest
from sqlalchemy import text

from moments.services import Lakehouse
from moments_core.options import Options
from moments_resources.intake import IntakeRow
from moments_sensors.intake import Accepted, Refused, decide, tick


def row(url: str, **options: object) -> IntakeRow:
    return IntakeRow(intake_id=1, url=url, video_id=None, options=options, priority=3, name=None)


def requests(lakehouse: Lakehouse) -> Sequence[dg.RunRequest]:
    """The runs that one tick asks for."""
    result = tick(lakehouse.intake)
    assert isinstance(result, dg.SensorResult)
    return result.run_requests or ()


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
    assert decision.tags == {"moments/intake_id": "1", "dagster/priority": "3"}


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


def test_a_row_inserted_by_sql_becomes_a_partition_and_a_run(lakehouse: Lakehouse) -> None:
    insert(lakehouse, "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=10", '{"max_moments": 3}')
    result = tick(lakehouse.intake)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    assert [request.partition_key for request in result.run_requests] == ["youtube-dQw4w9WgXcQ"]
    assert [request.run_key for request in result.run_requests] == ["intake-1"]
    assert [item.partition_keys for item in result.dynamic_partitions_requests or ()] == [["youtube-dQw4w9WgXcQ"]]
    assert lakehouse.intake.row(1).video_id == "youtube-dQw4w9WgXcQ"


def test_a_hostile_row_is_refused_once_and_the_others_go_on(lakehouse: Lakehouse) -> None:
    insert(lakehouse, "file:///etc/passwd")
    insert(lakehouse, "https://example.org/v.mp4", '["not", "options"]')
    insert(lakehouse, "https://example.org/w.mp4")
    assert [request.run_key for request in requests(lakehouse)] == ["intake-3"]
    assert [lakehouse.intake.refusal(lakehouse.intake.row(number)) is None for number in (1, 2, 3)] == [
        False,
        False,
        True,
    ]
    assert [waiting.intake_id for waiting in lakehouse.intake.waiting(10)] == [3]


def test_the_same_video_twice_asks_for_one_run(lakehouse: Lakehouse) -> None:
    lakehouse.intake.submit("https://youtu.be/dQw4w9WgXcQ", Options(), submitted_by="test")
    lakehouse.intake.submit("https://www.youtube.com/shorts/dQw4w9WgXcQ", Options(), submitted_by="test")
    assert [request.run_key for request in requests(lakehouse)] == ["intake-1"]


def test_a_tick_with_nothing_waiting_says_so(lakehouse: Lakehouse) -> None:
    result = tick(lakehouse.intake)
    assert isinstance(result, dg.SkipReason)
    assert result.skip_message == "No submission is waiting."
