"""The way in: rows of url_intake, what they ask for, and which of them nobody has started yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text, update

from moments_core.errors import FailureClass, MomentsError, PermanentError, SourceError, TransientError
from moments_core.options import Options
from moments_core.source import parse_url, video_id_for_content
from moments_resources.catalogue import evidence_of
from moments_resources.database import Database
from moments_resources.downloader import identify
from moments_resources.storable import storable_text
from moments_resources.store.file import file_sha256
from moments_resources.store.interface import ObjectStore, safe_name
from moments_resources.tables import pipeline_history, url_intake

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

    @property
    def upload_key(self) -> str | None:
        """Key of the uploaded file in the object store, or None for a URL."""
        return self.url.removeprefix(UPLOAD) if self.url.startswith(UPLOAD) else None


def name_video(url: str) -> str:
    """The video id of a submitted URL or upload. Raises SourceError for what can't be one."""
    if url.startswith(UPLOAD):
        key = _UPLOAD_KEY.fullmatch(url.removeprefix(UPLOAD))
        if key is None:
            raise SourceError("An upload is made with `moments submit FILE`, not by writing its key.")
        return video_id_for_content(key[1])
    return identify(parse_url(url))


class Intake:
    """Reads and writes url_intake. A row, once in, is changed in one way only: it is given its video's name."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    def submit(self, source: str, options: Options, *, submitted_by: str, priority: int = 0) -> IntakeRow:
        """Put a URL or a local file into the intake table; a file is copied into the object store first.

        A URL is kept as it was submitted, its fragment aside: it is what will be fetched, and a signed query does not
        survive being put in order. Its normal form gives the video's name alone.
        Every submission makes a row. One that can't be worked on is refused at once, be it for the source or for a
        store that does not take it, with its reason kept beside the row: `refusal` tells.
        """
        asked: dict[str, Any] = {"submitted_by": submitted_by, "priority": priority}
        try:
            return self._insert(options, **self._identified(source), **asked)
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

    def waiting(self, limit: int) -> list[IntakeRow]:
        """Submissions that nobody has started, first by priority, then by age. Duplicates are not among them."""
        return self._select(
            "join public.intake_state s using (intake_id) where s.state = 'waiting'"
            " order by i.priority desc, i.intake_id limit :limit",
            limit=limit,
        )

    def name_row(self, row: IntakeRow, video_id: str) -> None:
        """Give a row that came by SQL its video's name; for good."""
        change = update(url_intake).where(url_intake.c.intake_id == row.intake_id, url_intake.c.video_id.is_(None))
        with self._database.begin() as connection:
            connection.execute(change.values(video_id=video_id))

    def note_worker_lost(self, row: IntakeRow, log: Path | None) -> None:
        """Keep that the process for a row ended before its first attempt began; `log` is where its last words are."""
        told = log.read_text(errors="replace")[-2000:] if log is not None and log.exists() else ""
        where = f"look into {log}, then" if told else "if it was not you who ended it,"
        self.refuse(row, TransientError(f"The worker process ended before it began: {where} run this again.", log=told))

    def is_open(self, intake_id: int) -> bool:
        """Whether a submission waits or runs."""
        query = text("select state in ('waiting', 'running') from public.intake_state where intake_id = :id")
        with self._database.begin() as connection:
            return bool(connection.scalar(query, {"id": intake_id}))

    def refuse(self, row: IntakeRow, error: MomentsError) -> None:
        """Keep why a row can't be worked on, or was not; the row itself stays."""
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
        with self._database.begin() as connection:
            connection.execute(refused)

    def _identified(self, source: str) -> dict[str, Any]:
        path = Path(source)
        if source and "://" not in source and _exists(path):
            return self._uploaded(path)
        return {"url": source.partition("#")[0], "video_id": identify(source), "name": None}

    def _uploaded(self, path: Path) -> dict[str, Any]:
        sha256 = _readable_sha256(path)
        key = f"uploads/{sha256}/{safe_name(path.name)}"
        if self._store.copy_in(path, key).sha256 != sha256:
            self._store.delete(key)
            raise SourceError(f"{path} changed while it was read: submit it again when it is complete.")
        return {"url": f"{UPLOAD}{key}", "video_id": video_id_for_content(sha256), "name": storable_text(path.name)}

    def _insert(self, options: Options, **values: Any) -> IntakeRow:
        row = insert(url_intake).values(options=options.model_dump(exclude_none=True), **values)
        with self._database.begin() as connection:
            intake_id = connection.execute(row.returning(url_intake.c.intake_id)).scalar_one()
        return self.row(intake_id)

    def _select(self, rest: str, **parameters: Any) -> list[IntakeRow]:
        columns = "i.intake_id, i.url, i.video_id, i.options, i.priority, i.name"
        query = text(f"select {columns} from public.url_intake i {rest}")  # noqa: S608 - `rest` is written above
        with self._database.begin() as connection:
            return [IntakeRow(**row) for row in connection.execute(query, parameters).mappings()]


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
