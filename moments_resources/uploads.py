"""The lock on the uploaded file of a video, whose name comes from the file's content.

Between the moment in which a file is in the store and the moment in which a row of url_intake names it, nobody else
could tell it from garbage, least of all where the object was there before and is only adopted. Whoever submits holds
the lock shared over both; whoever removes an upload holds it alone, over the last look at the rows and the removal.
Takedown knows the video alone, and maybe no row or object of it yet: so the video names the lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select

from moments_core.source import video_id_for_content
from moments_resources.database import Database, lock_key, wait_for


@contextmanager
def in_use(database: Database, sha256: str) -> Iterator[None]:
    """The upload is about to be named by a row: nobody removes it. Others may submit the same file meanwhile."""
    with database.own_connection() as connection:
        wait_for(connection, "select pg_advisory_lock_shared(:key)", {"key": _key(sha256)})
        yield


@contextmanager
def alone(database: Database, video_id: str) -> Iterator[None]:
    """Nobody submits the file of this video; waits for whoever does."""
    with database.lock(_name(video_id)):
        yield


def try_shut(connection: Connection, sha256: str) -> bool:
    """Let nobody submit this file until the transaction ends; False where somebody is about to."""
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(_key(sha256)))))


def _key(sha256: str) -> int:
    return lock_key(_name(video_id_for_content(sha256)))


def _name(video_id: str) -> str:
    return f"upload:{video_id}"
