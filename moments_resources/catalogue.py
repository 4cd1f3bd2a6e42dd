"""The artifact catalogue: the truth about which results exist, and the only place that commits one.

A commit is one transaction: the fence is checked, the rows are inserted under a new version, the former version is
superseded, the artifact row and the attempt's end are written. Readers go through `current`, so a half-written
result is never seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from moments_core.errors import FenceError, MomentsError, PermanentError, classify, reason
from moments_resources.database import Database
from moments_resources.tables import ASSET_TABLES, artifacts, generation_configs, pipeline_history

DIED = "The process that did this work was killed, or its machine went down: run it again, nothing is lost."


def canonical_sha256(value: object) -> str:
    """SHA-256 of `value` as JSON with sorted keys: equal values, equal hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one asset of one video. The highest number alone may commit."""

    attempt_id: int
    video_id: str
    asset: str
    number: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a result besides its inputs: code version, options, tools. Equal hashes, equal result."""

    code_version: str
    config: Mapping[str, object]

    @property
    def sha256(self) -> str:
        return canonical_sha256({"code_version": self.code_version, **self.config})


@dataclass(frozen=True, slots=True)
class Draft:
    """A result that is ready to be committed. `rows` hold the table's columns without video_id and version."""

    attempt: Attempt
    recipe: Recipe
    inputs: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    measures: Mapping[str, object] = field(default_factory=dict)
    objects: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A committed version of (video, asset)."""

    video_id: str
    asset: str
    version: int
    attempt_id: int
    config_hash: str
    inputs: Mapping[str, int]
    objects: Sequence[Mapping[str, object]]
    row_count: int
    measures: Mapping[str, object]
    seconds: float

    def is_made_by(self, recipe: Recipe, inputs: Mapping[str, int]) -> bool:
        """Whether the same recipe and inputs would be used again."""
        return self.config_hash == recipe.sha256 and dict(self.inputs) == dict(inputs)


class Catalogue:
    """Reads and commits artifacts, and keeps the history of attempts."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextmanager
    def turn(self, video_id: str, asset: str) -> Iterator[None]:
        """Take turns: one step at a time works on (video, asset), over the whole installation."""
        with self.database.lock(f"step:{video_id}:{asset}"):
            yield

    def open_attempt(self, video_id: str, asset: str, *, run_id: str, intake_id: int | None = None) -> Attempt:
        """Register a new attempt; to be called in one's turn.

        An earlier attempt that is still open lost its turn without closing: its process died, and it is closed as
        failed here. From now on its commit is refused.
        """
        here = (pipeline_history.c.video_id == video_id) & (pipeline_history.c.asset == asset)
        with self.database.begin() as connection:
            _close(connection, here & (pipeline_history.c.outcome == "running"), "failed", "transient", DIED, {})
            last = connection.scalar(select(func.max(pipeline_history.c.attempt)).where(here)) or 0
            row = insert(pipeline_history).values(
                video_id=video_id,
                asset=asset,
                attempt=last + 1,
                outcome="running",
                run_id=run_id,
                intake_id=intake_id,
                host=socket.gethostname(),
                pid=os.getpid(),
            )
            attempt_id = connection.scalar(row.returning(pipeline_history.c.attempt_id))
        return Attempt(int(attempt_id or 0), video_id, asset, last + 1, run_id)

    def current(self, video_id: str, asset: str) -> Artifact | None:
        """The newest committed version, or None."""
        with self.database.begin() as connection:
            row = connection.execute(_current(video_id, asset)).mappings().first()
        return None if row is None else _artifact(row)

    def rows(self, artifact: Artifact) -> list[dict[str, Any]]:
        """The rows of one version, in the order of the table's key, without video_id and version."""
        table = ASSET_TABLES[artifact.asset]
        query = (
            select(*(column for column in table.c if column.name not in {"video_id", "version"}))
            .where(table.c.video_id == artifact.video_id, table.c.version == artifact.version)
            .order_by(*(table.c.get("ordinal", column) for column in table.primary_key))
        )
        with self.database.begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def commit(self, draft: Draft) -> Artifact:
        """Make the draft the current version, in one transaction. Raises FenceError when it may not."""
        attempt = draft.attempt
        with self.database.begin() as connection:
            _check_fence(connection, attempt)
            version = _supersede(connection, attempt)
            _note_config(connection, draft.recipe)
            _insert_rows(connection, attempt, version, draft.rows)
            connection.execute(insert(artifacts).values(**_artifact_values(draft, version)))
            _close(connection, pipeline_history.c.attempt_id == attempt.attempt_id, "completed")
            row = connection.execute(_current(attempt.video_id, attempt.asset)).mappings().one()
        return _artifact(row)

    def close_reused(self, attempt: Attempt) -> None:
        """The attempt found that the current version is what it would make."""
        with self.database.begin() as connection:
            _close(connection, pipeline_history.c.attempt_id == attempt.attempt_id, "reused")

    def close_failed(self, attempt: Attempt, error: BaseException, *, will_retry: bool) -> None:
        """Keep why the attempt ended; does nothing to an attempt that has ended already."""
        failure_class = classify(error)
        outcome = "retrying" if will_retry else "cancelled" if failure_class == "cancelled" else "failed"
        open_one = and_(pipeline_history.c.attempt_id == attempt.attempt_id, pipeline_history.c.outcome == "running")
        evidence = evidence_of(error)
        with self.database.begin() as connection:
            _close(connection, open_one, outcome, failure_class.value, reason(error), evidence)

    def close_dead(self, run_id: str, cause: str = DIED) -> int:
        """Close what a run that is known to be dead left open; says how many attempts that were."""
        left = (pipeline_history.c.run_id == run_id) & pipeline_history.c.outcome.in_(("running", "retrying"))
        with self.database.begin() as connection:
            return _close(connection, left, "failed", "transient", cause, {})

    def note_failure(self, video_id: str, asset: str, *, run_id: str, intake_id: int | None, cause: str) -> None:
        """Keep a failure that no attempt of this run has recorded; does nothing where one has."""
        recorded = select(pipeline_history.c.attempt_id).where(
            pipeline_history.c.video_id == video_id,
            pipeline_history.c.asset == asset,
            pipeline_history.c.run_id == run_id,
        )
        with self.database.begin() as connection:
            if connection.execute(recorded.limit(1)).first() is not None:
                return
        attempt = self.open_attempt(video_id, asset, run_id=run_id, intake_id=intake_id)
        self.close_failed(attempt, PermanentError(cause[:2000]), will_retry=False)

    def note_progress(self, attempt: Attempt, done: float) -> None:
        """Write how far the attempt has come, 0..1."""
        change = update(pipeline_history).where(
            pipeline_history.c.attempt_id == attempt.attempt_id, pipeline_history.c.outcome == "running"
        )
        with self.database.begin() as connection:
            connection.execute(change.values(progress=min(1.0, max(0.0, done))))


def evidence_of(error: BaseException) -> dict[str, object]:
    """What to keep beside the cause: the error's own facts and its kind, each short."""
    facts = error.evidence if isinstance(error, MomentsError) else {}
    origin = error.__cause__
    kinds = {"error": type(error).__name__, **({"caused_by": type(origin).__name__} if origin else {})}
    return kinds | {name: _short(value) for name, value in facts.items()}


def _short(value: object) -> object:
    return value if isinstance(value, (int, float, bool)) or value is None else str(value)[:4000]


def _check_fence(connection: Connection, attempt: Attempt) -> None:
    newest = (
        select(pipeline_history.c.attempt_id, pipeline_history.c.outcome)
        .where(pipeline_history.c.video_id == attempt.video_id, pipeline_history.c.asset == attempt.asset)
        .order_by(pipeline_history.c.attempt.desc())
        .limit(1)
        .with_for_update()
    )
    row = connection.execute(newest).one()
    if row.attempt_id != attempt.attempt_id or row.outcome != "running":
        raise FenceError(
            f"Attempt {attempt.number} at {attempt.asset} was ended or overtaken, so its result is not kept.",
            attempt=attempt.number,
            video_id=attempt.video_id,
        )


def _supersede(connection: Connection, attempt: Attempt) -> int:
    here = (artifacts.c.video_id == attempt.video_id) & (artifacts.c.asset == attempt.asset)
    last = connection.scalar(select(func.max(artifacts.c.version)).where(here)) or 0
    connection.execute(
        update(artifacts).where(here, artifacts.c.superseded_at.is_(None)).values(superseded_at=func.now())
    )
    return last + 1


def _note_config(connection: Connection, recipe: Recipe) -> None:
    row = insert_or(generation_configs).values(sha256=recipe.sha256, config=dict(recipe.config))
    connection.execute(row.on_conflict_do_nothing())


def _insert_rows(connection: Connection, attempt: Attempt, version: int, rows: Sequence[Mapping[str, Any]]) -> None:
    table = ASSET_TABLES[attempt.asset]
    if rows:
        whose = {"video_id": attempt.video_id, "version": version}
        connection.execute(insert(table), [{**row, **whose} for row in rows])
    if attempt.asset == "transcript":
        connection.execute(text(_SEGMENTS), {"video_id": attempt.video_id, "version": version})


#: A transcript's sentences as rows of their own, for the full-text index; made from its JSON, so they can't differ.
_SEGMENTS = """
insert into versions.transcript_segments (video_id, version, ordinal, start_ms, end_ms, text, speaker)
select t.video_id, t.version, s.ordinal, (s.item->>'start_ms')::bigint, (s.item->>'end_ms')::bigint,
       s.item->>'text', s.item->>'speaker'
from versions.transcripts t
cross join lateral jsonb_array_elements(t.segment_timestamps) with ordinality as s(item, ordinal)
where t.video_id = :video_id and t.version = :version
"""


def _artifact_values(draft: Draft, version: int) -> dict[str, object]:
    attempt = draft.attempt
    return {
        "video_id": attempt.video_id,
        "asset": attempt.asset,
        "version": version,
        "attempt_id": attempt.attempt_id,
        "run_id": attempt.run_id,
        "code_version": draft.recipe.code_version,
        "config_hash": draft.recipe.sha256,
        "config": dict(draft.recipe.config),
        "inputs": dict(draft.inputs),
        "objects": [dict(item) for item in draft.objects],
        "row_count": len(draft.rows),
        "measures": dict(draft.measures),
        "seconds": draft.seconds,
    }


def _current(video_id: str, asset: str) -> Any:
    return select(artifacts).where(
        artifacts.c.video_id == video_id, artifacts.c.asset == asset, artifacts.c.superseded_at.is_(None)
    )


def _artifact(row: RowMapping) -> Artifact:
    names = Artifact.__dataclass_fields__
    return Artifact(**{name: row[name] for name in names})


def _close(
    connection: Connection,
    where: Any,
    outcome: str,
    failure_class: str | None = None,
    cause: str | None = None,
    evidence: Mapping[str, object] | None = None,
) -> int:
    seconds = func.extract("epoch", func.clock_timestamp() - pipeline_history.c.started_at)
    change = update(pipeline_history).where(where)
    values = {
        "outcome": outcome,
        "class": failure_class,
        "cause": cause,
        "evidence": dict(evidence or {}),
        "ended_at": func.clock_timestamp(),
        "seconds": seconds,
    }
    return connection.execute(change.values(**values)).rowcount
