"""Runs as the UI starts them: with no run config, with options, again, and by force."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import imageio_ffmpeg
import pytest
from sqlalchemy import text

from moments.definitions import definitions
from moments.services import Lakehouse, prepare_dagster
from moments.settings import Settings
from moments_core.options import Options
from moments_resources.asset_tables import BY_ASSET
from moments_resources.database import Database
from moments_resources.store.file import FileStore

RunConfig = dict[str, Any]
Materialize = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(scope="module")
def house(
    copied_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lakehouse]:
    """A lakehouse with one short submitted video that nobody has worked on."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, copied_database() as url:
        patch.setenv("MOMENTS_HOME", str(home))
        patch.setenv("MOMENTS_DATABASE_URL", url)
        patch.setenv("DAGSTER_HOME", "")
        patch.delenv("DAGSTER_HOME")
        database, settings = Database(url), Settings(_env_file=None)
        prepare_dagster(settings)
        made = Lakehouse(settings, database, FileStore(settings.state / "store"))
        made.intake.submit(str(_video(home)), Options(max_moments=1), submitted_by="test")
        yield made
        database.engine.dispose()


def _video(folder: Path) -> Path:
    """Two minutes in four colours, each with a tone of its own."""
    colours = [f"color={name}:s=160x90:r=10:d=30[v{n}]" for n, name in enumerate(("red", "green", "blue", "white"))]
    tones = [f"sine=f={300 * (n + 1)}:d=30,volume={0.2 * (n + 1)}[a{n}]" for n in range(4)]
    joined = "".join(f"[v{n}][a{n}]" for n in range(4)) + "concat=n=4:v=1:a=1[v][a]"
    target = folder / "colours.mp4"
    graph = ";".join([*colours, *tones, joined])
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-filter_complex", graph, "-map", "[v]", "-map", "[a]"]
    subprocess.run([*command, str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def video_id(house: Lakehouse) -> str:
    return str(house.intake.row(1).video_id)


@pytest.fixture(scope="module")
def materialize(house: Lakehouse, video_id: str) -> Iterator[Materialize]:
    """`materialize(*assets, run_config=None)`: a real run on the real instance, as the button starts it."""
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("videos", [video_id])

        def run(*assets: str, run_config: RunConfig | None = None) -> dg.ExecuteInProcessResult:
            chosen = [dg.AssetKey(asset) for asset in assets or BY_ASSET]
            job = definitions().resolve_implicit_global_asset_job_def()
            return job.execute_in_process(
                instance=instance,
                asset_selection=chosen,
                partition_key=video_id,
                run_config=run_config,
                raise_on_error=False,
            )

        yield run


@pytest.fixture
def sql(house: Lakehouse) -> Callable[[str], list[dict[str, Any]]]:
    def run(query: str) -> list[dict[str, Any]]:
        with house.database.begin() as connection:
            return [dict(row) for row in connection.execute(text(query)).mappings()]

    return run


def asked(**options: object) -> RunConfig:
    return {"resources": {"run_options": {"config": options}}}


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = (one for one in result.get_asset_materialization_events() if one.asset_key == dg.AssetKey(asset))
    return {name: value.value for name, value in event.materialization.metadata.items()}


Sql = Callable[[str], list[dict[str, Any]]]


def test_an_asset_before_its_inputs_fails_once_and_says_what_to_do(materialize: Materialize, sql: Sql) -> None:
    result = materialize("clips")
    (failure,) = result.get_step_failure_events()
    assert "materialize" in str(failure.step_failure_data.user_failure_data.description)
    assert sql("select * from artifacts") == []


def test_everything_is_made_without_run_config_and_with_what_the_submission_asks_for(
    materialize: Materialize, sql: Sql
) -> None:
    result = materialize()
    assert result.success
    assert sql("select count(*) from moments") == [{"count": 1}]  # the submission asked for max_moments=1
    assert {row["asset"] for row in sql("select asset from artifacts")} == set(BY_ASSET)


def test_checks_and_previews_are_told_to_the_ui(materialize: Materialize) -> None:
    result = materialize("moments", "thumbnails", run_config=asked(force=True))
    checks = {event.check_name: event.passed for event in result.get_asset_check_evaluations()}
    assert checks == {"moments_are_sound": True}
    shown = metadata_of(result, "moments")
    assert shown["preview"].startswith("| start | end | title | score |")
    assert shown["dagster/row_count"] == 1
    assert shown["media_seconds_per_second"] > 0
    assert "file:///" in metadata_of(result, "thumbnails")["files"]
    assert metadata_of(result, "thumbnails")["filmstrip"].startswith("![filmstrip](data:image/jpeg;base64,")


def test_what_has_not_changed_is_kept(materialize: Materialize, sql: Sql) -> None:
    materialize()
    before = sql("select * from artifacts order by asset, version")
    result = materialize()
    assert result.success
    assert sql("select * from artifacts order by asset, version") == before
    assert metadata_of(result, "clips")["reused"] is True
    assert metadata_of(result, "moments")["preview"].startswith("| start | end | title | score |")


def test_force_makes_a_new_version(materialize: Materialize, sql: Sql) -> None:
    (before,) = sql("select version from artifacts where asset = 'thumbnails' and superseded_at is null")
    assert materialize("thumbnails", run_config=asked(force=True)).success
    (after,) = sql("select version from artifacts where asset = 'thumbnails' and superseded_at is null")
    assert after["version"] == before["version"] + 1


def test_run_config_goes_before_the_submission(materialize: Materialize, sql: Sql) -> None:
    assert materialize("moments", run_config=asked(max_moments=3)).success
    assert sql("select count(*) from moments") == [{"count": 3}]


def test_a_video_without_speech_says_so_and_has_moments(sql: Sql) -> None:
    assert sql("select has_speech, source from transcripts") == [{"has_speech": False, "source": "none"}]
    (made,) = sql("select measures->>'note' as note from artifacts where asset = 'moments' and superseded_at is null")
    assert "No speech" in made["note"]


def test_an_unknown_model_is_named_and_not_tried_again(materialize: Materialize, sql: Sql) -> None:
    result = materialize("moments", run_config=asked(generation_model="no-such-model"))
    (failure,) = result.get_step_failure_events()
    description = str(failure.step_failure_data.user_failure_data.description)
    assert "no-such-model" in description
    assert "local" in description


def test_a_wrong_option_in_run_config_is_named_and_in_the_history(materialize: Materialize, sql: Sql) -> None:
    result = materialize("moments", run_config=asked(max_moments=0))
    (failure,) = result.get_step_failure_events()
    assert "max_moments" in str(failure.step_failure_data.user_failure_data.description)
    (failed,) = sql("select class, cause from failures where asset = 'moments'")
    assert failed["class"] == "permanent"
    assert "max_moments" in failed["cause"]


def test_lineage_follows_the_versions(materialize: Materialize, sql: Sql) -> None:
    assert materialize("clips").success
    (made,) = sql("select inputs from artifacts where asset = 'clips' and superseded_at is null")
    (current,) = sql("select version from artifacts where asset = 'moments' and superseded_at is null")
    assert made["inputs"]["moments"] == current["version"]


def test_an_asset_is_not_made_from_parts_that_do_not_fit_together(materialize: Materialize, sql: Sql) -> None:
    assert materialize("audio", run_config=asked(force=True)).success
    result = materialize("moments", run_config=asked(force=True))
    (failure,) = result.get_step_failure_events()
    assert "materialize transcript first" in str(failure.step_failure_data.user_failure_data.description)
    assert materialize().success
