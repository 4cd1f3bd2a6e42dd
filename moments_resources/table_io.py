"""IO manager for tables: what an asset returns becomes rows of a committed version; loading gives them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_core.errors import CheckError, PermanentError
from moments_resources.catalogue import Artifact, Catalogue
from moments_resources.step import Step
from moments_resources.storable import storable
from moments_resources.store.interface import ObjectStore, StoredFile
from moments_resources.tables import ASSET_TABLES, IDENTITY_COLUMNS, MEDIA_COLUMNS, holds_media

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from sqlalchemy import Table

FILE = "file"


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
        try:
            artifact = self.write(obj)
        except BaseException as error:
            # The asset's generator is not resumed after a failed write: its turn would be held for ever.
            obj.step.end(error)
            raise
        context.add_output_metadata({"version": artifact.version, "dagster/row_count": artifact.row_count})

    def write(self, made: Made) -> Artifact:
        """Commit the table of a step."""
        rows = rows_of(made.frame, ASSET_TABLES[made.step.request.asset])
        return made.step.commit(rows)

    def load_input(self, context: dg.InputContext) -> DataFrame:
        return self.read(context.partition_key, context.asset_key.path[-1])

    def read(self, video_id: str, asset: str) -> DataFrame:
        """The current table of an asset; media tables have a column `file`. Raises PermanentError if there is none."""
        artifact = self._catalogue.current(video_id, asset)
        if artifact is None:
            raise PermanentError(f"There is no {asset} of {video_id} yet: materialize {asset} first.")
        frame = frame_of(self._catalogue.rows(artifact), ASSET_TABLES[asset])
        if holds_media(ASSET_TABLES[asset]):
            frame[FILE] = object_column([self._file(row) for row in frame.to_dict("records")])
        frame.attrs[_ARTIFACT] = artifact
        return frame

    def _file(self, row: Mapping[Any, Any]) -> StoredFile | None:
        return StoredFile(self._store, row["object_key"], row["sha256"]) if row["object_key"] else None


_ARTIFACT = "artifact"


def version_read(frame: DataFrame) -> int:
    """Which version a loaded table is; noted as lineage."""
    artifact: Artifact = frame.attrs[_ARTIFACT]
    return artifact.version


def new_table(asset: str, rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """What an asset returns: its rows, with `file` in place of a media table's key, size and hash.

    A column that a row leaves out is empty. Raises CheckError for one that the table does not have.
    """
    import pandas as pd

    table = ASSET_TABLES[asset]
    names = [column.name for column in table.c if column.name not in IDENTITY_COLUMNS]
    if holds_media(table):
        names = [name for name in names if name not in MEDIA_COLUMNS] + [FILE]
    unknown = {name for row in rows for name in row} - set(names)
    if unknown:  # pandas would drop them without a word
        raise _defect(table, unknown=sorted(unknown))
    return pd.DataFrame([dict(row) for row in rows], columns=names, dtype=object)


def first_row(frame: DataFrame) -> dict[str, Any]:
    """The only row of a table that has one row a video."""
    return {str(name): value for name, value in frame.iloc[0].items()}


def frame_of(rows: Sequence[Mapping[str, Any]], table: Table) -> DataFrame:
    """Rows as a table with the declared columns, also where there are none. Values stay what they are in Python."""
    import pandas as pd

    names = [column.name for column in table.c if column.name not in IDENTITY_COLUMNS]
    return pd.DataFrame([dict(row) for row in rows], columns=names, dtype=object)


def rows_of(frame: DataFrame, table: Table) -> list[dict[str, Any]]:
    """A table as rows for the database. Raises CheckError unless it has the declared columns and their values."""
    declared = {column.name: column for column in table.c if column.name not in IDENTITY_COLUMNS}
    given = set(frame.columns)
    if given != set(declared):
        raise _defect(table, missing=sorted(set(declared) - given), unknown=sorted(given - set(declared)))
    rows = [{str(name): storable(value) for name, value in row.items()} for row in frame.to_dict("records")]
    # Said here, with the column's name: a JSON column would take a None as JSON's own null.
    required = [name for name, column in declared.items() if not column.nullable]
    empty = {name for row in rows for name in required if row[name] is None}
    if empty:
        raise _defect(table, empty=sorted(empty))
    return rows


def _defect(table: Table, **columns: Sequence[str]) -> CheckError:
    found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in columns.items() if names)
    return CheckError(
        f"The table for {table.name} is not as declared ({found}). This is a defect; please report it.", **columns
    )


def object_column(values: Sequence[object]) -> Series[Any]:
    """A column that keeps Python's own values: pandas would turn whole numbers beside None into floats."""
    import pandas as pd

    return pd.Series(list(values), dtype=object)
