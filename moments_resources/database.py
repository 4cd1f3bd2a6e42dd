"""PostgreSQL: connections, locks that fall with their connection, and the schema."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from moments_core.errors import MomentsError, ResourceError, ServiceError, SettingsError

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = "migrations"
_LOCK_POLL_SECONDS = 1.0
_LOCK_TIMEOUT = "55P03"  # SQLSTATE lock_not_available


class Database:
    """One PostgreSQL database. `url` is read at the first use, so that building a Database costs nothing."""

    def __init__(self, url: str | Callable[[], str]) -> None:
        self._url = url

    @cached_property
    def url(self) -> str:
        """SQLAlchemy URL with the psycopg2 driver; holds the password, so never log it."""
        return checked_url(self._url if isinstance(self._url, str) else self._url())

    @cached_property
    def engine(self) -> Engine:
        # keepalives: a lock's connection says nothing for hours, and firewalls forget such connections.
        # pre_ping: a server that was restarted must not fail the first statement after it.
        # hide_parameters: the text of an unforeseen database error is kept in the history; a row's content is not.
        alive = {"keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 4}  # seconds, seconds, tries
        return create_engine(
            self.url,
            pool_pre_ping=True,
            pool_size=2,
            hide_parameters=True,
            connect_args={"connect_timeout": 10, **alive},
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction; committed at the end, rolled back on an error.

        Raises ServiceError when the server is away, ResourceError when its disk is full, SettingsError when the
        database user lacks a right.
        """
        with _server_faults_named(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def lock(self, name: str, *, while_waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold a session-wide advisory lock; it falls with this process, however it ends.

        It waits in waits of a second, for a signal is only noticed between them: who waits can be cancelled.
        `while_waiting` is called after each of them; it may raise.
        """
        with self.own_connection() as connection:
            take_lock(connection, name, while_waiting)
            yield

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Take the lock if nobody holds it; yields whether it is ours."""
        with self.own_connection() as connection:
            yield try_lock(connection, name)

    def is_locked(self, name: str) -> bool:
        """Whether somebody holds the lock. Looks without taking it: a probe must not get into its owner's way."""
        query = text(
            "select exists (select from pg_locks where locktype = 'advisory' and granted"
            " and database = (select oid from pg_database where datname = current_database())"
            " and (classid::bigint << 32) | objid::bigint = :key)"
        )
        with self.begin() as connection:
            return bool(connection.scalar(query, {"key": lock_key(name)}))

    def migrate(self) -> None:
        """Bring the schema to this program's version. Processes that start together take turns.

        Raises SettingsError for the tables of a newer program: there is no way back.
        """
        if self._is_current():
            return
        with self.lock(_MIGRATION_LOCK):
            if not self._is_current():
                with self.begin() as connection:
                    _upgrade(connection)

    def schema_state(self) -> str:
        """A sentence on the schema. Raises ServiceError when it is behind this program, SettingsError when ahead."""
        if not self._is_current():
            raise ServiceError("The tables are not those of this program yet: run `moments up`.")
        return f"The tables are at version {newest_migration()}, as they should be."

    def _is_current(self) -> bool:
        with self.begin() as connection:
            found, wanted = _schema_version(connection), newest_migration()
        if found is not None and found > wanted:
            raise SettingsError(f"The tables are at version {found}, this program knows {wanted} only: update it.")
        return found == wanted

    @contextmanager
    def own_connection(self) -> Iterator[Connection]:
        """A connection without transactions for advisory locks; at the end of the block they are given back.

        Raises as `begin`.
        """
        with _server_faults_named():
            # Not back into the pool: a pooled connection outlives the block, with its lock and its lock_timeout.
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                yield connection
            finally:
                # The server gives the locks of a closed connection back when it notices; the next need not wait.
                with suppress(DBAPIError):  # a connection that is gone has no locks
                    if not connection.invalidated:
                        connection.execute(text("select pg_advisory_unlock_all()"))
                connection.invalidate()
                connection.close()


def checked_url(url: str) -> str:
    """`url` with the one driver that we use. Raises SettingsError for anything but PostgreSQL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SettingsError("MOMENTS_DATABASE_URL is not a URL such as postgresql://user@host/name.") from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError(f"MOMENTS_DATABASE_URL must be a PostgreSQL URL, not {parsed.get_backend_name()!r}.")
    # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which Dagster's storage can't use.
    return parsed.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def dagster_url(url: str) -> str:
    """The same database with Dagster's own schema in front: its alembic_version must not meet ours."""
    parsed = make_url(url)
    given = parsed.normalized_query.get("options", ())  # the operator's own, e.g. a statement_timeout
    options = " ".join([*given, "-csearch_path=dagster"])
    return parsed.update_query_dict({"options": options}).render_as_string(hide_password=False)


def newest_migration() -> str:
    """Revision of the newest migration, read from the file names: Alembic itself takes long to import."""
    return max(path.name.split("_", 1)[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _schema_version(connection: Connection) -> str | None:
    if connection.scalar(text("select to_regclass('public.alembic_version')")) is None:
        return None
    version: str | None = connection.scalar(text("select version_num from public.alembic_version"))
    return version


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def lock_key(name: str) -> int:
    """The number that PostgreSQL knows an advisory lock by."""
    return int.from_bytes(hashlib.sha256(f"moments:{name}".encode()).digest()[:8], "big", signed=True)


def take_lock(connection: Connection, name: str, while_waiting: Callable[[], None] | None = None) -> None:
    """Wait for an advisory lock, in waits of a second; `while_waiting` is called after each of them and may raise."""
    wait_for(connection, "select pg_advisory_lock(:key)", {"key": lock_key(name)}, while_waiting)


def try_lock(connection: Connection, name: str) -> bool:
    """Take an advisory lock if nobody holds it."""
    return bool(connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": lock_key(name)}))


def wait_for(
    connection: Connection, locking: str, key: Mapping[str, int], while_waiting: Callable[[], None] | None = None
) -> None:
    """Run a statement that waits for a lock until it has it; `while_waiting` as in `take_lock`."""
    while not _done_in_time(connection, locking, key):
        if while_waiting:
            while_waiting()


def _done_in_time(connection: Connection, locking: str, key: Mapping[str, int]) -> bool:
    try:
        connection.execute(text(f"set lock_timeout = {int(_LOCK_POLL_SECONDS * 1000)}"))
        connection.execute(text(locking), key)
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) == _LOCK_TIMEOUT:
            return False
        raise
    return True


@contextmanager
def _server_faults_named() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        named = named_fault(error)
        if named is None:
            raise
        raise named from error


def named_fault(error: DBAPIError) -> MomentsError | None:
    """What the operator can do about a server's fault; None for an error in our own statement."""
    code: str | None = getattr(error.orig, "pgcode", None)
    detail = " ".join(str(error.orig).split())[:300]
    if error.connection_invalidated or (isinstance(error, OperationalError) and code is None):
        message = "PostgreSQL does not answer: check MOMENTS_DATABASE_URL, or run `moments up`."
        return ServiceError(message, detail=detail)
    if code not in _FAULTS:
        return None
    kind, message = _FAULTS[code]
    return kind(message, detail=detail)


#: By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_FAULTS: dict[str, tuple[type[MomentsError], str]] = {
    "53100": (ResourceError, "The database's disk is full: free some space there, then try again."),
    "53200": (ResourceError, "The database's machine is short of memory: free some there, then try again."),
    "40001": (ServiceError, "PostgreSQL broke off a transaction that met another one: try again."),
    "40P01": (ServiceError, "PostgreSQL broke off a transaction that met another one: try again."),
    "42501": (SettingsError, "The database user lacks a right: grant it, or name its owner in MOMENTS_DATABASE_URL."),
}
