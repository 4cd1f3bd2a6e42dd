"""Writes docs/tables.md from the tables' own declarations: `python -m moments.data_dictionary > docs/tables.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sqlalchemy import Table, make_url

from moments_resources.tables import ASSET_TABLES, metadata, transcript_segments
from moments_resources.views import SECONDS

_POSTGRESQL = make_url("postgresql+psycopg2://").get_dialect()()

_HEAD = """# Tables

Made from the code by `python -m moments.data_dictionary > docs/tables.md`: change the tables, not this page.

`moments sql "…"` reads all of this; so does any PostgreSQL client where `MOMENTS_DATABASE_URL` names the server. Times
come twice in the views: in whole milliseconds (`start_ms`) and in seconds (`start_time`). Spans are half-open: the end
is the first millisecond that no longer belongs to them.

## Where to look

- **Views** named after what they hold (`videos`, `moments`, `clips`, …) show the current version. Read these.
- **Base tables** in schema `versions` hold every version that was ever committed, so that two models can be compared
  on one video. `artifacts` says which version is current, what it was made from and with which configuration.
- `intake_state` shows one row a submission with its state, `failures` what failed and why, `latest_attempts` the newest
  attempt at each asset.

| asset | view | one row is |
|---|---|---|
"""


def document() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    assets = {table.name: asset for asset, table in ASSET_TABLES.items()} | {transcript_segments.name: "transcript"}
    yield _HEAD.rstrip()
    for name, asset in assets.items():
        yield f"| `{asset}` | `{name}` | {_escaped(_base(name).comment)} |"
    yield "\n## Versioned tables and their views"
    for name in assets:
        yield from _table(_base(name))
    yield "\n## Other tables"
    for table in metadata.sorted_tables:
        if table.schema is None:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"\n### {table.name}\n\n{_escaped(table.comment)}\n\n| column | type | meaning |\n|---|---|---|"
    for column in table.c:
        null = "" if column.nullable else ", required"
        also = SECONDS.get(column.name) if table.schema else None
        meaning = _escaped(column.comment) + (f" In the view also `{also}`, in seconds." if also else "")
        kind = column.type.compile(dialect=_POSTGRESQL).lower()
        yield f"| `{column.name}` | {kind}{null} | {meaning} |"


def _base(name: str) -> Table:
    return metadata.tables[f"versions.{name}"]


def _escaped(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
