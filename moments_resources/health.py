"""Looks at an installation: what PostgreSQL, Dagster's instance and this machine's disk say about its health.

Cheap enough for once a minute beside 50,000 finished submissions: what is open has partial indexes, and of the history
only the last day is read.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from moments_core.errors import MomentsError
from moments_core.health import Beats, Daemon, Failures, Health, PoolUse, Queue
from moments_resources.database import Database

if TYPE_CHECKING:
    from dagster import DagsterInstance

PARTS = ("SENSOR", "QUEUED_RUN_COORDINATOR", "SCHEDULER")  # of Dagster's daemon: those that videos depend on
_SILENT_S = 20.0  # as the reaper's: six beats
_FREED_S = 120.0  # Dagster gives the slots of a run back within half a minute after its end


@dataclass(frozen=True)
class HealthProbe:
    """Looks when it is asked. `daemon_lock`: the lock that the one daemon holds; `folder`: whose disk is looked at."""

    database: Database
    folder: Path
    daemon_lock: str

    def look(self, open_instance: Callable[[], DagsterInstance]) -> Health:
        """What is found now. Dagster's instance is opened only where its tables can be read: opening may start them."""
        free = _free_bytes(self.folder)
        try:
            self.database.schema_state()
            return self._looked(free, open_instance())
        except MomentsError as error:
            return Health(free, fault=str(error))
        except Exception as error:
            # Dagster lets what its own connections raise through, or wraps it after a few tries.
            if not isinstance(error, SQLAlchemyError) and not isinstance(error.__cause__, SQLAlchemyError):
                raise
            return Health(free, fault=_UNREADABLE)

    def _looked(self, free: int, instance: DagsterInstance) -> Health:
        daemon = Daemon(self.database.is_locked(self.daemon_lock), _heartbeat_ages_s(instance))
        with self.database.begin() as connection:
            made = _made(connection)
            return Health(
                free,
                daemon=daemon,
                queue=_queue(connection, instance, made),
                leases=_beats(connection, _LEASES),
                workers=_beats(connection, _WORKERS, silent=_SILENT_S),
                pools=_pools(instance),
                failures=_failures(connection, made),
            )


_UNREADABLE = (
    "Dagster's tables can't be read: look at the log of PostgreSQL, then run `moments doctor`, and `moments up` where "
    "it says so."
)


def _free_bytes(folder: Path) -> int:
    """Of the folder's disk; of the one that it will lie on where it is not made yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def _heartbeat_ages_s(instance: DagsterInstance) -> dict[str, float | None]:
    heard, now = instance.get_daemon_heartbeats(), time.time()
    return {part: round(max(0.0, now - heard[part].timestamp), 1) if part in heard else None for part in PARTS}


def _queue(connection: Connection, instance: DagsterInstance, made: Mapping[str, float]) -> Queue:
    from dagster import DagsterRunStatus, RunsFilter

    waiting, again = _row(connection, _WAITING), _row(connection, _AGAIN)
    at_work = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    queued = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED]
    return Queue(
        waiting=waiting["waiting"],
        due_again=again["due_again"],
        again_later=again["again_later"],
        runs_queued=instance.get_runs_count(RunsFilter(statuses=queued)),
        runs_at_work=instance.get_runs_count(RunsFilter(statuses=at_work)),
        oldest_waiting_s=_longest(waiting["oldest_waiting_s"], again["longest_due_s"]),
        oldest_new_s=_longest(waiting["oldest_new_s"]),
        idle_s=_longest(connection.scalar(text(_IDLE))),
        made_s=min(made.values(), default=None),
    )


def _made(connection: Connection) -> dict[str, float]:
    """Seconds since each asset was made last."""
    return {row.asset: round(float(row.made_s), 1) for row in connection.execute(text(_MADE))}


def _longest(*seconds: float | None) -> float | None:
    return max((round(float(value), 1) for value in seconds if value is not None), default=None)


def _beats(connection: Connection, query: str, **parameters: float) -> Beats:
    row = _row(connection, query, **parameters)
    return Beats(row["live"], row["over"], round(float(row["longest_over_s"]), 1))


def _pools(instance: DagsterInstance) -> dict[str, PoolUse]:
    log = instance.event_log_storage
    if not log.supports_global_concurrency_limits:
        return {}
    infos = log.get_concurrency_infos([limit.name for limit in log.get_pool_limits()])
    over = _runs_over(instance, {slot.run_id for info in infos.values() for slot in info.claimed_slots})
    return {
        name: PoolUse(
            places=info.slot_count,
            held=len(info.claimed_slots),
            waiting=info.pending_step_count,
            left_behind=sum(slot.run_id in over for slot in info.claimed_slots),
        )
        for name, info in sorted(infos.items())
    }


def _runs_over(instance: DagsterInstance, run_ids: set[str]) -> set[str]:
    """Those that are gone, or that ended so long ago that their slots should be free."""
    from dagster import RunsFilter

    if not run_ids:
        return set()
    until = time.time() - _FREED_S
    holding = {
        record.dagster_run.run_id
        for record in instance.get_run_records(RunsFilter(run_ids=list(run_ids)))
        if not record.dagster_run.is_finished or (record.end_time or 0.0) > until
    }
    return run_ids - holding


def _failures(connection: Connection, made: Mapping[str, float]) -> Failures:
    rows = [dict(row) for row in connection.execute(text(_FAILED)).mappings()]
    ended = _row(connection, _FOR_GOOD)
    failed_at = set(ended["given_up_at"] or ())
    newest = {row["class"]: row["cause"] for row in sorted(rows, key=lambda row: row["newest"])}
    return Failures(
        by_class=_summed(rows, "class"),
        by_asset=_summed(rows, "asset"),
        newest_causes=newest,
        for_good=ended["for_good"],
        given_up_lately=ended["given_up_lately"],
        given_up_cause=ended["given_up_cause"] or "",
        made_s=_longest(*(made[asset] for asset in failed_at)) if failed_at <= made.keys() else None,
    )


def _summed(rows: Iterable[Mapping[str, Any]], by: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in rows:
        sums[row[by]] = sums.get(row[by], 0) + row["failures"]
    return dict(sorted(sums.items()))


def _row(connection: Connection, query: str, **parameters: float) -> Mapping[str, Any]:
    return dict(connection.execute(text(query), parameters).mappings().one())


# Not through intake_state, which takes half a second for 10,000 rows: equal submissions that wait are counted as one,
# the others are its duplicates.
_WAITING = """
select count(*) as waiting, extract(epoch from now() - min(submitted_at)) as oldest_waiting_s,
       extract(epoch from now() - min(submitted_at) filter (where is_new)) as oldest_new_s
from (
    select distinct on (coalesce(i.video_id, i.intake_id::text), i.options)
           i.submitted_at, i.registered_at is null as is_new
    from public.url_intake i
    where not i.settled and not exists (select from public.pipeline_history h where h.intake_id = i.intake_id)
    order by coalesce(i.video_id, i.intake_id::text), i.options, i.intake_id
) waiting
"""

_AGAIN = """
with begun as materialized (
    select i.intake_id from public.url_intake i
    where not i.settled and exists (select from public.pipeline_history h where h.intake_id = i.intake_id)
)
select count(*) filter (where not_before <= now()) as due_again,
       count(*) filter (where not_before > now()) as again_later,
       extract(epoch from now() - min(not_before) filter (where not_before <= now())) as longest_due_s
from begun join public.intake_state s using (intake_id)
where s.state = 'waiting'
"""

_IDLE = "select extract(epoch from now() - started_at) from public.pipeline_history order by attempt_id desc limit 1"

_LEASES = """
select count(*) filter (where lease_until >= now()) as live, count(*) filter (where lease_until < now()) as over,
       coalesce(extract(epoch from now() - min(lease_until) filter (where lease_until < now())), 0) as longest_over_s
from public.pipeline_history where outcome = 'running'
"""

_WORKERS = """
select count(*) - count(*) filter (where silent_s > :silent) as live,
       count(*) filter (where silent_s > :silent) as over,
       coalesce(max(silent_s) filter (where silent_s > :silent), 0) as longest_over_s
from (select extract(epoch from now() - beat_at) as silent_s from public.workers) w
"""

_FAILED = """
select class, asset, count(*) as failures, max(ended_at) as newest,
       (array_agg(cause order by ended_at desc))[1] as cause
from public.pipeline_history
where outcome in ('failed', 'cancelled') and ended_at > now() - interval '24 hours'
group by class, asset
"""

# So far back, and not to the beginning, where something has not been made for long.
_MADE = """
select asset, extract(epoch from now() - max(ended_at)) as made_s
from (select asset, outcome, ended_at from public.pipeline_history order by attempt_id desc limit 10000) newest
where outcome in ('completed', 'reused', 'listed') group by asset
"""

# A failure that a later run of the submission has left behind does not count. Given up for no fault of its video: its
# address, its media, what a model says of it, and what a submission that was refused asks for, are the video's own.
_FOR_GOOD = """
select count(distinct intake_id) as for_good,
       count(distinct intake_id) filter (where is_ours) as given_up_lately,
       array_agg(distinct asset) filter (where is_ours) as given_up_at,
       (array_agg(cause order by ended_at desc) filter (where is_ours))[1] as given_up_cause
from (
    select h.intake_id, h.asset, h.cause, h.ended_at,
           h.ended_at > now() - interval '1 hour' and h.class <> 'cancelled'
           and (h.video_id is not null or h.class = 'transient')
           and coalesce(h.evidence->>'error', '')
               not in ('SourceError', 'MediaError', 'ReplyError', 'PermanentError') as is_ours
    from public.pipeline_history h
    where h.outcome = 'failed' and h.ended_at > now() - interval '24 hours'
      and h.try_again_at is null and h.intake_id is not null
      and not exists (
          select from public.pipeline_history later
          where later.intake_id = h.intake_id and later.attempt_id > h.attempt_id
            and later.run_id is distinct from h.run_id)
) ended
"""
