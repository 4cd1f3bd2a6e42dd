from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from moments_core.errors import ServiceError, SettingsError
from moments_resources.database import MIGRATIONS, Database, newest_migration
from moments_resources.tables import ASSET_TABLES, VERSIONS, metadata
from moments_resources.views import create_views

Sql = Callable[..., list[dict[str, Any]]]
_VIEW_TEXTS = "select viewname, pg_get_viewdef(viewname::regclass) as text from pg_views where schemaname = 'public'"
_MIGRATE = "import sys; from moments_resources.database import Database; Database(sys.argv[1]).migrate()"


def test_a_migrated_database_has_the_declared_tables_and_no_others(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: name in {None, VERSIONS} if kind == "schema" else True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_each_asset_has_a_view_of_its_current_rows_and_each_table_explains_its_columns(database: Database) -> None:
    names = set(inspect(database.engine).get_view_names("public"))
    assert names == {table.name for table in ASSET_TABLES.values()} | {
        "transcript_segments", "latest_attempts", "failures", "intake_state"
    }  # fmt: skip
    assert [str(column) for table in metadata.tables.values() for column in table.c if not column.comment] == []


def test_the_views_of_a_migrated_database_are_those_of_the_program(
    changes_schema: None, database: Database, sql: Sql
) -> None:
    migrated = {row["viewname"]: row["text"] for row in sql(_VIEW_TEXTS)}
    with database.begin() as connection:
        for statement in create_views():
            connection.execute(text(statement.replace("create view", "create or replace view", 1)))
    assert {row["viewname"]: row["text"] for row in sql(_VIEW_TEXTS)} == migrated


def test_migrating_again_changes_nothing(database: Database, sql: Sql) -> None:
    sql("insert into url_intake (url) values ('http://x')")
    database.migrate()
    assert len(sql("select * from url_intake")) == 1


def test_processes_that_migrate_at_once_take_turns(empty_database: Database) -> None:
    command = [sys.executable, "-c", _MIGRATE, empty_database.url]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert "as they should be" in empty_database.schema_state()


def test_a_migration_that_fails_leaves_nothing_behind(empty_database: Database) -> None:
    with empty_database.begin() as connection:
        connection.execute(text("create table public.models (mine text)"))  # the last of our tables
    with pytest.raises(DBAPIError, match="already exists"):
        empty_database.migrate()
    assert inspect(empty_database.engine).get_table_names("public") == ["models"]
    assert VERSIONS not in inspect(empty_database.engine).get_schema_names()


def test_there_is_one_line_of_migrations_and_no_way_back() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [newest_migration()]
    assert [script.revision for script in scripts.walk_revisions() if hasattr(script.module, "downgrade")] == []


def test_an_empty_database_is_told_from_one_of_ours(empty_database: Database) -> None:
    with pytest.raises(ServiceError, match="moments up"):
        empty_database.schema_state()


def test_the_tables_of_a_newer_program_are_left_alone(changes_schema: None, database: Database, sql: Sql) -> None:
    sql("update alembic_version set version_num = '9999'")
    for ask in (database.migrate, database.schema_state):
        with pytest.raises(SettingsError, match="update it"):
            ask()
    assert sql("select version_num from alembic_version") == [{"version_num": "9999"}]
