"""A clock of PostgreSQL that can be set: for the lakehouse's own connections, `now()` is ours.

Leases, pauses and times of attempts are all read from PostgreSQL's clock. Setting the machine's would need a machine
of its own, so functions of the same names come before PostgreSQL's in the search path of the lakehouse's user.
Whoever asks for pg_catalog.now() sees the true time.
"""

from __future__ import annotations

from sqlalchemy import create_engine, make_url, text

_CREATE = """
create schema clock;
create table clock.step (step interval not null);
insert into clock.step values ('0');
create function clock.now() returns timestamptz stable language sql
    as 'select pg_catalog.now() + (select step from clock.step)';
create function clock.clock_timestamp() returns timestamptz volatile language sql
    as 'select pg_catalog.clock_timestamp() + (select step from clock.step)';
grant usage on schema clock to public;
grant select, update on clock.step to public;
"""


def create_clock(superuser_url: str, url: str) -> None:
    """To be called before the tables are made, whose defaults are bound to a function when they are."""
    ours = make_url(url)
    engine = create_engine(make_url(superuser_url).set(database=ours.database), isolation_level="AUTOCOMMIT")
    quoted = engine.dialect.identifier_preparer.quote
    path = f"alter role {quoted(str(ours.username))} set search_path = public, clock, pg_catalog"
    try:
        with engine.connect() as connection:
            connection.execute(text(_CREATE))
            connection.execute(text(path))
    finally:
        engine.dispose()


STEP = "update clock.step set step = step + make_interval(secs => :seconds)"
