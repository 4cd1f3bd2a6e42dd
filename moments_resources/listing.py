"""The videos of a list become submissions, in one transaction with the end of the attempt that found the list."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, text

from moments_core.errors import SourceError
from moments_core.source import public_url
from moments_resources import gate, tombstones
from moments_resources.database import Database
from moments_resources.history import Attempt, check_fence, close
from moments_resources.storable import storable_text
from moments_resources.tables import pipeline_history
from moments_resources.video_lists import Entry, ListFound

DEEPEST = 2  # a channel lists its playlists, these their videos


def submit_entries(database: Database, attempt: Attempt, intake_id: int, found: ListFound) -> int:
    """Make each entry a submission like the list's own, `intake_id`, and end the attempt; says how many are new.

    An entry that this submission has made already makes no second one, so it can be repeated. Videos that were taken
    down are left out: not even their address and title come back. Raises as
    `check_fence`, and SourceError for a list too deep in lists: two that name each other have an end.
    """
    with database.begin() as connection:
        down = _taken_down(connection, {entry.video_id for entry in found.entries})
        check_fence(connection, attempt)
        above = _above(connection, intake_id)
        if len(above) > DEEPEST:
            raise SourceError(
                f"{public_url(above[0]['url'])} is a list in a list in a list, which is not opened: submit it itself."
            )
        left_out = {row["video_id"] for row in above} | down
        entries = [entry for entry in found.entries if entry.video_id not in left_out]
        new = _insert(connection, intake_id, entries)
        told = {"entries": len(entries), "new": new, "skipped": found.skipped + len(down), "note": _note(found, down)}
        close(connection, pipeline_history.c.attempt_id == attempt.attempt_id, "listed", evidence=told)
    return new


#: A submission, the list that named it, and so on; no further than is of interest: a row may come by SQL, in a circle.
_ABOVE = """
with recursive above as (
    select 0 as level, listed_in, video_id, url from public.url_intake where intake_id = :intake_id
    union all
    select a.level + 1, i.listed_in, i.video_id, i.url
    from public.url_intake i join above a on i.intake_id = a.listed_in
    where a.level < :deepest
)
select video_id, url from above order by level
"""

# Nobody else inserts for this list at the same time: all its attempts are at one video's raw_video, and one is open.
_INSERT = """
insert into public.url_intake (url, video_id, name, options, priority, submitted_by, listed_in)
select e.url, e.video_id, e.name, l.options, l.priority, l.submitted_by, l.intake_id
from unnest(cast(:urls as text[]), cast(:video_ids as text[]), cast(:names as text[]))
         with ordinality as e(url, video_id, name, ordinal)
join public.url_intake l on l.intake_id = :intake_id
where not exists (select from public.url_intake i where i.listed_in = l.intake_id and i.video_id = e.video_id)
order by e.ordinal
"""


def _taken_down(connection: Connection, video_ids: set[str]) -> set[str]:
    """Those of the videos that were taken down; none is until the transaction ends."""
    # Before the attempt's row is locked: who cancels or takes down shuts the gate first, too.
    gate.enter_all(connection, video_ids)
    return set(tombstones.find(connection, video_ids))


def _note(found: ListFound, down: set[str]) -> str | None:
    gone = [f"{len(down)} were taken down."] if down else []
    return " ".join([*([found.note] if found.note else []), *gone]) or None


def _above(connection: Connection, intake_id: int) -> Sequence[RowMapping]:
    return connection.execute(text(_ABOVE), {"intake_id": intake_id, "deepest": DEEPEST}).mappings().all()


def _insert(connection: Connection, intake_id: int, entries: Sequence[Entry]) -> int:
    values = {
        "intake_id": intake_id,
        "urls": [storable_text(entry.url) for entry in entries],
        "video_ids": [entry.video_id for entry in entries],
        "names": [entry.title and storable_text(entry.title) for entry in entries],
    }
    return connection.execute(text(_INSERT), values).rowcount
