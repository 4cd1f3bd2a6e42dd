"""Tables in memory: what an asset returns and gets, as pandas data frames with the declared columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moments_core.errors import CheckError, TransientError
from moments_resources.asset_tables import BY_ASSET, MEDIA_COLUMNS, AssetTable

if TYPE_CHECKING:
    from pandas import DataFrame, Series

FILE = "file"
_VERSION, _INPUTS = "version", "inputs"


def with_lineage(frame: DataFrame, version: int, inputs: Mapping[str, int]) -> DataFrame:
    """Say which version a loaded table is, and which versions it was made from."""
    frame.attrs.update({_VERSION: version, _INPUTS: dict(inputs)})
    return frame


def version_read(frame: DataFrame) -> int:
    """Which version a loaded table is; noted as lineage."""
    version: int = frame.attrs[_VERSION]
    return version


def check_lineage(tables: Mapping[str, DataFrame]) -> None:
    """Loaded tables that were made from each other fit together. Raises TransientError where one is out of date."""
    for asset, frame in tables.items():
        for other, version in frame.attrs[_INPUTS].items():
            if other in tables and version_read(tables[other]) != version:
                raise TransientError(
                    f"{asset} was made from version {version} of {other}, which is at {version_read(tables[other])}: "
                    f"materialize {asset} first."
                )


def new_table(asset: str, rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """What an asset returns: its rows, with `file` in place of a media table's key, size and hash.

    A column that a row leaves out is empty. Raises CheckError for one that the table does not have.
    """
    import pandas as pd

    table = BY_ASSET[asset]
    names = table.column_names
    if table.holds_media:
        names = [name for name in names if name not in MEDIA_COLUMNS] + [FILE]
    unknown = {name for row in rows for name in row} - set(names)
    if unknown:  # pandas would drop them without a word
        raise _defect(table, unknown=sorted(unknown))
    return pd.DataFrame([dict(row) for row in rows], columns=names, dtype=object)


def first_row(frame: DataFrame) -> dict[str, Any]:
    """The only row of a table that has one row a video."""
    return {str(name): value for name, value in frame.iloc[0].items()}


def frame_of(rows: Sequence[Mapping[str, Any]], table: AssetTable) -> DataFrame:
    """Rows as a table with the declared columns, also where there are none. Values stay what they are in Python."""
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows], columns=table.column_names, dtype=object)


def rows_of(frame: DataFrame, table: AssetTable) -> list[dict[str, Any]]:
    """A table as rows for the database. Raises CheckError unless it has the declared columns and their values."""
    from moments_resources.storable import storable

    declared, given = set(table.column_names), set(frame.columns)
    if given != declared:
        raise _defect(table, missing=sorted(declared - given), unknown=sorted(given - declared))
    rows = [{str(name): storable(value) for name, value in row.items()} for row in frame.to_dict("records")]
    # Said here, with the column's name: a JSON column would take a None as JSON's own null.
    required = [column.name for column in table.columns if not column.nullable]
    empty = {name for row in rows for name in required if row[name] is None}
    if empty:
        raise _defect(table, empty=sorted(empty))
    return rows


def _defect(table: AssetTable, **columns: Sequence[str]) -> CheckError:
    found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in columns.items() if names)
    return CheckError(
        f"The table for {table.name} is not as declared ({found}). This is a defect; please report it.", **columns
    )


def object_column(values: Sequence[object]) -> Series[Any]:
    """A column that keeps Python's own values: pandas would turn whole numbers beside None into floats."""
    import pandas as pd

    return pd.Series(list(values), dtype=object)
