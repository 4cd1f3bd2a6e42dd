"""Alembic's entry: runs on the connection that `Database.migrate` gives it, inside that transaction."""

from __future__ import annotations

from alembic import context

from moments_resources.tables import VERSIONS, metadata


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return name in {None, "public", VERSIONS} if kind == "schema" else True


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    include_name=_ours,
    version_table_schema="public",
)
with context.begin_transaction():
    context.run_migrations()
