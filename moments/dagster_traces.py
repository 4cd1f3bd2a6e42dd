"""What Dagster keeps of one video, and how it goes.

`DagsterInstance` deletes runs and partitions. The rest (events of a partition without a run, results of asset checks,
the newest materialization beside each asset, ticks of sensors) has no call of its own: PostgreSQL's storage does not
implement `wipe_asset_partitions`. Hence Dagster's own tables, which a minor version does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dagster import AssetKey, DagsterInstance
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs.schema import BackfillTagsTable, BulkActionsTable
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._serdes import serialize_value
from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, update

from moments.cancel import runs_of
from moments_assets.partitions import videos

if TYPE_CHECKING:
    from dagster import DagsterRun

_OPEN_BACKFILL = ("REQUESTED", "CANCELING", "FAILING")


class DagsterTraces:
    """Runs, events, checks, ticks and the partition of one video."""

    def __init__(self, instance: DagsterInstance, video_id: str) -> None:
        self._instance = instance
        self._video_id = video_id

    def remove(self) -> int:
        """Remove all of it; says how many runs there were. The partition goes last: until then the UI shows it."""
        runs = self._runs()
        for run in runs:
            self._remove_run(run)
        with self._events() as connection:
            self._remove_events(connection)
        for key in self._assets_shown_by_it():
            self._show_another(key)
        self._remove_ticks()
        self._remove_backfills()
        self._instance.delete_dynamic_partition(str(videos.name), self._video_id)
        return len(runs)

    def left(self) -> dict[str, int]:
        """How much there is, by kind."""
        known = self._instance.get_dynamic_partitions(str(videos.name))
        with self._events() as connection:
            events = _count(connection, SqlEventLogStorageTable, self._in_event_log)
            checks = _count(connection, AssetCheckExecutionsTable, self._in_checks)
        return {
            "runs": len(self._runs()),
            "events": events,
            "asset checks": checks,
            "newest materializations": len(self._assets_shown_by_it()),
            "partition": int(self._video_id in known),
        }

    def _runs(self) -> list[DagsterRun]:
        return runs_of(self._instance, self._video_id)

    def _remove_run(self, run: DagsterRun) -> None:
        """The run itself last: by it the rest is found when this breaks off."""
        self._instance.compute_log_manager.delete_logs(prefix=[run.run_id])
        with self._events() as connection:
            of_run = AssetCheckExecutionsTable.c.run_id == run.run_id
            connection.execute(delete(AssetCheckExecutionsTable).where(of_run))
        self._instance.event_log_storage.delete_events(run.run_id)
        self._instance.delete_run(run.run_id)

    def _remove_events(self, connection: Connection) -> None:
        theirs = select(SqlEventLogStorageTable.c.id).where(self._in_event_log)
        connection.execute(delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(theirs)))
        connection.execute(delete(SqlEventLogStorageTable).where(self._in_event_log))
        connection.execute(delete(AssetCheckExecutionsTable).where(self._in_checks))

    def _assets_shown_by_it(self) -> list[AssetKey]:
        """Assets whose newest materialization, which Dagster keeps beside the asset, is of this video."""
        query = select(AssetKeyTable.c.asset_key).where(self._named_in(AssetKeyTable.c.last_materialization))
        with self._events() as connection:
            keys = [AssetKey.from_db_string(key) for key in connection.scalars(query)]
        return [key for key in keys if key is not None]

    def _show_another(self, key: AssetKey) -> None:
        """Put the newest materialization of another video in its place; unless a newer one has come meanwhile."""
        found = self._instance.fetch_materializations(key, limit=1).records
        shown = serialize_value(found[0]) if found else None
        still = (AssetKeyTable.c.asset_key == key.to_string()) & self._named_in(AssetKeyTable.c.last_materialization)
        with self._events() as connection:
            connection.execute(update(AssetKeyTable).where(still).values(last_materialization=shown))
        self._instance.wipe_asset_cached_status([key])

    def _remove_ticks(self) -> None:
        """A tick of a sensor holds the run config of each run that it asked for."""
        storage: Any = self._instance.schedule_storage
        if storage is not None:
            with storage.connect() as connection:
                connection.execute(delete(JobTickTable).where(self._named_in(JobTickTable.c.tick_body)))

    def _remove_backfills(self) -> None:
        """Backfills that named the video among others; one that is open still stays, with its other videos."""
        storage: Any = self._instance.run_storage
        ended = self._named_in(BulkActionsTable.c.body) & BulkActionsTable.c.status.not_in(_OPEN_BACKFILL)
        with storage.connect() as connection:
            keys = list(connection.scalars(select(BulkActionsTable.c.key).where(ended)))
            connection.execute(delete(BackfillTagsTable).where(BackfillTagsTable.c.backfill_id.in_(keys)))
            connection.execute(delete(BulkActionsTable).where(BulkActionsTable.c.key.in_(keys)))

    @contextmanager
    def _events(self) -> Iterator[Connection]:
        storage: Any = self._instance.event_log_storage
        with storage.index_connection() as connection:
            yield connection

    @cached_property
    def _in_event_log(self) -> ColumnElement[bool]:
        """Also what was reported without a run: a check's result does not stand in the column of partitions."""
        table = SqlEventLogStorageTable.c
        return or_(
            table.partition == self._video_id,
            (table.run_id == RUNLESS_RUN_ID) & self._named_in(table.event),
        )

    @cached_property
    def _in_checks(self) -> ColumnElement[bool]:
        return AssetCheckExecutionsTable.c.partition == self._video_id

    def _named_in(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether JSON holds the video's name, in itself or in JSON that it holds as a string."""
        names: Iterable[str] = (f'"{self._video_id}"', f'"{self._video_id}\\"')
        return or_(*(column.contains(name, autoescape=True) for name in names))


def _count(connection: Connection, table: Table, where: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(where)) or 0
