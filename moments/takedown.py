"""`moments delete`: everything of one video goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from moments.services import Lakehouse, prepare_dagster
from moments_resources.intake import UPLOAD
from moments_resources.store.interface import ObjectStore
from moments_resources.tables import ASSET_TABLES, transcript_segments


def take_down(lakehouse: Lakehouse, video_id: str) -> dict[str, Any]:
    """Remove the video's objects, rows and partition; says how much that was.

    Can be repeated: the submissions go last, so a video whose removal broke off is still known.
    """
    with lakehouse.database.begin() as connection:
        named = _keys(connection, video_id)
        rows = _delete_rows(connection, video_id, _RESULTS)
    # After the results: an object without a row is garbage, a row without its object would be a lie.
    objects = _delete_objects(lakehouse.store, video_id, named)
    _delete_partition(lakehouse, video_id)
    with lakehouse.database.begin() as connection:
        rows += _delete_rows(connection, video_id, ["public.url_intake"])
    return {"video_id": video_id, "objects": objects, "rows": rows}


def _keys(connection: Connection, video_id: str) -> list[str]:
    made = "select item->>'key' from public.artifacts, jsonb_array_elements(objects) item where video_id = :id"
    uploaded = "select substr(url, :cut) from public.url_intake where video_id = :id and url like :upload"
    parameters = {"id": video_id, "cut": len(UPLOAD) + 1, "upload": f"{UPLOAD}%"}
    return list(connection.scalars(text(f"{made} union {uploaded}"), parameters))


def _delete_objects(store: ObjectStore, video_id: str, named: Sequence[str]) -> int:
    # Also what no row names: a step that was killed leaves the copies of clips that it showed to a model.
    keys = {*named, *store.keys(f"videos/{video_id}/")}
    return sum(store.delete(key) for key in sorted(keys))


_RESULTS = [str(table) for table in (*ASSET_TABLES.values(), transcript_segments)]
_RESULTS += ["public.artifacts", "public.model_calls", "public.pipeline_history"]


def _delete_rows(connection: Connection, video_id: str, tables: Sequence[str]) -> int:
    statements = [text(f"delete from {table} where video_id = :id") for table in tables]  # noqa: S608 - our own names
    return sum(connection.execute(statement, {"id": video_id}).rowcount for statement in statements)


def _delete_partition(lakehouse: Lakehouse, video_id: str) -> None:
    from dagster import DagsterInstance

    from moments_assets.partitions import videos

    prepare_dagster(lakehouse.settings)
    with DagsterInstance.get() as instance:
        instance.delete_dynamic_partition(str(videos.name), video_id)
