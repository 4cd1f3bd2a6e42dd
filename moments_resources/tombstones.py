"""Tombstones: the videos that were taken down. None of them comes back unless a submission says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from moments_core.errors import PermanentError
from moments_resources.tables import tombstones


@dataclass(frozen=True, slots=True)
class Tombstone:
    """`verified_at` is None while its removal goes on, or after it broke off."""

    video_id: str
    deleted_at: datetime
    verified_at: datetime | None

    def refusal(self, *, revive: bool) -> PermanentError | None:
        """Why a submission of the video can't be taken in; None: it brings the video back."""
        if not revive:
            return PermanentError(
                f"{self.video_id} was taken down on {self.deleted_at:%Y-%m-%d}: submit it with --revive if it is to "
                "come back."
            )
        if self.verified_at is None:
            return PermanentError(
                f"The removal of {self.video_id} is not finished: repeat `moments delete {self.video_id} --yes`, then "
                "submit it with --revive."
            )
        return None


def find(connection: Connection, video_ids: Collection[str]) -> dict[str, Tombstone]:
    """The tombstones of those of the videos that were taken down."""
    columns = (tombstones.c[name] for name in Tombstone.__dataclass_fields__)
    rows = connection.execute(select(*columns).where(tombstones.c.video_id.in_(video_ids))).mappings()
    return {row["video_id"]: Tombstone(**row) for row in rows}


def lay(connection: Connection, video_id: str, *, by: str) -> None:
    """The video is being taken down; the date of a removal that broke off stays."""
    row = insert_or(tombstones).values(video_id=video_id, deleted_by=by)
    again = {"verified_at": None}
    connection.execute(row.on_conflict_do_update(index_elements=[tombstones.c.video_id], set_=again))


def note_verified(connection: Connection, video_id: str) -> None:
    """Nothing of the video is left."""
    connection.execute(
        update(tombstones).where(tombstones.c.video_id == video_id).values(verified_at=func.clock_timestamp())
    )


def lift(connection: Connection, video_ids: Collection[str]) -> None:
    """The videos come back."""
    connection.execute(delete(tombstones).where(tombstones.c.video_id.in_(video_ids)))
