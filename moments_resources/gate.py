"""The gate of a video: all work on it begins here, and whoever stops the video shuts it for a moment.

An attempt is registered in a transaction that has the gate open; cancelling, takedown and retention shut it in
theirs. So whoever stops a video sees every attempt that has begun, and none begins behind their back.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, any_, exists, func, literal, or_, select, text

from moments_core.errors import CancelledError
from moments_resources import tombstones
from moments_resources.database import lock_key
from moments_resources.tables import cancellations
from moments_resources.tombstones import Tombstone


def enter(connection: Connection, video_id: str) -> None:
    """Keep the gate open until the transaction ends; waits for whoever has shut it."""
    connection.execute(select(func.pg_advisory_xact_lock_shared(_key(video_id))))


def enter_all(connection: Connection, video_ids: Collection[str]) -> None:
    """As `enter`, for many videos in one statement."""
    keys = sorted(map(_key, video_ids))
    connection.execute(
        text("select count(pg_advisory_xact_lock_shared(key)) from unnest(cast(:keys as bigint[])) key"), {"keys": keys}
    )


def shut(connection: Connection, video_id: str) -> None:
    """Let nothing begin until the transaction ends; waits for what is beginning just now."""
    connection.execute(select(func.pg_advisory_xact_lock(_key(video_id))))


def check(connection: Connection, video_id: str, *, run_id: str, intake_id: int | None) -> None:
    """Whether work may begin; to be asked with the gate open.

    Raises PermanentError for a video that was taken down, CancelledError for a run or submission that was cancelled.
    """
    taken_down = tombstone(connection, video_id)
    refusal = taken_down and taken_down.refusal(revive=False)
    if refusal:
        raise refusal
    stopped = select(
        exists().where(
            cancellations.c.video_id == video_id,
            or_(
                literal(run_id) == any_(cancellations.c.run_ids),
                literal(intake_id) == any_(cancellations.c.intake_ids),
            ),
        )
    )
    if connection.scalar(stopped):
        raise CancelledError("This was cancelled: submit it again if that was a mistake.")


def tombstone(connection: Connection, video_id: str) -> Tombstone | None:
    """The tombstone of a video that was taken down; to be asked with the gate open."""
    return tombstones.find(connection, [video_id]).get(video_id)


def _key(video_id: str) -> int:
    return lock_key(f"gate:{video_id}")
