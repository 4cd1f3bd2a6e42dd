"""IO manager for media: uploads each file of the table, then commits the rows that name the objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_core.errors import CheckError
from moments_resources.asset_tables import BY_ASSET, MEDIA_COLUMNS
from moments_resources.catalogue import Artifact
from moments_resources.frames import FILE, object_column, rows_of
from moments_resources.step import Step
from moments_resources.store.file import file_sha256
from moments_resources.store.interface import StoredFile, StoredObject, safe_name
from moments_resources.table_io import Made, TableIO

if TYPE_CHECKING:
    from pandas import DataFrame

_MOST_LINKS = 20  # the event log keeps them for good


class MediaIO(TableIO):
    """As TableIO; the column `file` holds a local path for each row, or None where a row has no file."""

    def write(self, made: Made) -> Artifact:
        if FILE not in made.frame:
            raise CheckError("A media asset's table needs the column `file`. This is a defect; please report it.")
        stored = [self._upload(file, made.step) for file in made.frame[FILE]]
        rows = rows_of(_with_objects(made.frame, stored), BY_ASSET[made.step.request.asset])
        return made.step.commit(rows, [item.as_json() for item in stored if item])

    def links(self, artifact: Artifact) -> dict[str, dg.MetadataValue[Any]]:
        """Where the files lie, the first few."""
        uris = [f"- `{self._store.uri(str(item['key']))}`" for item in artifact.objects[:_MOST_LINKS]]
        return {"files": dg.MetadataValue.md("\n".join(uris) or "_No file._")}

    def _upload(self, file: Path | StoredFile | None, step: Step) -> StoredObject | None:
        if file is None:
            return None
        path = Path(file)
        # The content's hash in the key: a retry meets its own object, and no object is ever overwritten.
        content = file_sha256(path)[:16]
        key = f"videos/{step.video_id}/{step.request.asset}/{content}/{safe_name(path.name)}"
        return self._store.adopt(path, key)


def _with_objects(frame: DataFrame, stored: list[StoredObject | None]) -> DataFrame:
    values: dict[str, list[Any]] = {
        "object_key": [item.key if item else None for item in stored],
        "bytes": [item.bytes if item else None for item in stored],
        "sha256": [item.sha256 if item else None for item in stored],
    }
    frame = frame.drop(columns=[FILE]).astype(object)
    for name in MEDIA_COLUMNS:
        frame[name] = object_column(values[name])
    return frame
