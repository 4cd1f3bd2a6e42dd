"""What `moments up` leaves behind, on a state folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from moments.embedded_postgres import EmbeddedPostgres
from moments.services import Lakehouse, apply_pools, connect, down, is_up, make_folder, up
from moments.settings import DEFAULT_POOLS, PROJECT, Settings
from moments_core.errors import ServiceError, SettingsError
from moments_resources.database import newest_migration
from moments_resources.pools import WAITING


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MOMENTS_", "DAGSTER_"))]:
            patch.delenv(name)
        yield patch


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("state") / "with space"
    patch.setenv("MOMENTS_HOME", str(home))
    patch.setenv("DAGSTER_HOME", "")
    patch.delenv("DAGSTER_HOME")
    yield Settings(_env_file=None)
    EmbeddedPostgres(home).remove()


@pytest.fixture(scope="module")
def lakehouse(settings: Settings) -> Lakehouse:
    assert not is_up(settings)
    return up(settings)


def test_the_tables_are_there_and_a_second_start_changes_nothing(lakehouse: Lakehouse, settings: Settings) -> None:
    again = up(settings)
    assert again.database.url == lakehouse.database.url
    with again.database.begin() as connection:
        assert connection.scalar(text("select count(*) from url_intake")) == 0
    assert is_up(settings)


def test_dagster_keeps_its_tables_in_a_schema_of_its_own(lakehouse: Lakehouse) -> None:
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []
    with lakehouse.database.begin() as connection:
        schemas = connection.scalars(
            text("select table_schema from information_schema.tables where table_name = 'runs'")
        )
        assert list(schemas) == ["dagster"]
        assert connection.scalar(text("select version_num from public.alembic_version")) == newest_migration()


def test_dagster_gets_the_instance_file_of_the_project(lakehouse: Lakehouse, settings: Settings) -> None:
    copied = settings.state / "dagster" / "dagster.yaml"
    assert copied.read_text() == (PROJECT / "dagster.yaml").read_text()
    assert os.environ["DAGSTER_HOME"] == str(copied.parent)


def test_a_home_that_the_operator_chose_is_left_alone(
    lakehouse: Lakehouse, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    up(settings)
    assert os.environ["DAGSTER_HOME"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_dagster_lets_more_steps_into_a_pool_than_its_limit_for_they_wait_in_our_queue(
    lakehouse: Lakehouse, settings: Settings
) -> None:
    with dg.DagsterInstance.get() as instance:
        apply_pools(instance, settings)
        apply_pools(instance, settings.model_copy(update={"pools": {**DEFAULT_POOLS, "asr": 5}}))
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert limits == {name: limit + WAITING for name, limit in {**DEFAULT_POOLS, "asr": 5}.items()}


def test_down_stops_the_server_and_says_whether_one_ran(lakehouse: Lakehouse, settings: Settings) -> None:
    assert down(settings)
    assert not down(settings)
    assert not is_up(settings)
    with pytest.raises(ServiceError, match="moments up"):
        _ = connect(settings).database.url


def test_a_server_behind_a_url_is_not_ours_to_stop() -> None:
    assert not down(Settings(database_url="postgresql://127.0.0.1:1/x", _env_file=None))


def test_a_state_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="MOMENTS_HOME"):
        make_folder(tmp_path / "file" / "home")
