"""IO manager for tables: what an asset returns becomes rows of a committed version; loading gives them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_core.errors import PermanentError
from moments_resources.asset_tables import BY_ASSET
from moments_resources.catalogue import Artifact, Catalogue
from moments_resources.failures import failures_named
from moments_resources.frames import FILE, frame_of, object_column, rows_of, with_lineage
from moments_resources.step import Step
from moments_resources.store.interface import ObjectStore, StoredFile

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Made:
    """What an asset hands over: its table, and the step in which it was made."""

    frame: DataFrame
    step: Step


@dataclass(frozen=True)
class Reused:
    """The current version stands; nothing is written."""

    artifact: Artifact


@dataclass(frozen=True)
class Unread:
    """An input that is read when its step has its turn: read by Dagster before, it could be out of date by then."""

    io: TableIO
    video_id: str
    asset: str

    def read(self) -> DataFrame:
        return self.io.read(self.video_id, self.asset)


class TableIO(dg.IOManager):
    """Writes rows. Every write is one commit of the catalogue."""

    def __init__(self, catalogue: Catalogue, store: ObjectStore) -> None:
        self._catalogue = catalogue
        self._store = store

    def handle_output(self, context: dg.OutputContext, obj: Made | Reused) -> None:
        artifact = obj.artifact if isinstance(obj, Reused) else self._written(obj)
        # From the catalogue, so that a result that is kept shows what it showed when it was made.
        previews = {name: dg.MetadataValue.md(text) for name, text in artifact.previews.items()}
        facts = {
            "version": artifact.version,
            "dagster/row_count": artifact.row_count,
            "seconds": round(artifact.seconds, 3),
            "reused": isinstance(obj, Reused),
        }
        context.add_output_metadata({**artifact.measures, **previews, **self.links(artifact), **facts})

    def _written(self, made: Made) -> Artifact:
        with failures_named(made.step.request.asset):
            try:
                return self.write(made)
            except BaseException as error:
                # The asset's generator is not resumed after a failed write: its turn would be held for ever.
                made.step.end(error)
                raise

    def write(self, made: Made) -> Artifact:
        """Commit the table of a step."""
        rows = rows_of(made.frame, BY_ASSET[made.step.request.asset])
        return made.step.commit(rows)

    def links(self, _artifact: Artifact) -> dict[str, dg.MetadataValue[Any]]:
        """Where to find more, for the UI."""
        return {}

    def load_input(self, context: dg.InputContext) -> Unread:
        return Unread(self, context.partition_key, context.asset_key.path[-1])

    def read(self, video_id: str, asset: str) -> DataFrame:
        """The current table of an asset; media tables have a column `file`. Raises PermanentError if there is none."""
        artifact = self._catalogue.current(video_id, asset)
        if artifact is None:
            raise PermanentError(f"There is no {asset} of {video_id} yet: materialize {asset} first.")
        frame = frame_of(self._catalogue.rows(artifact), BY_ASSET[asset])
        if BY_ASSET[asset].holds_media:
            frame[FILE] = object_column([self._file(row) for row in frame.to_dict("records")])
        return with_lineage(frame, artifact.version, artifact.inputs)

    def _file(self, row: Mapping[Any, Any]) -> StoredFile | None:
        return StoredFile(self._store, row["object_key"], row["sha256"]) if row["object_key"] else None
