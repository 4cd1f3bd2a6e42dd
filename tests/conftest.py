"""What tests stand on: a real PostgreSQL, one server a session, and a fresh migrated database for each test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from moments.services import Lakehouse
from moments.settings import Settings
from moments_resources.database import Database
from moments_resources.store.file import FileStore

TEMPLATE = "moments_template"
SAMPLE = Path(__file__).parents[1] / "samples" / "sample.mp4"


def pytest_configure() -> None:
    """A background job starts with Ctrl-C ignored, and so would all processes below it: tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of our own, as its superuser."""
    from moments.embedded_postgres import EmbeddedPostgres

    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("home"))
    postgres.ensure_running()
    try:
        yield postgres.superuser_url()
    finally:
        postgres.stop()
        postgres.remove()


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """A migrated database that tests copy: a copy takes a tenth of a second, a migration takes one."""
    _execute(server, f'create database "{TEMPLATE}"')
    database = Database(_named(server, TEMPLATE))
    database.migrate()
    database.engine.dispose()
    return TEMPLATE


@pytest.fixture(scope="session")
def copied_database(server: str, template: str) -> Callable[[], AbstractContextManager[str]]:
    """`with copied_database() as url`: a database of one's own with our schema, dropped at the end."""

    @contextmanager
    def copy() -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        _execute(server, f'create database "{name}" template "{template}"')
        try:
            yield _named(server, name)
        finally:
            _execute(server, f'drop database "{name}" with (force)')

    return copy


@pytest.fixture
def database(copied_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Database]:
    with copied_database() as url:
        database = Database(url)
        yield database
        database.engine.dispose()


@pytest.fixture
def lakehouse(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lakehouse:
    """An empty lakehouse; the environment names it too, for the processes that a test starts."""
    for name in [name for name in os.environ if name.startswith(("MOMENTS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    # Set and deleted by us, so that the value which `prepare_dagster` sets goes with the test.
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setenv("MOMENTS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOMENTS_DATABASE_URL", database.url)
    settings = Settings(_env_file=None)
    return Lakehouse(settings, database, FileStore(settings.state / "store"))


def _named(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
