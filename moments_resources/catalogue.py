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

from sqlalchemy import Column, Connection, RowMapping, Table, and_, exists, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from moments_core.errors import FailureClass, FenceError, MomentsError, TransientError, classify, reason
from moments_resources.database import Database
from moments_resources.storable import storable, storable_text
from moments_resources.tables import ASSET_TABLES, artifacts, generation_configs, pipeline_history

_LONGEST_CAUSE = 2000  # characters; an unforeseen error may carry a whole reply

DIED = "The process that did this work was killed, or its machine went down: run it again, nothing is lost."


def canonical_sha256(value: object) -> str:
    """SHA-256 of `value` as JSON with sorted keys: equal values, equal hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one asset of one video. It may commit while it is open; a newer one closes it."""

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
    def content(self) -> dict[str, object]:
        """What `sha256` is made from."""
        return {**self.config, "code_version": self.code_version}

    @property
    def sha256(self) -> str:
        return canonical_sha256(self.content)


@dataclass(frozen=True, slots=True)
class Draft:
    """A result that is ready to be committed. `rows` hold the table's columns without video_id and version."""

    attempt: Attempt
    recipe: Recipe
    inputs: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    measures: Mapping[str, object] = field(default_factory=dict)
    previews: Mapping[str, str] = field(default_factory=dict)
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
    measures: Mapping[str, Any]
    previews: Mapping[str, str]
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
            return _new_attempt(connection, video_id, asset, run_id=run_id, intake_id=intake_id)

    def current(self, video_id: str, asset: str) -> Artifact | None:
        """The newest committed version, or None."""
        with self.database.begin() as connection:
            row = connection.execute(_current(video_id, asset)).mappings().first()
        return None if row is None else _artifact(row)

    def rows(self, artifact: Artifact) -> list[dict[str, Any]]:
        """The rows of one version, in time order, without video_id and version."""
        table = ASSET_TABLES[artifact.asset]
        query = (
            select(*(column for column in table.c if column.name not in {"video_id", "version"}))
            .where(table.c.video_id == artifact.video_id, table.c.version == artifact.version)
            .order_by(*_reading_order(table))
        )
        with self.database.begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def commit(self, draft: Draft) -> Artifact:
        """Make the draft the current version, in one transaction.

        Raises FenceError when the attempt may not, and TransientError when an input was made anew meanwhile: the
        current versions of a video always fit together.
        """
        attempt = draft.attempt
        with self.database.begin() as connection:
            _check_fence(connection, attempt)
            _check_inputs(connection, draft)
            version = _supersede(connection, attempt)
            _note_config(connection, draft)
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
        outcome = "retrying" if will_retry else _ended_as(error)
        open_one = and_(pipeline_history.c.attempt_id == attempt.attempt_id, pipeline_history.c.outcome == "running")
        evidence = evidence_of(error)
        with self.database.begin() as connection:
            _close(connection, open_one, outcome, failure_class.value, reason(error), evidence)

    def close_run(self, run_id: str, error: MomentsError) -> int:
        """Close what a run that is over left open; says how many attempts that were.

        An attempt that was to be tried again is open where it was not.
        """
        open_one, newer = pipeline_history.c, pipeline_history.alias("newer").c
        same = (newer.video_id == open_one.video_id) & (newer.asset == open_one.asset)
        is_tried_again = exists().where(same, newer.attempt_id > open_one.attempt_id)
        is_open = or_(open_one.outcome == "running", and_(open_one.outcome == "retrying", ~is_tried_again))
        left = and_(open_one.run_id == run_id, is_open)
        with self.database.begin() as connection:
            return _close(connection, left, _ended_as(error), classify(error).value, str(error), {})

    def note_failure(
        self, video_id: str, asset: str, *, run_id: str, intake_id: int | None, error: MomentsError
    ) -> None:
        """Keep a failure that no attempt of this run has recorded; does nothing where one has.

        Needs no turn: whoever is at work on the same asset of the same video stays so.
        """
        recorded = select(pipeline_history.c.attempt_id).where(
            pipeline_history.c.video_id == video_id,
            pipeline_history.c.asset == asset,
            pipeline_history.c.run_id == run_id,
        )
        with self.database.begin() as connection:
            if connection.execute(recorded.limit(1)).first() is None:
                row = _new_attempt(connection, video_id, asset, run_id=run_id, intake_id=intake_id)
                mine = pipeline_history.c.attempt_id == row.attempt_id
                _close(connection, mine, _ended_as(error), classify(error).value, str(error))

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


def _ended_as(error: BaseException) -> str:
    return "cancelled" if classify(error) is FailureClass.CANCELLED else "failed"


def _short(value: object) -> object:
    plain = storable(value) if isinstance(value, (int, float)) else value
    return plain if isinstance(plain, (int, float)) or plain is None else storable_text(str(plain))[:4000]


def _new_attempt(connection: Connection, video_id: str, asset: str, *, run_id: str, intake_id: int | None) -> Attempt:
    # `note_failure` comes without a turn: two at once must not take the same number.
    one_by_one = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(one_by_one, {"name": f"attempt:{video_id}:{asset}"})
    here = (pipeline_history.c.video_id == video_id) & (pipeline_history.c.asset == asset)
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
    attempt_id = connection.execute(row.returning(pipeline_history.c.attempt_id)).scalar_one()
    return Attempt(attempt_id, video_id, asset, last + 1, run_id)


def _check_fence(connection: Connection, attempt: Attempt) -> None:
    # Locked, so that a newer attempt, which closes this one, waits for the end of this transaction.
    query = select(pipeline_history.c.outcome).where(pipeline_history.c.attempt_id == attempt.attempt_id)
    outcome = connection.scalar(query.with_for_update())
    if outcome != "running":
        raise FenceError(
            f"Attempt {attempt.number} at {attempt.asset} was ended or overtaken, so its result is not kept.",
            attempt=attempt.number,
            video_id=attempt.video_id,
        )


def _check_inputs(connection: Connection, draft: Draft) -> None:
    # Shared locks: whoever commits one of the inputs waits for the end of this transaction.
    query = select(artifacts.c.asset, artifacts.c.version).where(
        artifacts.c.video_id == draft.attempt.video_id,
        artifacts.c.asset.in_(draft.inputs),
        artifacts.c.superseded_at.is_(None),
    )
    current = {row.asset: row.version for row in connection.execute(query.with_for_update(read=True))}
    changed = sorted(asset for asset, version in draft.inputs.items() if current.get(asset) != version)
    if changed:
        raise TransientError(
            f"The result was not kept: {', '.join(changed)} changed while {draft.attempt.asset} was made from it. "
            "Run this again.",
            changed=changed,
        )


def _supersede(connection: Connection, attempt: Attempt) -> int:
    here = (artifacts.c.video_id == attempt.video_id) & (artifacts.c.asset == attempt.asset)
    last = connection.scalar(select(func.max(artifacts.c.version)).where(here)) or 0
    connection.execute(
        update(artifacts).where(here, artifacts.c.superseded_at.is_(None)).values(superseded_at=func.now())
    )
    return last + 1


def _note_config(connection: Connection, draft: Draft) -> None:
    if "generation_config" in ASSET_TABLES[draft.attempt.asset].c:
        row = insert_or(generation_configs).values(sha256=draft.recipe.sha256, config=draft.recipe.content)
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
        "config": draft.recipe.content,
        "inputs": dict(draft.inputs),
        "objects": [dict(item) for item in draft.objects],
        "row_count": len(draft.rows),
        "measures": storable(dict(draft.measures)),
        "previews": storable(dict(draft.previews)),
        "seconds": draft.seconds,
    }


def _reading_order(table: Table) -> list[Column[Any]]:
    times = [table.c[name] for name in ("ordinal", "start_ms", "time_ms") if name in table.c]
    return [*times, *table.primary_key]


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
        "cause": None if cause is None else storable_text(cause)[:_LONGEST_CAUSE],
        "evidence": dict(evidence or {}),
        "ended_at": func.clock_timestamp(),
        "seconds": seconds,
    }
    return connection.execute(change.values(**values)).rowcount
