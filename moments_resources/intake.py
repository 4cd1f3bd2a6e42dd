"""The way in: rows of url_intake, what they ask for, and which of them nobody has started yet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, text, update

from moments_core.errors import FailureClass, MomentsError, PermanentError, SourceError
from moments_core.options import Options
from moments_core.source import video_id_for_content
from moments_resources import gate, tombstones, uploads
from moments_resources.database import Database
from moments_resources.downloader import identify
from moments_resources.history import evidence_of, missing_assets
from moments_resources.storable import storable_text
from moments_resources.store.file import file_sha256
from moments_resources.store.interface import ObjectStore, safe_name
from moments_resources.tables import pipeline_history, url_intake
from moments_resources.tombstones import Tombstone

UPLOAD = "upload:"
# Up to the last @ of the host part, and further where a password may hold a slash: too much is better than too little.
_CREDENTIALS = re.compile(r"^((?:[a-z][a-z0-9+.-]*:)?+(?://)?+)(?:[^/?#]*|.*:.*)@", re.IGNORECASE)
_UPLOAD_KEY = re.compile(r"uploads/([0-9a-f]{64})/[^/]+")
_REFUSED_IN = "raw_video"  # the first asset: the one that can't be made


@dataclass(frozen=True, slots=True)
class IntakeRow:
    """One submission. `options` is as somebody wrote it: read it with moments_core.options.read_options."""

    intake_id: int
    url: str
    video_id: str | None
    options: Mapping[str, object]
    priority: int
    name: str | None
    listed_in: int | None = None

    @property
    def upload_key(self) -> str | None:
        """Key of the uploaded file in the object store, or None for a URL."""
        return self.url.removeprefix(UPLOAD) if self.url.startswith(UPLOAD) else None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A submission that is to be tried again: the assets that it still lacks, and how often it was tried."""

    row: IntakeRow
    missing: tuple[str, ...]
    tries: int


def name_video(url: str) -> str:
    """The video id of a submitted URL or upload. Raises SourceError for what can't be one."""
    if url.startswith(UPLOAD):
        key = _UPLOAD_KEY.fullmatch(url.removeprefix(UPLOAD))
        if key is None:
            raise SourceError("An upload is made with `moments submit FILE`, not by writing its key.")
        return video_id_for_content(key[1])
    return identify(url)


def upload_prefix(video_id: str) -> str | None:
    """What the keys of a video's uploads start with, whatever the files were called; None for a web address."""
    content = video_id.removeprefix("file-")
    return f"uploads/{content}" if content != video_id else None


class Intake:
    """Reads and writes url_intake. A row, once in, is changed in one way only: it is given its video's name."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    def submit(self, source: str, options: Options, *, submitted_by: str, priority: int = 0) -> IntakeRow:
        """Put a URL or a local file into the intake table; a file is copied into the object store first.

        A URL is kept as it was submitted, its fragment aside: it is what will be fetched, and a signed query does not
        survive being put in order. Its normal form gives the video's name alone.
        Every submission makes a row. One that can't be worked on is refused at once, be it for the source, for a
        video that was taken down, or for a store that does not take it, with its reason kept beside the row:
        `refusal` tells.
        """
        asked: dict[str, Any] = {"submitted_by": submitted_by, "priority": priority}
        try:
            with self._identified(source, options) as values:
                return self._insert(options, **values, **asked)
        except MomentsError as error:
            row = self._insert(options, url=_without_secrets(source), video_id=None, name=None, **asked)
            self.refuse(row, error)
            return row

    def refusal(self, row: IntakeRow) -> tuple[str, str] | None:
        """(class, cause) of a row that was refused, or None."""
        query = text("select class, cause from public.pipeline_history where intake_id = :id and video_id is null")
        with self._database.begin() as connection:
            found = connection.execute(query, {"id": row.intake_id}).first()
        return None if found is None else (found[0], found[1])

    def row(self, intake_id: int) -> IntakeRow:
        found = self._select("where i.intake_id = :id", id=intake_id)
        if not found:
            raise PermanentError(f"There is no submission number {intake_id}.")
        return found[0]

    def source_of(self, video_id: str) -> IntakeRow:
        """The newest submission of a video. Raises SourceError where there is none."""
        found = self._select("where i.video_id = :id order by i.intake_id desc limit 1", id=video_id)
        if not found:
            raise SourceError(
                f"No submission leads to {video_id}: submit its URL or file with `moments submit`.", video_id=video_id
            )
        return found[0]

    def options_of(self, video_id: str) -> Mapping[str, object]:
        """What the newest submission of a video asks for, as it was written; nothing where there is none."""
        found = self._select("where i.video_id = :id order by i.intake_id desc limit 1", id=video_id)
        return found[0].options if found else {}

    def listed_in(self, intake_id: int) -> list[IntakeRow]:
        """The submissions that a list became, in its order."""
        return self._select("where i.listed_in = :id order by i.intake_id", id=intake_id)

    def is_wanted(self, intake_id: int) -> bool:
        """Whether a submission is still there and was not cancelled."""
        query = text("""
            select exists (select from public.url_intake where intake_id = :id)
               and not exists (select from public.cancellations where cast(:id as bigint) = any(intake_ids))""")
        with self._database.begin() as connection:
            return bool(connection.scalar(query, {"id": intake_id}))

    def unregistered(self, limit: int) -> list[IntakeRow]:
        """Submissions that nobody has looked at, the oldest first.

        By a mark on the row, not by a cursor: numbers are given out before their rows are committed, so a row may
        appear behind a cursor.
        """
        return self._select("where i.registered_at is null and not i.settled order by i.intake_id limit :n", n=limit)

    def taken_down(self, video_ids: Collection[str]) -> dict[str, Tombstone]:
        """The tombstones of those of the videos that were taken down."""
        with self._database.begin() as connection:
            return tombstones.find(connection, video_ids)

    def name_rows(self, names: Mapping[int, str], *, revived: Collection[str] = ()) -> set[int]:
        """Give rows (by their numbers) the names of their videos, for good; says which of them may be worked on.

        Tombstones of `revived` videos go. A row is left as it is where its video was taken down after its tombstone
        was looked up.
        """
        with self._database.begin() as connection:
            gate.enter_all(connection, set(names.values()))
            found = tombstones.find(connection, set(names.values()))
            back = {video_id for video_id in revived if video_id in found and found[video_id].verified_at is not None}
            tombstones.lift(connection, back)
            left = {number: video_id for number, video_id in names.items() if video_id not in found.keys() - back}
            self._name(connection, left)
        return set(left)

    def _name(self, connection: Connection, names: Mapping[int, str]) -> None:
        change = text("""
            update public.url_intake i set video_id = n.video_id
            from unnest(cast(:ids as bigint[]), cast(:names as text[])) as n (intake_id, video_id)
            where i.intake_id = n.intake_id and i.video_id is null""")
        connection.execute(change, {"ids": list(names), "names": list(names.values())})

    def mark_registered(self, intake_ids: Sequence[int]) -> None:
        """The partitions of these rows are made."""
        change = update(url_intake).where(url_intake.c.intake_id.in_(intake_ids), url_intake.c.registered_at.is_(None))
        with self._database.begin() as connection:
            connection.execute(change.values(registered_at=func.now()))

    def waiting(self, limit: int, *, but: Sequence[int] = ()) -> list[IntakeRow]:
        """Submissions that nobody has begun, first by priority, then by age; duplicates are not among them.

        `but`: numbers of those that were asked for already.
        """
        return self._open("s.state = 'waiting' and not s.begun", limit, but)

    def to_try_again(self, limit: int, *, but: Sequence[int] = ()) -> list[Unfinished]:
        """Submissions that failed and are to be tried again by now, in the same order."""
        # First by the index: the state of ten thousand that wait for their first run is not asked for.
        again = "i.intake_id in (select intake_id from public.pipeline_history where try_again_at is not null)"
        rows = self._open(f"{again} and s.state = 'waiting' and s.not_before <= now()", limit, but)
        return [self._unfinished(row) for row in rows]

    def settle(self) -> int:
        """Mark the rows that the sensors need not look at again; says how many.

        A row has ended, or its end is that of an equal one that has begun. Rows without attempts are left out before
        their state is asked for: ten thousand may wait.
        """
        change = text("""
            with begun as materialized (
                select i.intake_id from public.url_intake i
                where not i.settled and i.registered_at is not null and (
                    exists (select from public.pipeline_history h where h.intake_id = i.intake_id)
                    or exists (select from public.pipeline_history h
                               where h.video_id = i.video_id and h.intake_id < i.intake_id))
            )
            update public.url_intake i set settled = true
            from begun join public.intake_state s using (intake_id)
            where i.intake_id = begun.intake_id and (
                s.state in ('completed', 'failed', 'cancelled')
                or s.state = 'duplicate' and exists (
                    select from public.pipeline_history h where h.intake_id = s.duplicate_of))""")
        with self._database.begin() as connection:
            return connection.execute(change).rowcount

    def refuse(self, row: IntakeRow, error: MomentsError) -> None:
        """Keep why a row can't be worked on, or was not; the row itself stays. A row that is gone has no reason."""
        refused = insert(pipeline_history).values(
            asset=_REFUSED_IN,
            attempt=1,
            outcome="cancelled" if error.failure_class is FailureClass.CANCELLED else "failed",
            **{"class": error.failure_class.value},
            cause=storable_text(str(error)),
            evidence=evidence_of(error),
            intake_id=row.intake_id,
            ended_at=text("now()"),
            seconds=0,
            host="",
            pid=0,
        )
        settled = update(url_intake).where(url_intake.c.intake_id == row.intake_id).values(settled=True)
        with self._database.begin() as connection:
            if connection.execute(settled).rowcount:
                connection.execute(refused)

    def _open(self, where: str, limit: int, but: Sequence[int]) -> list[IntakeRow]:
        return self._select(
            "join public.intake_state s using (intake_id)"
            f" where not i.settled and i.registered_at is not null and {where} and i.intake_id <> all(:but)"
            " order by i.priority desc, i.intake_id limit :limit",
            limit=limit,
            but=list(but),
        )

    def _unfinished(self, row: IntakeRow) -> Unfinished:
        tries = text("select tries from public.intake_state where intake_id = :id")
        with self._database.begin() as connection:
            missing = missing_assets(connection, row.intake_id)
            tried = connection.scalar(tries, {"id": row.intake_id}) or 0
        return Unfinished(row, tuple(missing), tried)

    @contextmanager
    def _identified(self, source: str, options: Options) -> Iterator[dict[str, Any]]:
        """What a source says of its row; a file is in the store, and stays there until the row is in the table."""
        path = Path(source)
        if source and "://" not in source and _exists(path):
            sha256 = _readable_sha256(path)
            with uploads.in_use(self._database, sha256):
                with self._database.begin() as connection:  # before its bytes come back
                    _check_tombstone(connection, video_id_for_content(sha256), options)
                values = self._uploaded(path, sha256)
                try:
                    yield values
                except PermanentError:  # taken down while its bytes came
                    self._discard(values["url"])
                    raise
        else:
            yield {"url": source.partition("#")[0], "video_id": identify(source), "name": None}

    def _uploaded(self, path: Path, sha256: str) -> dict[str, Any]:
        key = f"uploads/{sha256}/{safe_name(path.name)}"
        if self._store.copy_in(path, key).sha256 != sha256:
            self._store.delete(key)
            raise SourceError(f"{path} changed while it was read: submit it again when it is complete.")
        return {"url": f"{UPLOAD}{key}", "video_id": video_id_for_content(sha256), "name": storable_text(path.name)}

    def _discard(self, url: str) -> None:
        """Remove an upload that no row names. Takedown, which waits for it, removes those that one does."""
        query = text("select exists (select from public.url_intake where url = :url)")
        with self._database.begin() as connection:
            is_named = connection.scalar(query, {"url": url})
        if not is_named:
            self._store.delete(url.removeprefix(UPLOAD))

    def _insert(self, options: Options, **values: Any) -> IntakeRow:
        row = insert(url_intake).values(options=options.model_dump(exclude_none=True), **values)
        with self._database.begin() as connection:
            if values["video_id"] is not None:
                gate.enter(connection, values["video_id"])
                _check_tombstone(connection, values["video_id"], options)
            intake_id = connection.execute(row.returning(url_intake.c.intake_id)).scalar_one()
        return self.row(intake_id)

    def _select(self, rest: str, **parameters: Any) -> list[IntakeRow]:
        columns = "i.intake_id, i.url, i.video_id, i.options, i.priority, i.name, i.listed_in"
        query = text(f"select {columns} from public.url_intake i {rest}")  # noqa: S608 - `rest` is written above
        with self._database.begin() as connection:
            return [IntakeRow(**row) for row in connection.execute(query, parameters).mappings()]


def _check_tombstone(connection: Connection, video_id: str, options: Options) -> None:
    found = tombstones.find(connection, [video_id]).get(video_id)
    refusal = found and found.refusal(revive=bool(options.revive))
    if refusal:
        raise refusal


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a file name, or a NUL in it: no path at all
        return False


def _readable_sha256(path: Path) -> str:
    if not path.is_file():
        raise SourceError(f"{path} is not a file: name the video files themselves.")
    try:
        return file_sha256(path)
    except OSError as error:
        raise SourceError(f"{path} can't be read ({error.strerror}): check its permissions and its disk.") from error


def without_credentials(source: str) -> str:
    """A source as it may be shown: `***` in place of a user and a password."""
    return _CREDENTIALS.sub(r"\1***@", source) if ":" in source else source


def _without_secrets(source: str) -> str:
    """What was typed, fit for a table: no user and password, nothing unprintable, no end without end."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in source)
    return _CREDENTIALS.sub(r"\1***@", printable)[:2048] or "(nothing)"
