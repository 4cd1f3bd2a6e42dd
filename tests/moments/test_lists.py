"""An address that leads to several videos, through the whole job and the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from moments.definitions import definitions
from moments.printing import print_result
from moments.process import process
from moments.results import Results
from moments.services import Lakehouse
from moments.worker import run_submission
from moments_assets.jobs import ASSETS, process_video
from moments_core.options import Options
from moments_resources.media.container import ffmpeg_exe
from moments_resources.sites import identify
from tests.stand_ins.web_site import MP4, WebSite, feed, page, web_site

Json = dict[str, Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Three talks, a page that plays them, and feeds."""
    talk = tmp_path_factory.mktemp("talks") / "talk.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=3", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    subprocess.run([ffmpeg_exe(), "-nostdin", "-v", "error", *picture, str(talk)], check=True)
    with web_site() as site:
        site.answers |= {f"/{name}.mp4": (MP4, talk.read_bytes()) for name in "abc"}
        site.answers["/talks"] = page("/a.mp4", "/b.mp4", "/c.mp4")
        yield site


@pytest.fixture
def run(shared_lakehouse: Lakehouse) -> Callable[..., list[Json]]:
    """`moments process` in this process; its workers are processes of their own."""
    return lambda *sources: list(process(shared_lakehouse, sources, Options(), watch=lambda *_: None))


@pytest.fixture
def take(shared_lakehouse: Lakehouse) -> Callable[..., Json]:
    """Submit an address and run its job, and no other, in this process."""

    def take(url: str, **options: Any) -> Json:
        row = shared_lakehouse.intake.submit(url, Options(**options), submitted_by="test")
        run_submission(shared_lakehouse, row.intake_id)
        return {"intake_id": row.intake_id, **Results(shared_lakehouse).submission(row, url)}

    return take


@pytest.fixture(scope="module")
def talks(site: WebSite, shared_lakehouse: Lakehouse) -> list[Json]:
    """What `moments process` says of the page of three talks."""
    return list(process(shared_lakehouse, [site.url("/talks")], Options(), watch=lambda *_: None))


def test_a_page_with_three_videos_becomes_three_completed_videos(site: WebSite, talks: list[Json]) -> None:
    first, *others = talks
    assert (first["source"], first["status"], first["listed"], first["note"]) == (
        site.url("/talks"),
        "completed",
        3,
        None,
    )
    assert (first["video_id"], first["moments"], first["assets"]) == (identify(site.url("/talks")), [], {})
    urls = [site.url(f"/{name}.mp4") for name in "abc"]
    assert sorted(other["source"] for other in others) == urls
    assert {other["status"] for other in others} == {"completed"}, others
    assert sorted(other["video_id"] for other in others) == sorted(map(identify, urls))
    assert all(len(other["assets"]) == len(ASSETS) and "listed" not in other for other in others)


def test_the_same_list_again_finds_its_videos_there(
    site: WebSite, talks: list[Json], run: Callable[..., list[Json]], shared_lakehouse: Lakehouse
) -> None:
    count = "select count(*) as n from public.artifacts"
    before = Results(shared_lakehouse).rows(count)
    first, *others = run(site.url("/talks"), site.url("/talks"))
    assert (first["status"], first["listed"]) == ("completed", 3)
    assert {other["status"] for other in others} == {"completed"}
    assert {other["source"] for other in others} == {site.url(f"/{name}.mp4") for name in ("a", "b", "c")} | {
        site.url("/talks")
    }
    assert Results(shared_lakehouse).rows(count) == before


def test_a_click_on_materialize_for_a_list_succeeds_and_submits_no_video_again(
    site: WebSite, talks: list[Json], shared_lakehouse: Lakehouse
) -> None:
    video_id = identify(site.url("/talks"))
    newest = shared_lakehouse.intake.source_of(video_id)
    known = len(shared_lakehouse.intake.listed_in(newest.intake_id))
    with dg.DagsterInstance.get() as instance:
        job = definitions().resolve_job_def(process_video.name)
        for _ in range(2):
            result = job.execute_in_process(instance=instance, partition_key=video_id, raise_on_error=False)
            assert result.success
    skipped = {event.step_key for event in result.all_node_events if event.is_step_skipped}
    assert skipped == {asset.key.path[-1] for asset in ASSETS} - {"raw_video"}
    assert result.get_asset_materialization_events() == []
    [seen] = [event for event in result.all_node_events if event.event_type_value == "ASSET_OBSERVATION"]
    shown = {name: value.value for name, value in seen.asset_observation_data.asset_observation.metadata.items()}
    assert (shown["videos_listed"], shown["new_submissions"]) == (3, 0)
    assert len(shared_lakehouse.intake.listed_in(newest.intake_id)) == max(known, 3)


def test_a_list_of_lists_is_opened_and_a_circle_ends(
    site: WebSite, take: Callable[..., Json], shared_lakehouse: Lakehouse
) -> None:
    site.answers["/outer"] = feed(site.url("/inner"), site.url("/a.mp4"))
    site.answers["/inner"] = feed(site.url("/outer"), site.url("/innermost"), site.url("/b.mp4"))
    site.answers["/innermost"] = feed(site.url("/b.mp4"), site.url("/c.mp4"))
    outer = take(site.url("/outer"))
    assert (outer["status"], outer["listed"]) == ("completed", 2)
    inner, _ = shared_lakehouse.intake.listed_in(outer["intake_id"])
    assert run_submission(shared_lakehouse, inner.intake_id)
    innermost, _ = shared_lakehouse.intake.listed_in(inner.intake_id)
    assert innermost.url == site.url("/innermost")
    assert not run_submission(shared_lakehouse, innermost.intake_id)
    [state] = Results(shared_lakehouse).rows(
        "select state, class, cause from public.intake_state where intake_id = :id", id=innermost.intake_id
    )
    assert (state["state"], state["class"]) == ("failed", "permanent")
    assert state["cause"].endswith("is a list in a list in a list, which is not opened: submit it itself.")


def test_the_setting_limits_a_list_and_the_result_says_so(
    site: WebSite, take: Callable[..., Json], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOMENTS_MAX_LIST", "2")
    site.answers["/feed"] = feed(*(f"https://example.org/{number}" for number in range(5)))
    result = take(site.url("/feed"))
    assert (result["status"], result["listed"]) == ("completed", 2)
    assert result["note"].startswith("These are the first 2 of more")
    print_result(result)
    told, note = capsys.readouterr().out.splitlines()
    assert told == f"{site.url('/feed')}: 2 videos were submitted: `moments status` shows them"
    assert note.strip() == result["note"]


def test_lists_leave_nothing_behind(
    talks: list[Json], shared_lakehouse: Lakehouse, left_running: Callable[[], list[str]]
) -> None:
    assert left_running() == []
    assert list((shared_lakehouse.settings.state / "scratch").iterdir()) == []
