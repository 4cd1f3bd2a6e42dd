"""`moments delete`: everything of one video goes, and it does not come back by accident.

Each step can be repeated, and none needs what an earlier one has removed, so that a removal that broke off anywhere is
finished by the next one. The tombstone comes first: from then on nothing of the video begins. It is verified last,
by looking everything up again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from moments.cancel import Teller, asked_by, see_out, shut_down
from moments.dagster_traces import DagsterTraces
from moments.services import Lakehouse, prepare_dagster
from moments_core.errors import ServiceError
from moments_resources import gate, tombstones, uploads
from moments_resources.intake import UPLOAD, upload_prefix
from moments_resources.store.locks import remove_abandoned
from moments_resources.tables import ASSET_TABLES, metadata, transcript_segments

if TYPE_CHECKING:
    from dagster import DagsterInstance

_BY = "moments delete"


def take_down(lakehouse: Lakehouse, video_id: str, *, tell: Teller = lambda _: None) -> dict[str, Any]:
    """Remove the video's objects, rows, runs and partition; says how much that was.

    Raises TransientError where a process did not stop in time, and ServiceError where something is left: then it is
    to be repeated.
    """
    from dagster import DagsterInstance

    prepare_dagster(lakehouse.settings)
    # One at a time: of two, the first to end would call the other's rows left over.
    with lakehouse.database.lock(f"takedown:{video_id}"), DagsterInstance.get() as instance:
        _stop(lakehouse, instance, video_id, tell)
        traces, removal = DagsterTraces(instance, video_id), _Removal(lakehouse, video_id)
        sizes = removal.sizes()
        with lakehouse.database.begin() as connection:
            rows = removal.results(connection)
        # After the results: an object without a row is garbage, a row without its object would be a lie.
        objects, size = removal.objects(sizes)
        runs = traces.remove()
        removal.logs()
        with lakehouse.database.begin() as connection:
            rows += removal.submissions(connection)
        removal.what_nothing_refers_to()
        _verify(lakehouse, removal, traces, video_id)
    return {"video_id": video_id, "objects": objects, "bytes": size, "rows": rows, "runs": runs}


def _stop(lakehouse: Lakehouse, instance: DagsterInstance, video_id: str, tell: Teller) -> None:
    by = asked_by(_BY)
    with lakehouse.database.begin() as connection:
        stopped = shut_down(connection, lakehouse, instance, video_id, by=by)
        tombstones.lay(connection, video_id, by=by)
    see_out(lakehouse, instance, video_id, stopped, tell=tell)


def _verify(lakehouse: Lakehouse, removal: _Removal, traces: DagsterTraces, video_id: str) -> None:
    """Look everything up again; only if nothing is left, the tombstone says so."""
    left = {**removal.left(), **traces.left()}
    found = [f"{count} {what}" for what, count in left.items() if count]
    if found:
        raise ServiceError(
            f"Of {video_id} there is something left ({', '.join(found)}): repeat `moments delete {video_id} --yes`."
        )
    with lakehouse.database.begin() as connection:
        gate.shut(connection, video_id)
        tombstones.note_verified(connection, video_id)


class _Removal:
    """What our own tables, the store and this machine hold of one video."""

    def __init__(self, lakehouse: Lakehouse, video_id: str) -> None:
        self._lakehouse = lakehouse
        self._store = lakehouse.store
        self._video_id = video_id

    def sizes(self) -> dict[str, int]:
        """Bytes of the objects that its artifacts name, by key."""
        made = """
        select distinct item->>'key' as key, cast(item->>'bytes' as bigint) as bytes
        from public.artifacts, jsonb_array_elements(objects) item where video_id = :id"""
        with self._lakehouse.database.begin() as connection:
            return {row.key: row.bytes for row in connection.execute(text(made), {"id": self._video_id})}

    def results(self, connection: Connection) -> int:
        """Results, catalogue, replies of models, history; says how many rows that were."""
        return sum(self._delete(connection, table) for table in _RESULTS)

    def submissions(self, connection: Connection) -> int:
        """The submissions; those of a list become submissions of their own. What was noted meanwhile goes too."""
        # Who refuses one of them at this moment ends first, or finds it gone: no reason stays without its row.
        connection.execute(text(f"{_SUBMISSIONS} for update"), {"id": self._video_id})
        connection.execute(text(_UNLIST), {"id": self._video_id})
        noted = connection.execute(text(_DELETE_REFUSALS), {"id": self._video_id}).rowcount
        return noted + self.results(connection) + sum(self._delete(connection, table) for table in _LAST)

    def objects(self, sizes: dict[str, int]) -> tuple[int, int]:
        """Objects, with what this machine has of them in its cache; says how many, and how many bytes.

        Waits for an upload that is on its way: it was let in before the tombstone was laid.
        """
        with uploads.alone(self._lakehouse.database, self._video_id):
            return self._objects(sizes)

    def _objects(self, sizes: dict[str, int]) -> tuple[int, int]:
        count = size = 0
        keys = sorted({*sizes, *self._keys()})
        for key in keys:
            # Also what no row names: a step that was killed leaves the copies of clips that it showed to a model.
            bytes_ = sizes.get(key) or self._store.size(key) or 0
            if self._store.delete(key):
                count, size = count + 1, size + bytes_
        query = "delete from public.garbage where key = any(:keys) or starts_with(key, :prefix)"
        with self._lakehouse.database.begin() as connection:
            connection.execute(text(query), {"keys": keys, "prefix": self._prefix})
        return count, size

    def logs(self) -> None:
        """What its worker processes said on this machine, and the scratch folders of those that were killed."""
        with self._lakehouse.database.begin() as connection:
            numbers = connection.scalars(text(_SUBMISSIONS), {"id": self._video_id}).all()
        for log in self._logs(numbers):
            log.unlink(missing_ok=True)
        scratch = self._lakehouse.settings.state / "scratch"
        if scratch.exists():
            remove_abandoned(scratch)

    def what_nothing_refers_to(self) -> None:
        """Configs (one may hold a query) and prompts that no video needs any more.

        The lock waits for whoever is about to refer to one, and keeps others out. A prompt is noted in a transaction
        before its first call: while anybody is at work, all of them stay.
        """
        with self._lakehouse.database.begin() as connection:
            connection.execute(text("lock table public.generation_configs, public.prompts in share row exclusive mode"))
            for unused in (_UNUSED_CONFIGS, _UNUSED_PROMPTS):
                connection.execute(text(unused))

    def left(self) -> dict[str, int]:
        """How much there is, by kind."""
        with self._lakehouse.database.begin() as connection:
            left = {f"rows of {table}": self._count(connection, table) for table in _ALL_TABLES}
        return left | {"objects": len(self._keys())}

    @property
    def _prefix(self) -> str:
        return f"videos/{self._video_id}/"

    def _keys(self) -> set[str]:
        """Keys of its objects that are there: all that was made for it, and what was uploaded."""
        uploads = "select substr(url, :cut) from public.url_intake where video_id = :id and starts_with(url, :upload)"
        others = """
        select substr(url, :cut) from public.url_intake
        where starts_with(url, :upload) and substr(url, :cut) = any(:keys) and video_id <> :id"""
        asked = {"id": self._video_id, "cut": len(UPLOAD) + 1, "upload": UPLOAD}
        prefix = upload_prefix(self._video_id)
        with self._lakehouse.database.begin() as connection:
            uploaded = {*connection.scalars(text(uploads), asked), *(self._store.keys(prefix) if prefix else ())}
            shared = set(connection.scalars(text(others), asked | {"keys": list(uploaded)}))
        there = {key for key in uploaded - shared if self._store.size(key) is not None}
        return there | set(self._store.keys(self._prefix))

    def _logs(self, intake_ids: Iterable[int]) -> Iterable[Path]:
        return (self._lakehouse.settings.state / "logs" / f"intake-{number}.log" for number in intake_ids)

    def _delete(self, connection: Connection, table: str) -> int:
        statement = text(f"delete from {table} where video_id = :id")  # noqa: S608 - our own names
        return connection.execute(statement, {"id": self._video_id}).rowcount

    def _count(self, connection: Connection, table: str) -> int:
        query = text(f"select count(*) from {table} where video_id = :id")  # noqa: S608 - our own names
        return connection.scalar(query, {"id": self._video_id}) or 0


#: In this order: artifacts and calls refer to attempts.
_RESULTS = [str(table) for table in (*ASSET_TABLES.values(), transcript_segments)]
_RESULTS += ["public.artifacts", "public.model_calls", "public.pipeline_history"]

#: Until its last step a removal that broke off is known by them, and nothing that was stopped can begin.
_LAST = ["public.cancellations", "public.url_intake"]

_ALL_TABLES = [
    str(table) if table.schema else f"public.{table}"
    for table in metadata.sorted_tables
    if "video_id" in table.c and table.name != "tombstones"
]

_SUBMISSIONS = "select intake_id from public.url_intake where video_id = :id"

# Of its own a submission may bring its video back; that one of a list may not stays so.
_UNLIST = """
update public.url_intake
set listed_in = null,
    options = case when jsonb_typeof(options) = 'object' then options - 'revive' else options end
where listed_in in (select intake_id from public.url_intake where video_id = :id)"""

_DELETE_REFUSALS = """
delete from public.pipeline_history
where video_id is null and intake_id in (select intake_id from public.url_intake where video_id = :id)"""

_UNUSED_CONFIGS = """
delete from public.generation_configs c
where not exists (select from versions.moments m where m.generation_config = c.sha256)"""

_UNUSED_PROMPTS = """
delete from public.prompts p
where not exists (select from public.model_calls c where c.prompt_sha256 = p.sha256)
  and not exists (
      select from public.pipeline_history h
      where h.outcome = 'running' or h.outcome = 'retrying' and not exists (
          select from public.pipeline_history n
          where n.video_id = h.video_id and n.asset = h.asset and n.attempt_id > h.attempt_id))"""
