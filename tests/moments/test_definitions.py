"""The code location: what Dagster is told, and what loading it costs."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from moments.definitions import definitions
from moments_core.options import Options
from moments_resources import tables
from moments_resources.asset_tables import BY_ASSET
from moments_resources.options import RunOptions

HEAVY = ("sqlalchemy", "pandas", "numpy", "av", "ffmpeg", "yt_dlp", "pocketsphinx", "scipy")


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.path[-1]: spec for spec in definitions().resolve_all_asset_specs()}


def test_every_asset_table_has_its_asset_and_the_other_way_round(specs: dict[str, dg.AssetSpec]) -> None:
    assert set(specs) == {*BY_ASSET, "url_intake"}


def test_the_way_in_is_shown_and_made_by_no_run(specs: dict[str, dg.AssetSpec]) -> None:
    spec = specs["url_intake"]
    assert spec.description
    assert spec.kinds == {"postgres"}
    assert spec.partitions_def is None
    columns = spec.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == [column.name for column in tables.url_intake.c]
    graph = definitions().resolve_asset_graph()
    assert not graph.get(spec.key).is_executable
    assert graph.get(spec.key).check_keys == {dg.AssetCheckKey(spec.key, "healthy")}


def test_the_sensors_are_on_from_the_start() -> None:
    sensors = {sensor.name: sensor.default_status for sensor in definitions().sensors or ()}
    assert set(sensors) >= {"intake", "reconcile", "health"}
    assert set(sensors.values()) == {dg.DefaultSensorStatus.RUNNING}


@pytest.mark.parametrize("asset", BY_ASSET)
def test_an_asset_says_what_it_is(asset: str, specs: dict[str, dg.AssetSpec]) -> None:
    spec = specs[asset]
    assert spec.description
    assert spec.group_name
    assert spec.kinds
    assert spec.code_version
    assert spec.owners
    assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition)
    schema = spec.metadata["dagster/column_schema"]
    assert [column.name for column in schema.columns] == BY_ASSET[asset].column_names
    assert all(column.description for column in schema.columns)


def test_checks_block_what_comes_after() -> None:
    made = [asset for asset in definitions().assets or () if isinstance(asset, dg.AssetsDefinition)]
    checks = [spec for asset in made for spec in asset.check_specs]
    assert {spec.asset_key.path[-1] for spec in checks} >= {"audio", "transcript", "moments", "clips"}
    assert all(spec.blocking for spec in checks)


def test_the_job_covers_every_asset() -> None:
    job = definitions().resolve_job_def("process_video")
    assert {key.path[-1] for key in job.asset_layer.executable_asset_keys} == set(BY_ASSET)


def test_run_config_offers_every_option_of_a_submission() -> None:
    decided_before = {"revive"}
    assert set(RunOptions.model_fields) >= set(Options.model_fields) - decided_before


def imported(program: str, *names: str) -> set[str]:
    """Which of these modules a fresh interpreter holds after the program."""
    shown = f"{program}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(names) & set(done.stdout.split())


def test_loading_the_code_location_imports_nothing_heavy() -> None:
    assert imported("import moments.definitions as d; d.definitions()", *HEAVY) == set()


def test_help_imports_nothing_heavy() -> None:
    assert imported("import moments.cli", *HEAVY, "dagster", "rich", "pydantic") == set()
