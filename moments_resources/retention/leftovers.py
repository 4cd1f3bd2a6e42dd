"""What dead processes left on this machine's disk, log files, and small tables that would only grow."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from sqlalchemy import text

from moments_resources.retention.part import Cleaned, Retention
from moments_resources.store.locks import abandoned, remove_abandoned

_LOG = re.compile(r"intake-(\d{1,18})\.log")
_LOGS_AT_ONCE = 1000


class Leftovers:
    """Scratch folders and files half brought into the store, of processes of this machine that are gone."""

    name = "leftovers of dead processes"
    share = 1 / 24

    def __init__(self, retention: Retention) -> None:
        self._scratch = retention.scratch
        self._store = retention.store

    def candidates(self) -> Iterator[None]:
        yield None

    def weigh(self, piece: None) -> Cleaned:  # noqa: ARG002 - there is but one piece
        return Cleaned(leftovers=len(abandoned(self._scratch)) + len(self._store.leftovers()))

    def remove(self, piece: None) -> Cleaned:  # noqa: ARG002
        return Cleaned(leftovers=remove_abandoned(self._scratch) + self._store.tidy())


class OldLogs:
    """Log files of worker processes whose submission has long ended, or is gone."""

    name = "log files"
    share = 1 / 24

    def __init__(self, retention: Retention) -> None:
        self._database = retention.database
        self._folder = retention.logs
        self._keep = retention.limits.runs

    def candidates(self) -> Iterator[dict[int, Path]]:
        """Files by their submissions."""
        files = self._old_files()
        while batch := dict(islice(files, _LOGS_AT_ONCE)):
            yield batch

    def weigh(self, piece: dict[int, Path]) -> Cleaned:
        return Cleaned(logs=len(piece) - len(self._wanted(piece)))

    def remove(self, piece: dict[int, Path]) -> Cleaned:
        wanted = self._wanted(piece)
        for intake_id, path in piece.items():
            if intake_id not in wanted:
                path.unlink(missing_ok=True)
        return Cleaned(logs=len(piece) - len(wanted))

    def _old_files(self) -> Iterator[tuple[int, Path]]:
        before = time.time() - self._keep.total_seconds()
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(FileNotFoundError):
                if (named := _LOG.fullmatch(path.name)) and path.stat().st_mtime < before:
                    yield int(named[1]), path

    def _wanted(self, files: dict[int, Path]) -> set[int]:
        unended = text(
            "select intake_id from public.intake_state where intake_id = any(:ids) and state in ('waiting', 'running')"
        )
        with self._database.begin() as connection:
            return set(connection.scalars(unended, {"ids": list(files)}))


class OldSpending:
    """Days long past in `spending`: a budget looks at today's alone."""

    name = "days of spending"
    share = 1 / 48

    def __init__(self, retention: Retention) -> None:
        self._database = retention.database
        self._keep = retention.limits.runs

    def candidates(self) -> Iterator[None]:
        yield None

    def weigh(self, piece: None) -> Cleaned:  # noqa: ARG002 - there is but one piece
        return Cleaned(days=self._run("select count(*) from public.spending where {old}"))

    def remove(self, piece: None) -> Cleaned:  # noqa: ARG002
        deleted = "with gone as (delete from public.spending where {old} returning day) select count(*) from gone"
        return Cleaned(days=self._run(deleted))

    def _run(self, statement: str) -> int:
        old = "day < (now() at time zone 'UTC' - :keep)::date"
        with self._database.begin() as connection:
            return int(connection.scalar(text(statement.format(old=old)), {"keep": self._keep}) or 0)
