"""`moments status`: one line a video, what will be tried again, filters; the same states as the view intake_state."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from moments.printing import print_states
from moments.results import Results, States
from moments.services import Lakehouse
from moments_core.errors import MediaError, TransientError
from moments_core.options import Options
from moments_resources.intake import IntakeRow
from moments_resources.tables import ASSET_TABLES


def submit(house: Lakehouse, name: str, **options: object) -> IntakeRow:
    return house.intake.submit(f"https://example.org/{name}.mp4", Options(**options), submitted_by="test")


def complete(house: Lakehouse, row: IntakeRow, *, run_id: str = "run", but: int = 0) -> None:
    for asset in list(ASSET_TABLES)[: len(ASSET_TABLES) - but]:
        attempt = house.history.open_attempt(str(row.video_id), asset, run_id=run_id, intake_id=row.intake_id)
        house.history.close_reused(attempt)


def fail(house: Lakehouse, row: IntakeRow, error: Exception, *, run_id: str = "run") -> None:
    attempt = house.history.open_attempt(str(row.video_id), "raw_video", run_id=run_id, intake_id=row.intake_id)
    house.history.close_failed(attempt, error, will_retry=False)


@pytest.fixture
def videos(lakehouse: Lakehouse) -> dict[str, IntakeRow]:
    """A video for each way in which a submission can stand."""
    names = ["done", "mended", "part", "broken", "again", "waits", "works"]
    rows = {name: submit(lakehouse, name) for name in names}
    complete(lakehouse, rows["done"])
    fail(lakehouse, rows["mended"], TransientError("Away: wait."))
    complete(lakehouse, rows["mended"], run_id="second")
    complete(lakehouse, rows["part"], but=1)
    fail(lakehouse, rows["broken"], MediaError("Cut off: submit it whole."))
    fail(lakehouse, rows["again"], TransientError("Away: wait."))
    lakehouse.history.open_attempt(
        str(rows["works"].video_id), "raw_video", run_id="run", intake_id=rows["works"].intake_id
    )
    submit(lakehouse, "waits")  # a duplicate
    lakehouse.intake.submit("file:///etc/passwd", Options(), submitted_by="test")  # refused; has no name
    return rows


def test_each_video_stands_as_the_view_says(lakehouse: Lakehouse, videos: dict[str, IntakeRow]) -> None:
    results = Results(lakehouse)
    view = """
    select distinct on (coalesce(video_id, intake_id::text)) video_id, state, class, cause as reason, tries, not_before
    from intake_state where state <> 'duplicate' order by coalesce(video_id, intake_id::text), intake_id desc"""
    found = results.states()
    names = ("video_id", "state", "class", "reason", "tries", "not_before")
    assert sorted(str([row[name] for name in names]) for row in found.rows) == sorted(
        str([row[name] for name in names]) for row in results.rows(view)
    )
    assert found.counts == {"completed": 2, "failed": 2, "running": 2, "waiting": 2}
    by_id = {row["video_id"]: row for row in found.rows}
    assert by_id[videos["mended"].video_id]["tries"] == 1
    done = by_id[videos["done"].video_id]
    assert (done["attempts"], done["asset"], done["title"]) == (8, "refined_moments", "https://example.org/done.mp4")


def test_the_newest_comes_first_and_the_rest_is_counted(
    lakehouse: Lakehouse, videos: dict[str, IntakeRow], capsys: pytest.CaptureFixture[str]
) -> None:
    found = Results(lakehouse).states(limit=3)
    assert [row["video_id"] for row in found.rows][1:] == [videos["works"].video_id, videos["waits"].video_id]
    print_states(found)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "… and 5 more"
    assert shown.err == "2 completed, 2 failed, 2 running, 2 waiting\n"


def test_what_will_be_tried_again_says_when_and_after_how_many_tries(
    lakehouse: Lakehouse, videos: dict[str, IntakeRow], capsys: pytest.CaptureFixture[str]
) -> None:
    found = Results(lakehouse).states(videos["again"].video_id)
    (row,) = found.rows
    assert (row["state"], row["tries"], row["not_before"] is not None) == ("waiting", 1, True)
    print_states(found)
    assert "transient: Away: wait. Failed 1 time, again in " in capsys.readouterr().out


def test_states_can_be_asked_for_one_by_one(lakehouse: Lakehouse, videos: dict[str, IntakeRow]) -> None:
    found = Results(lakehouse).states(state="failed", limit=1)
    assert (len(found.rows), found.total, found.rows[0]["state"]) == (1, 2, "failed")
    assert Results(lakehouse).states(state="cancelled").rows == []
    assert Results(lakehouse).states("youtube-unknown") == States([], {}, 0)
    assert videos


def test_the_command_filters_and_limits_json_too(
    lakehouse: Lakehouse, videos: dict[str, IntakeRow], moments_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = moments_command("status", "--state", "waiting", "--limit", "1", "--json")
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, row["state"]) == (0, "waiting")
    assert set(row) >= {"video_id", "title", "state", "asset", "attempts", "class", "reason", "tries", "not_before"}
    assert len(moments_command("status").stdout.splitlines()) == 1 + 8  # in a pipe: all
    assert moments_command("status", "--state", "odd").returncode == 2
