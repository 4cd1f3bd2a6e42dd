"""Objects that no row names. They go at the second of two looks that are far enough apart.

One look alone can't tell garbage from an object that a step has just stored and will name in its commit, nor from an
upload whose row is not there yet. So a look only notes what it finds in the table `garbage`. What was noted long ago is
looked at again behind the locks of whoever could name it: the gate of the video, where no step is at work, and the lock
on the upload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby, islice

from sqlalchemy import Connection, text

from moments_core.retention import Owner, owner_of
from moments_resources import gate, uploads
from moments_resources.intake import UPLOAD
from moments_resources.retention.part import Cleaned, Retention
from moments_resources.retention.versions import AT_WORK
from moments_resources.tables import ASSET_TABLES

_LOOKED_UP = 1000  # keys in one statement
_AT_ONCE = 100  # keys removed behind a shut gate: at 50 ms each in a bucket, a step waits five seconds for it

_IN_ROWS = [
    f"select object_key from {table} where video_id = any(:videos)"  # noqa: S608 - our own names
    for table in ASSET_TABLES.values()
    if "object_key" in table.c
]
_NAMED = text(
    " union ".join(
        [
            "select item->>'key' as key from public.artifacts a, jsonb_array_elements(a.objects) item"
            " where a.video_id = any(:videos)",
            # A row that came by SQL has no video yet.
            f"select substr(url, {len(UPLOAD) + 1}) from public.url_intake"  # noqa: S608
            " where (video_id = any(:videos) or video_id is null) and url = any(:urls)",
            *_IN_ROWS,
        ]
    )
)
_NOTE = text("""
    insert into public.garbage (key) select unnest(cast(:keys as text[])) on conflict do nothing""")
_NOTED = text("select count(*) from public.garbage where key = any(:keys)")
_STRIKE = text("delete from public.garbage where key = any(:keys)")
_DUE = text("""
    select key from public.garbage
    where key > :after and found_at <= now() - :keep order by key limit :page""")


class Look:
    """Notes the objects that no row names. Keys that have not the form of ours are left alone."""

    name = "objects that no row names"
    share = 1 / 3

    def __init__(self, retention: Retention) -> None:
        self._database = retention.database
        self._store = retention.store

    def candidates(self) -> Iterator[list[str]]:
        """All keys, a thousand at a time."""
        keys = chain(self._store.keys("videos/"), self._store.keys("uploads/"))
        while batch := list(islice(keys, _LOOKED_UP)):
            yield batch

    def weigh(self, piece: list[str]) -> Cleaned:
        with self._database.begin() as connection:
            unnamed = _unnamed(connection, piece)
            known = connection.scalar(_NOTED, {"keys": unnamed}) or 0
        return Cleaned(seen=len(piece), found=len(unnamed) - known)

    def remove(self, piece: list[str]) -> Cleaned:
        with self._database.begin() as connection:
            unnamed = _unnamed(connection, piece)
            found = connection.execute(_NOTE, {"keys": unnamed}).rowcount
            connection.execute(_STRIKE, {"keys": sorted(set(piece) - set(unnamed))})
        return Cleaned(seen=len(piece), found=found)


class Garbage:
    """Objects that were found to be named by no row long enough ago, and are so still."""

    name = "objects"
    share = 1 / 6

    def __init__(self, retention: Retention) -> None:
        self._database = retention.database
        self._store = retention.store
        self._keep = retention.limits.garbage

    def candidates(self) -> Iterator[tuple[Owner, list[str]]]:
        """Keys of one owner."""
        after = ""
        while True:
            with self._database.begin() as connection:
                page = {"after": after, "keep": self._keep, "page": _AT_ONCE}
                keys = list(connection.scalars(_DUE, page))
            if not keys:
                return
            for owner, its in groupby(keys, owner_of):
                if owner is not None:
                    yield owner, list(its)
            after = keys[-1]

    def weigh(self, piece: tuple[Owner, list[str]]) -> Cleaned:
        owner, keys = piece
        with self._database.begin() as connection:
            dead = [] if self._is_at_work(connection, owner) else _unnamed(connection, keys)
        sizes = [size for key in dead if (size := self._store.size(key)) is not None]
        return Cleaned(objects=len(sizes), bytes=sum(sizes))

    def remove(self, piece: tuple[Owner, list[str]]) -> Cleaned:
        owner, keys = piece
        with self._database.begin() as connection:
            if owner.upload is not None and not uploads.try_shut(connection, owner.upload):
                return Cleaned()  # somebody submits this very file
            gate.shut(connection, owner.video_id)
            if self._is_at_work(connection, owner):
                return Cleaned()
            gone = [size for key in _unnamed(connection, keys) if (size := self._removed(key)) is not None]
            connection.execute(_STRIKE, {"keys": keys})
        return Cleaned(objects=len(gone), bytes=sum(gone))

    def _removed(self, key: str) -> int | None:
        size = self._store.size(key)
        return size if self._store.delete(key) else None

    @staticmethod
    def _is_at_work(connection: Connection, owner: Owner) -> bool:
        return bool(connection.scalar(AT_WORK, {"video": owner.video_id}))


def _unnamed(connection: Connection, keys: Sequence[str]) -> list[str]:
    """The keys of ours that no row names at this moment, whichever version or submission it is of."""
    owners = {key: owner for key in keys if (owner := owner_of(key)) is not None}
    asked = {
        "videos": sorted({owner.video_id for owner in owners.values()}),
        "urls": [UPLOAD + key for key, owner in owners.items() if owner.upload],
    }
    named = set(connection.scalars(_NAMED, asked)) if owners else set()
    return [key for key in owners if key not in named]
