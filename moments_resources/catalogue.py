"""The artifact catalogue: the truth about which results exist, and the only place that commits one.

A commit is one transaction: the fence is checked, the rows are inserted under a new version, the former version is
superseded, the artifact row and the attempt's end are written. Readers go through `current`, so a half-written
result is never seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, Table, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from moments_core.errors import TransientError
from moments_resources.history import Attempt, History, check_fence, close
from moments_resources.storable import storable
from moments_resources.tables import ASSET_TABLES, artifacts, generation_configs, pipeline_history


def canonical_sha256(value: object) -> str:
    """SHA-256 of `value` as JSON with sorted keys: equal values, equal hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
    """Reads and commits artifacts; `history` keeps the attempts that make them."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.database = history.database

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

        Raises FenceError or LeaseError when the attempt may not, and TransientError when an input was made anew
        meanwhile: the current versions of a video always fit together.
        """
        attempt = draft.attempt
        with self.database.begin() as connection:
            check_fence(connection, attempt)
            _check_inputs(connection, draft)
            version = _supersede(connection, attempt)
            _note_config(connection, draft)
            _insert_rows(connection, attempt, version, draft.rows)
            connection.execute(insert(artifacts).values(**_artifact_values(draft, version)))
            close(connection, pipeline_history.c.attempt_id == attempt.attempt_id, "completed")
            row = connection.execute(_current(attempt.video_id, attempt.asset)).mappings().one()
        return _artifact(row)


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
