"""The gate of a video: all work on it begins here, and whoever stops the video shuts it for a moment.

An attempt is registered in a transaction that has the gate open; cancelling, takedown and retention shut it in
theirs. So whoever stops a video sees every attempt that has begun, and none begins behind their back.
"""

from __future__ import annotations

from sqlalchemy import Connection, any_, exists, func, literal, or_, select

from moments_core.errors import CancelledError, PermanentError
from moments_resources.database import lock_key
from moments_resources.tables import cancellations, tombstones


def enter(connection: Connection, video_id: str) -> None:
    """Keep the gate open until the transaction ends; waits for whoever has shut it."""
    connection.execute(select(func.pg_advisory_xact_lock_shared(_key(video_id))))


def shut(connection: Connection, video_id: str) -> None:
    """Let nothing begin until the transaction ends; waits for what is beginning just now."""
    connection.execute(select(func.pg_advisory_xact_lock(_key(video_id))))


def check(connection: Connection, video_id: str, *, run_id: str, intake_id: int | None) -> None:
    """Whether work may begin; to be asked with the gate open.

    Raises PermanentError for a video that was taken down, CancelledError for a run or submission that was cancelled.
    """
    if connection.scalar(select(tombstones.c.deleted_at).where(tombstones.c.video_id == video_id)) is not None:
        raise PermanentError(f"{video_id} was taken down: submit it with --revive if it is to come back.")
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


def _key(video_id: str) -> int:
    return lock_key(f"gate:{video_id}")
