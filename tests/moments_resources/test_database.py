from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from moments_core.errors import MomentsError, ResourceError, ServiceError, SettingsError
from moments_resources.database import Database, checked_url, dagster_url, try_lock

Sql = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def other(database: Database) -> Iterator[Database]:
    """The same database, as another process would open it."""
    other = Database(database.url)
    yield other
    other.engine.dispose()


@pytest.fixture
def nobodys_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused, and nobody else gets it
        yield sock.getsockname()[1]


def test_a_lock_is_waited_for(
    database: Database, other: Database, waiters: Callable[[], int], until: Callable[..., None]
) -> None:
    entered = threading.Event()

    def second() -> None:
        with other.lock("x"):
            entered.set()

    thread = threading.Thread(target=second)
    with database.lock("x"):
        thread.start()
        until(lambda: waiters() == 1)
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()


def test_who_waits_for_a_lock_is_asked_again_and_again_and_may_give_up(database: Database, other: Database) -> None:
    def give_up() -> None:
        raise InterruptedError

    with database.lock("x"), pytest.raises(InterruptedError), other.lock("x", while_waiting=give_up):
        pytest.fail("two hold the lock")
    with other.try_lock("x") as ours:
        assert ours


def test_who_waits_gets_the_lock_when_it_is_free(database: Database, other: Database) -> None:
    asked = []
    holder = database.lock("x")
    holder.__enter__()

    def let_go() -> None:
        asked.append(1)
        holder.__exit__(None, None, None)

    with other.lock("x", while_waiting=let_go), database.try_lock("x") as free:
        assert asked == [1]
        assert not free


def test_a_lock_is_given_back_at_the_end_of_its_block_and_not_kept_by_the_pool(
    database: Database, other: Database
) -> None:
    with database.lock("x"):
        pass
    with pytest.raises(ZeroDivisionError), database.lock("x"):
        _ = 1 / 0
    with other.try_lock("x") as ours:
        assert ours


def test_who_comes_after_a_lock_never_finds_it_taken(database: Database, other: Database) -> None:
    for _ in range(30):  # the server needs a moment to notice a connection that was just closed
        with database.lock("x"):
            pass
        with other.try_lock("x") as ours:
            assert ours


def test_the_session_of_a_lock_is_not_used_for_other_work(other: Database) -> None:
    with other.lock("x", while_waiting=lambda: None):
        pass
    with other.begin() as connection:
        assert connection.scalar(text("show lock_timeout")) == "0"


def test_try_lock_says_no_without_waiting(database: Database, other: Database) -> None:
    with database.try_lock("x") as first, other.try_lock("x") as second, other.try_lock("y") as elsewhere:
        assert (first, second, elsewhere) == (True, False, True)


def test_a_try_that_failed_does_not_take_the_lock_of_its_holder(database: Database, other: Database) -> None:
    with database.lock("x"):
        with other.try_lock("x"):
            pass
        with other.try_lock("x") as second:
            assert not second


def test_the_lock_of_a_killed_process_falls(
    database: Database, elsewhere: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = elsewhere("with database.lock('x'): print('mine', flush=True); time.sleep(600)")
    with database.try_lock("x") as ours:
        assert not ours
    holder.kill()
    with database.lock("x"):
        assert holder.wait() == -9


def test_a_lock_whose_session_the_server_ended_does_not_fail_the_work_it_guarded(
    database: Database, other: Database
) -> None:
    with database.lock("x"):
        _end_sessions(other)
    with database.try_lock("x") as ours:
        assert ours


def test_the_first_statement_after_a_restart_of_the_server_goes_well(
    database: Database, other: Database, sql: Sql
) -> None:
    assert sql("select 1 as one") == [{"one": 1}]
    _end_sessions(other)
    assert sql("select 1 as one") == [{"one": 1}]


def test_a_session_that_the_server_ends_in_a_transaction_is_a_fault_of_the_service(
    database: Database, other: Database
) -> None:
    def work() -> None:
        with database.begin() as connection:
            connection.execute(text("select 1"))
            _end_sessions(other)
            connection.execute(text("select 1"))

    with pytest.raises(ServiceError, match="does not answer"):
        work()


def test_a_server_that_is_away_is_named_without_the_password(nobodys_port: int) -> None:
    database = Database(f"postgresql://me:geheim@127.0.0.1:{nobodys_port}/x")
    with pytest.raises(ServiceError, match="moments up") as caught, database.begin():
        pytest.fail("somebody is there")
    assert "Connection refused" in str(caught.value.evidence)
    assert "geheim" not in f"{caught.value} {caught.value.evidence}"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("53100", ResourceError),
        ("53200", ResourceError),
        ("40001", ServiceError),
        ("40P01", ServiceError),
        ("42501", SettingsError),
    ],
)
def test_a_fault_of_the_server_says_what_to_do(sql: Sql, code: str, kind: type[MomentsError]) -> None:
    with pytest.raises(kind, match=r"free some|try again|grant it"):
        sql(f"do $$ begin raise exception 'as if' using errcode = '{code}'; end $$")


def test_an_error_in_a_statement_of_ours_stays_what_it_is_and_repeats_no_content(sql: Sql) -> None:
    with pytest.raises(DBAPIError, match="division by zero") as caught:
        sql("select 1 / 0, cast(:content as text)", content="what somebody said")
    assert "what somebody said" not in str(caught.value)


def test_an_error_in_a_transaction_rolls_it_back(database: Database, sql: Sql) -> None:
    def work() -> None:
        with database.begin() as connection:
            connection.execute(text("insert into url_intake (url) values ('http://x')"))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        work()
    assert sql("select * from url_intake") == []


@pytest.mark.parametrize("url", ["postgres://u@h/x", "postgresql://u@h/x", "postgresql+asyncpg://u@h/x"])
def test_every_postgresql_url_gets_the_one_driver(url: str) -> None:
    assert checked_url(url) == "postgresql+psycopg2://u@h/x"


def test_the_password_and_parameters_of_a_url_are_kept() -> None:
    url = "postgresql+psycopg2://u:p%40w@h:5433/x?sslmode=require"
    assert checked_url(url) == url


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql://h:port/x", "mysql://u:geheim@h/x", "sqlite:///x"])
def test_what_is_no_postgresql_url_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="MOMENTS_DATABASE_URL") as caught:
        checked_url(url)
    assert "geheim" not in str(caught.value)


def test_a_database_is_not_asked_for_its_url_before_it_is_used() -> None:
    asked = []

    def url() -> str:
        asked.append(1)
        return "postgresql://u@h/x"

    database = Database(url)
    assert asked == []
    assert (database.url, database.url) == ("postgresql+psycopg2://u@h/x",) * 2
    assert asked == [1]


def test_dagster_works_in_a_schema_of_its_own(changes_schema: None, database: Database, sql: Sql) -> None:
    engine = create_engine(dagster_url(database.url))
    with engine.begin() as connection:
        assert connection.scalar(text("show search_path")) == "dagster"
        connection.execute(text("create table alembic_version (version_num text)"))
    engine.dispose()
    rows = sql("select table_schema from information_schema.tables where table_name = 'alembic_version'")
    assert {row["table_schema"] for row in rows} == {"public", "dagster"}


def test_the_operators_own_options_hold_for_dagster_too(database: Database) -> None:
    engine = create_engine(dagster_url(f"{database.url}?options=-cstatement_timeout%3D12345"))
    with engine.begin() as connection:
        assert connection.scalar(text("show statement_timeout")) == "12345ms"
        assert connection.scalar(text("show search_path")) == "dagster"
    engine.dispose()


def _end_sessions(database: Database) -> None:
    """End all other sessions of this database, as a restart of the server would."""
    with database.begin() as connection:
        connection.execute(
            text(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        )


def test_a_lock_whose_connection_was_ended_is_told_as_a_server_that_is_away(database: Database) -> None:
    def use() -> None:
        with database.own_connection() as connection:
            assert try_lock(connection, "one")
            pid = connection.scalar(text("select pg_backend_pid()"))
            with database.begin() as other:
                other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            connection.execute(text("select 1"))

    with pytest.raises(ServiceError):
        use()
