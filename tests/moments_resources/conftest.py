"""What the tests of the resource floor share: a catalogue on the test's database, steps, rows and other processes."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from moments_core.options import Options
from moments_resources.catalogue import Artifact, Catalogue, Recipe
from moments_resources.database import Database
from moments_resources.history import History
from moments_resources.intake import Intake, IntakeRow
from moments_resources.step import Step, StepRequest
from moments_resources.store.cache import LocalCache
from moments_resources.store.file import FileStore
from moments_resources.store.gcs import GcsPlace, GcsStore
from moments_resources.store.interface import ObjectStore
from moments_resources.tables import metadata
from tests.stand_ins.gcs_server import GcsServer

VIDEO = "web-0123456789abcdef"


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket("media")
        yield server


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """For tests of what holds in both kinds of store."""
    if request.param == "folder":
        return FileStore(tmp_path / "store")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs").url)
    return GcsStore(GcsPlace("media", f"{uuid.uuid4().hex}/"), LocalCache(tmp_path / "cache", 10**9))


@pytest.fixture(scope="session")
def shared_database(server: str, template: str) -> Iterator[Database]:
    """One database for all tests that leave its schema alone: making and dropping one takes half a second."""
    with _made(server, "shared", f'template "{template}"') as database:
        yield database


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database without rows; one of its own for a test that names `changes_schema`."""
    if "changes_schema" in request.fixturenames:
        with request.getfixturevalue("copied_database")() as url:
            database = Database(url)
            yield database
            database.engine.dispose()
        return
    database = request.getfixturevalue("shared_database")
    yield database
    with database.begin() as connection:
        connection.execute(text("set local lock_timeout = '10s'"))  # a test that left a transaction open
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


@pytest.fixture
def changes_schema() -> None:
    """Says that a test changes tables, functions or the noted version of the schema."""


@pytest.fixture
def catalogue(database: Database) -> Catalogue:
    return Catalogue(History(database))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def intake(database: Database, store: FileStore) -> Intake:
    return Intake(database, store)


@pytest.fixture
def submit(intake: Intake) -> Callable[..., IntakeRow]:
    """Submits a source the way a command does; options as keywords."""
    return lambda source, **options: intake.submit(str(source), Options(**options), submitted_by="test")


@pytest.fixture
def sql(database: Database) -> Callable[..., list[dict[str, Any]]]:
    """Runs one statement; its rows as dicts, or nothing."""

    def run(statement: str, **parameters: Any) -> list[dict[str, Any]]:
        with database.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return run


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def new_step(catalogue: Catalogue, scratch: Path) -> Callable[..., Step]:
    """A step that nobody has entered yet."""

    def make(asset: str = "scene_cuts", video_id: str = VIDEO, recipe: Recipe | None = None, **more: Any) -> Step:
        request = StepRequest(video_id=video_id, asset=asset, **{"run_id": "run-1", **more})
        step = Step(catalogue, scratch, request)
        step.recipe = recipe or Recipe("1", {"maker": "test"})
        return step

    return make


@pytest.fixture
def commit(new_step: Callable[..., Step]) -> Callable[..., Artifact]:
    """Makes the rows the current version of an asset."""

    def make(rows: list[dict[str, Any]], asset: str = "scene_cuts", **request: Any) -> Artifact:
        with new_step(asset, **request) as step:
            return step.commit(rows)

    return make


@pytest.fixture
def empty_database(server: str) -> Iterator[Database]:
    """A database that nobody has migrated."""
    with _made(server, "empty", "") as database:
        yield database


@contextmanager
def _made(server: str, kind: str, rest: str) -> Iterator[Database]:
    name = f"{kind}_{uuid.uuid4().hex[:12]}"
    as_superuser = create_engine(server, isolation_level="AUTOCOMMIT")
    with as_superuser.connect() as connection:
        connection.execute(text(f'create database "{name}" {rest}'))
    database = Database(make_url(server).set(database=name).render_as_string(hide_password=False))
    yield database
    database.engine.dispose()
    with as_superuser.connect() as connection:
        connection.execute(text(f'drop database "{name}" with (force)'))
    as_superuser.dispose()


@pytest.fixture
def elsewhere(database: Database) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs a program in another process, with `database` in its names, until it has printed its first line."""
    started: list[subprocess.Popen[str]] = []
    head = "import sys, time; from moments_resources.database import Database; database = Database(sys.argv[1])\n"

    def start(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", head + program, database.url], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline(), "the other process ended before it was ready"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], None]:
    """Waits until something is true; gives up after a time that only a hang can reach."""

    def wait(is_true: Callable[[], Any]) -> None:
        for _ in range(3000):
            if is_true():
                return
            time.sleep(0.01)
        raise AssertionError("it never came true")

    return wait


@pytest.fixture
def waiters(sql: Callable[..., list[dict[str, Any]]]) -> Callable[[], int]:
    """How many sessions of this database wait for a lock."""
    query = "select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    return lambda: int(sql(query)[0]["n"])


def moment_rows(recipe: Recipe, count: int = 2) -> list[dict[str, Any]]:
    return [_moment_row(recipe, ordinal) for ordinal in range(1, count + 1)]


def _moment_row(recipe: Recipe, ordinal: int) -> dict[str, Any]:
    return {
        "moment_id": f"m_{9 - ordinal}",  # names that sort against the time
        "ordinal": ordinal,
        "start_ms": ordinal * 10_000,
        "end_ms": ordinal * 10_000 + 5_500,
        "title": f"Moment {ordinal}",
        "score": 0.5,
        "query": None,
        "found_by": "test",
        "generation_config": recipe.sha256,
    }


@pytest.fixture(name="moment_rows")
def _moment_rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows of moments that were found by a recipe, in time order."""
    return moment_rows


@pytest.fixture
def video_id() -> str:
    return VIDEO
