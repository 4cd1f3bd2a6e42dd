"""`moments sql`: one read-only query on the lakehouse, whatever the text says."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from moments.services import Lakehouse
from moments_core.errors import PermanentError, SettingsError

_TIMEOUT_MS = 60_000
_BATCH = 1000


@dataclass(frozen=True)
class Answer:
    """Column names, and the rows as they come."""

    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


@contextmanager
def run_query(lakehouse: Lakehouse, query: str) -> Iterator[Answer]:
    """Run one query that returns rows, in a read-only transaction. Raises PermanentError for any other statement.

    The text is opened as a cursor by the server itself, which refuses a second statement and everything but a query:
    text such as `select 1; commit; drop table …` never leaves the transaction that can't write.
    """
    try:
        with lakehouse.database.begin() as connection:
            yield _opened(connection, query)
    except DBAPIError as error:
        raise PermanentError(_sentence(error), detail=str(error.orig)) from error
    except SettingsError as error:  # a right that the lakehouse itself does not need: reading the server's files, say
        raise PermanentError("The query asks for what the database user may not do: leave that out.") from error


def _opened(connection: Connection, query: str) -> Answer:
    connection.execute(text("set transaction read only"))
    connection.execute(text(f"set local statement_timeout = {_TIMEOUT_MS}"))
    connection.execute(text("select set_config('moments.query', :query, true)"), {"query": query})
    connection.execute(text(_OPEN))
    first = connection.execute(text(f"fetch {_BATCH} from answer"))
    return Answer(list(first.keys()), _rows(connection, first.fetchall()))


def _rows(connection: Connection, batch: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    while batch:
        yield from batch
        batch = connection.execute(text(f"fetch {_BATCH} from answer")).fetchall()


_OPEN = """
do $$
declare answer refcursor := 'answer';
begin
    open answer no scroll for execute current_setting('moments.query');
end $$
"""


def write_csv(answer: Answer, out: TextIO) -> None:
    writer = csv.writer(out)
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)


def _sentence(error: DBAPIError) -> str:
    said = str(error.orig).strip().splitlines()[0]
    if "as cursor" in said or "in a read-only transaction" in said:
        return "`moments sql` runs one query that returns rows and changes nothing: write one SELECT."
    return f"The query failed: {said}."
