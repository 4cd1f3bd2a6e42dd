"""Dagster's old runs and events, which grow without bound; and what names runs of ours that are gone.

By Dagster's own tables, through its own storage: its interface can't say which run holds the newest materialization of
a partition, and a run that is deleted can't be the cursor of the next page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    DynamicPartitionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable
from sqlalchemy import and_, delete, exists, func, or_, select, text

from moments_resources.database import Database
from moments_resources.retention.part import Cleaned, Retention

_RUNS, _EVENTS, _CANCELLATIONS = 100, 1000, 100  # a page
_ENDED = [DagsterRunStatus.SUCCESS.value, DagsterRunStatus.FAILURE.value, DagsterRunStatus.CANCELED.value]
_MADE = DagsterEventType.ASSET_MATERIALIZATION.value
_OF_ASSETS = [_MADE, DagsterEventType.ASSET_OBSERVATION.value]


class OldRuns:
    """Runs that ended long ago, with their events, checks and output.

    A run that holds the newest materialization of a partition which still exists stays: without that event the UI
    would take the asset for missing.
    """

    name = "runs"
    share = 1 / 12

    def __init__(self, instance: DagsterInstance, keep: timedelta) -> None:
        self._instance = instance
        self._runs = cast("SqlRunStorage", instance.run_storage)
        self._events = cast("SqlEventLogStorage", instance.event_log_storage)
        self._keep = keep

    def candidates(self) -> Iterator[list[str]]:
        """Ids of runs."""
        before = datetime.now(UTC) - self._keep
        ended = func.coalesce(RunsTable.c.end_time < before.timestamp(), RunsTable.c.update_timestamp < _naive(before))
        query = select(RunsTable.c.id, RunsTable.c.run_id).where(RunsTable.c.status.in_(_ENDED), ended)
        after = 0
        while True:
            page = query.where(RunsTable.c.id > after).order_by(RunsTable.c.id).limit(_RUNS)
            with self._runs.connect() as connection:
                found = connection.execute(page).all()
            if not found:
                return
            yield [run_id for _, run_id in found]
            after = found[-1][0]

    def weigh(self, piece: list[str]) -> Cleaned:
        may_go = sorted(set(piece) - self._holding(piece))
        return Cleaned(runs=len(may_go), events=self._count_events(may_go))

    def remove(self, piece: list[str]) -> Cleaned:
        weighed = self.weigh(piece)
        for run_id in sorted(set(piece) - self._holding(piece)):
            self._delete(run_id)
        return weighed

    def _delete(self, run_id: str) -> None:
        """The run itself goes last: as long as it is there, a removal that broke off is found and repeated."""
        self._instance.compute_log_manager.delete_logs(prefix=[run_id])
        with self._events.index_transaction() as connection:
            connection.execute(
                delete(AssetCheckExecutionsTable).where(AssetCheckExecutionsTable.c.run_id == run_id),
            )
        self._events.delete_events(run_id)
        self._instance.delete_run(run_id)

    def _holding(self, run_ids: Sequence[str]) -> set[str]:
        """The runs that hold the newest materialization of something that still exists."""
        event, newer, partition = (
            SqlEventLogStorageTable.c,
            SqlEventLogStorageTable.alias("n").c,
            DynamicPartitionsTable.c,
        )
        same = and_(newer.asset_key == event.asset_key, newer.partition == event.partition)
        is_newest = ~exists().where(same, newer.dagster_event_type == _MADE, newer.id > event.id)
        query = select(event.run_id).where(
            event.run_id.in_(run_ids),
            event.dagster_event_type == _MADE,
            or_(event.partition.is_(None), and_(exists().where(partition.partition == event.partition), is_newest)),
        )
        with self._events.index_connection() as connection:
            return set(connection.scalars(query.distinct()))

    def _count_events(self, run_ids: Sequence[str]) -> int:
        query = select(func.count()).where(SqlEventLogStorageTable.c.run_id.in_(run_ids))
        with self._events.index_connection() as connection:
            return connection.scalar(query) or 0


class OldEvents:
    """Old events that belong to no run: of sensors, and of checks and materializations that were only reported.

    The newest of its kind stays, for it is what the UI shows.
    """

    name = "events without a run"
    share = 1 / 24

    def __init__(self, instance: DagsterInstance, keep: timedelta) -> None:
        self._events = cast("SqlEventLogStorage", instance.event_log_storage)
        self._keep = keep

    def candidates(self) -> Iterator[list[int]]:
        """Numbers of events."""
        event = SqlEventLogStorageTable.c
        before = _naive(datetime.now(UTC) - self._keep)
        query = select(event.id).where(
            event.run_id == RUNLESS_RUN_ID, event.timestamp < before, ~_is_newest_of_asset(), ~_is_newest_of_check()
        )
        after = 0
        while True:
            with self._events.index_connection() as connection:
                page = query.where(event.id > after).order_by(event.id).limit(_EVENTS)
                found = list(connection.scalars(page))
            if not found:
                return
            yield found
            after = found[-1]

    def weigh(self, piece: list[int]) -> Cleaned:
        return Cleaned(events=len(piece))

    def remove(self, piece: list[int]) -> Cleaned:
        check, tag, event = AssetCheckExecutionsTable.c, AssetEventTagsTable.c, SqlEventLogStorageTable.c
        with self._events.index_transaction() as connection:
            of_checks = check.evaluation_event_storage_id.in_(piece)
            connection.execute(delete(AssetCheckExecutionsTable).where(check.run_id == RUNLESS_RUN_ID, of_checks))
            connection.execute(delete(AssetEventTagsTable).where(tag.event_id.in_(piece)))
            connection.execute(delete(SqlEventLogStorageTable).where(event.id.in_(piece)))
        return self.weigh(piece)


def _is_newest_of_asset() -> Any:
    event, newer = SqlEventLogStorageTable.c, SqlEventLogStorageTable.alias("newer").c
    later = exists().where(
        newer.asset_key == event.asset_key,
        newer.dagster_event_type == event.dagster_event_type,
        newer.partition.is_not_distinct_from(event.partition),
        newer.id > event.id,
    )
    return and_(func.coalesce(event.dagster_event_type, "").in_(_OF_ASSETS), ~later)


def _is_newest_of_check() -> Any:
    event, check = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    newer = AssetCheckExecutionsTable.alias("newer_check").c
    later = exists().where(
        newer.asset_key == check.asset_key,
        newer.check_name == check.check_name,
        newer.partition.is_not_distinct_from(check.partition),
        newer.id > check.id,
    )
    return exists().where(check.evaluation_event_storage_id == event.id, ~later)


class OldCancellations:
    """Cancellations that nothing can run into any more: their runs are gone, their submissions have ended."""

    name = "cancellations"
    share = 1 / 48

    def __init__(self, retention: Retention, instance: DagsterInstance) -> None:
        self._database: Database = retention.database
        self._keep = retention.limits.runs
        self._instance = instance

    def candidates(self) -> Iterator[list[tuple[int, list[str]]]]:
        """Numbers, with the runs that each names."""
        query = text("""
            select c.cancellation_id, c.run_ids from public.cancellations c
            where c.cancellation_id > :after and c.cancelled_at < now() - :keep and not exists (
                select from public.intake_state s
                where s.intake_id = any(c.intake_ids) and s.state in ('waiting', 'running'))
            order by c.cancellation_id limit :page""")
        after = 0
        while True:
            with self._database.begin() as connection:
                page = {"after": after, "keep": self._keep, "page": _CANCELLATIONS}
                found = [(number, list(runs)) for number, runs in connection.execute(query, page)]
            if not found:
                return
            yield found
            after = found[-1][0]

    def weigh(self, piece: list[tuple[int, list[str]]]) -> Cleaned:
        return Cleaned(cancellations=len(self._past(piece)))

    def remove(self, piece: list[tuple[int, list[str]]]) -> Cleaned:
        with self._database.begin() as connection:
            gone = text("delete from public.cancellations where cancellation_id = any(:ids)")
            return Cleaned(cancellations=connection.execute(gone, {"ids": self._past(piece)}).rowcount)

    def _past(self, piece: list[tuple[int, list[str]]]) -> list[int]:
        named = sorted({run_id for _, runs in piece for run_id in runs})
        there = {run.run_id for run in self._instance.get_runs(RunsFilter(run_ids=named))} if named else set[str]()
        return [number for number, runs in piece if not there.intersection(runs)]


def _naive(time: datetime) -> datetime:
    """As Dagster's tables have it: UTC, without saying so."""
    return time.astimezone(UTC).replace(tzinfo=None)
