"""The sample goes through every asset by the command that users type; what comes out lies near the known truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import create_engine, text

from moments_core.time import Span, to_ms
from moments_resources.asset_tables import BY_ASSET
from moments_resources.media.cutter import check_clip
from moments_resources.media.probe import probe_video
from moments_resources.media.runner import FfmpegRunner

Json = dict[str, Any]
Command = Callable[..., Any]

SAMPLES = Path(__file__).parents[2] / "samples"
SAMPLE = SAMPLES / "sample.mp4"
TRUTH = json.loads((SAMPLES / "sample.truth.json").read_text())
NEAR_SECONDS = 3.0
ASSETS = list(BY_ASSET)


@pytest.fixture(scope="module")
def environment(
    copied_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A lakehouse that the tests of this module share; they run in the order in which they stand."""
    home = tmp_path_factory.mktemp("home")
    with copied_database() as url:
        yield {"MOMENTS_HOME": str(home), "MOMENTS_DATABASE_URL": url}


@pytest.fixture(scope="module")
def moments(environment: dict[str, str], run_moments: Command) -> Command:
    def run(*arguments: str) -> Any:
        return run_moments(*arguments, environment=environment)

    return run


@pytest.fixture(scope="module")
def processed(moments: Command) -> Json:
    done = moments("process", str(SAMPLE), "--json")
    assert done.returncode == 0, done.stderr
    result: Json = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def sql(environment: dict[str, str]) -> Iterator[Callable[[str], list[Json]]]:
    engine = create_engine(environment["MOMENTS_DATABASE_URL"])

    def run(query: str) -> list[Json]:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query)).mappings()]

    yield run
    engine.dispose()


def test_the_sample_completes_with_every_asset(processed: Json) -> None:
    assert (processed["status"], processed["failed_asset"], processed["error"]) == ("completed", None, None)
    assert processed["source"] == str(SAMPLE)
    assert processed["duration"] == pytest.approx(TRUTH["duration"], abs=0.1)
    assert list(processed["assets"]) == ASSETS
    assert all(asset["version"] == 1 and not asset["reused"] for asset in processed["assets"].values())


def test_the_moments_lie_near_the_topics(processed: Json) -> None:
    starts = [moment["start_time"] for moment in processed["moments"]]
    missed = [
        topic["title"]
        for topic in TRUTH["topics"]
        if min(abs(start - topic["start_time"]) for start in starts) > NEAR_SECONDS
    ]
    invented = [
        start for start in starts if min(abs(start - topic["start_time"]) for topic in TRUTH["topics"]) > NEAR_SECONDS
    ]
    assert (missed, invented) == ([], [])


def test_moments_are_titled_scored_and_apart(processed: Json) -> None:
    titles = [moment["title"] for moment in processed["moments"]]
    assert len(set(titles)) == len(titles)
    assert all(0 <= moment["score"] <= 1 for moment in processed["moments"])
    spans = [_span(moment) for moment in processed["moments"]]
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(spans))


def test_every_moment_has_a_clip_that_plays_and_contains_it(processed: Json) -> None:
    for moment in processed["moments"]:
        path, shown = _path(moment["clip"]["uri"]), _span(moment["clip"])
        assert shown.contains(_span(moment))
        assert shown.contains(_span(moment["refined"]))
        decoded = check_clip(FfmpegRunner(), path)
        assert abs(decoded.duration_ms - shown.length_ms) <= 1000 / probe_video(path).fps


def test_refined_moments_start_and_end_where_sentences_do(processed: Json) -> None:
    # Between two captions, within the pause: the caption starts and ends are measured on the sound.
    edges = sorted(time for cue in TRUTH["captions"] for time in (cue["start_time"], cue["end_time"]))
    for moment in processed["moments"]:
        for time in (moment["refined"]["start_time"], moment["refined"]["end_time"]):
            assert min(abs(time - edge) for edge in edges) <= 1.0
            assert not any(cue["start_time"] + 0.05 < time < cue["end_time"] - 0.05 for cue in TRUTH["captions"])


def test_slides_and_words_are_found(processed: Json, sql: Callable[[str], list[Json]]) -> None:
    cuts = [float(row["time"]) for row in sql('select "time" from scene_cuts order by 1')]
    assert cuts == pytest.approx(TRUTH["slides"][1:], abs=0.05)
    said = sql("select full_text, source from transcripts")[0]
    assert said["source"] == "human_captions"
    assert all(cue["text"].split()[0] in said["full_text"] for cue in TRUTH["captions"])
    assert len(sql("select * from thumbnails")) == 8


def test_objects_are_what_the_catalogue_says(processed: Json, sql: Callable[[str], list[Json]]) -> None:
    folder = _path(processed["moments"][0]["clip"]["uri"])
    store = next(parent for parent in folder.parents if parent.name == "store")
    listed = sql(
        "select item->>'key' as key, item->>'sha256' as sha256 from artifacts, jsonb_array_elements(objects) item"
    )
    assert len(listed) == 1 + 1 + 8 + len(processed["moments"])
    for item in listed:
        assert hashlib.sha256((store / item["key"]).read_bytes()).hexdigest() == item["sha256"]


def test_the_raw_video_is_not_copied_between_upload_and_asset(processed: Json, environment: dict[str, str]) -> None:
    store = Path(environment["MOMENTS_HOME"]) / "store"
    uploaded = next((store / "uploads").rglob("*.mp4"))
    kept = next((store / "videos" / processed["video_id"] / "raw_video").rglob("*.mp4"))
    assert uploaded.samefile(kept)


def test_every_artifact_tells_what_it_was_made_from(processed: Json, sql: Callable[[str], list[Json]]) -> None:
    made = {row["asset"]: row for row in sql("select asset, inputs, config, code_version from artifacts")}
    assert made["moments"]["inputs"] == {"raw_video": 1, "audio": 1, "transcript": 1, "scene_cuts": 1}
    assert made["moments"]["config"]["makers"]["finder"].startswith("local-")
    lead = sql("select config from moments join generation_configs on sha256 = generation_config")
    assert len(lead) == len(processed["moments"])


def test_nothing_is_left_in_scratch(processed: Json, environment: dict[str, str]) -> None:
    scratch = Path(environment["MOMENTS_HOME"]) / "scratch"
    assert list(scratch.rglob("*")) == []


def test_a_second_time_nothing_is_run_again(
    processed: Json, moments: Command, sql: Callable[[str], list[Json]]
) -> None:
    attempts = sql("select count(*) from pipeline_history")
    again = json.loads(moments("process", str(SAMPLE), "--json").stdout)
    assert again["moments"] == processed["moments"]
    assert all(asset["reused"] for asset in again["assets"].values())
    assert sql("select count(*) from pipeline_history") == attempts
    assert [row["state"] for row in sql("select state from intake_state order by intake_id")] == [
        "completed",
        "duplicate",
    ]


def test_other_options_make_anew_only_what_depends_on_them(processed: Json, moments: Command) -> None:
    result = json.loads(moments("process", str(SAMPLE), "--json", "--max-moments", "2").stdout)
    assert len(result["moments"]) == 2
    reused = {name: asset["reused"] for name, asset in result["assets"].items()}
    assert reused == {name: name not in {"moments", "clips", "refined_moments"} for name in ASSETS}
    assert {name for name, asset in result["assets"].items() if asset["version"] == 2} == {
        "moments",
        "clips",
        "refined_moments",
    }


def test_former_versions_stay_and_views_show_the_current_one(sql: Callable[[str], list[Json]], processed: Json) -> None:
    versions = sql("select version, count(*) from versions.moments group by 1 order by 1")
    assert [row["count"] for row in versions] == [len(processed["moments"]), 2]
    assert sql("select count(*) from moments") == [{"count": 2}]


def test_show_status_and_sql_read_the_same_video(moments: Command, processed: Json) -> None:
    shown = json.loads(moments("show", "sample.mp4", "--json").stdout)
    assert shown["video_id"] == processed["video_id"]
    assert [made["asset"] for made in shown["made"]] == ASSETS
    state = json.loads(moments("status", "--json").stdout)
    assert (state["video_id"], state["state"]) == (processed["video_id"], "completed")
    rows = moments("sql", "select title from moments order by start_ms", "--csv").stdout.splitlines()
    assert rows[0] == "title"
    assert len(rows) == 3


def test_delete_leaves_nothing_of_the_video(
    moments: Command, processed: Json, environment: dict[str, str], sql: Callable[[str], list[Json]]
) -> None:
    done = moments("delete", processed["video_id"], "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["objects"] > 10
    assert [path for path in (Path(environment["MOMENTS_HOME"]) / "store").rglob("*.*") if path.is_file()] == []
    assert sql("select (select count(*) from artifacts) + (select count(*) from url_intake) as left_over") == [
        {"left_over": 0}
    ]
    assert moments("show", "sample.mp4").returncode == 2


def _span(row: Json) -> Span:
    return Span(to_ms(row["start_time"]), to_ms(row["end_time"]))


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
