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
from moments_resources.frames import FILE, frame_of, object_column, rows_of, with_version
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


class TableIO(dg.IOManager):
    """Writes rows. Every write is one commit of the catalogue."""

    def __init__(self, catalogue: Catalogue, store: ObjectStore) -> None:
        self._catalogue = catalogue
        self._store = store

    def handle_output(self, context: dg.OutputContext, obj: Made | Reused) -> None:
        if isinstance(obj, Reused):
            context.add_output_metadata({"version": obj.artifact.version, "reused": True})
            return
        with failures_named(obj.step.request.asset):
            artifact = self._written(obj)
        counts = {"version": artifact.version, "dagster/row_count": artifact.row_count}
        context.add_output_metadata({**counts, **self.links(artifact)})

    def _written(self, made: Made) -> Artifact:
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

    def load_input(self, context: dg.InputContext) -> DataFrame:
        asset = context.asset_key.path[-1]
        with failures_named(asset):
            return self.read(context.partition_key, asset)

    def read(self, video_id: str, asset: str) -> DataFrame:
        """The current table of an asset; media tables have a column `file`. Raises PermanentError if there is none."""
        artifact = self._catalogue.current(video_id, asset)
        if artifact is None:
            raise PermanentError(f"There is no {asset} of {video_id} yet: materialize {asset} first.")
        frame = frame_of(self._catalogue.rows(artifact), BY_ASSET[asset])
        if BY_ASSET[asset].holds_media:
            frame[FILE] = object_column([self._file(row) for row in frame.to_dict("records")])
        return with_version(frame, artifact.version)

    def _file(self, row: Mapping[Any, Any]) -> StoredFile | None:
        return StoredFile(self._store, row["object_key"], row["sha256"]) if row["object_key"] else None
