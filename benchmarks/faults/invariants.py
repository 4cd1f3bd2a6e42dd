"""What must be true after any faults. Each function returns the offenders, one line each: none, where all is well.

Times are only compared within one transaction: the clock of the database was set meanwhile.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.faults.processes import marked, role_of
from moments_core.budget import Amounts, Budget
from moments_resources.database import Database
from moments_resources.tables import ASSET_TABLES, transcript_segments

#: What a submission may end as: states, or states with a class as "failed permanent".
COMPLETED = frozenset({"completed"})


def lost(database: Database, foreseen: Mapping[int, frozenset[str]]) -> list[str]:
    """Submissions without an end, or with one that was not foreseen; a duplicate ends as its original does.

    `foreseen`: by number, what a submission may end as besides `completed`.
    """
    states = {row["intake_id"]: row for row in _rows(database, "select * from public.intake_state")}
    return [
        f"submission {number} of {row['video_id']} is {_end(states, number)}: {row['cause']}"
        for number, row in states.items()
        if _end(states, number) not in COMPLETED | foreseen.get(_original(states, number), frozenset())
    ]


def missing(database: Database, wanted: Sequence[tuple[str, int]], numbers: Sequence[int]) -> list[str]:
    """Submissions that were made and have no row: of addresses, by how many there must be, and by their numbers."""
    rows = _rows(database, "select intake_id, url from public.url_intake")
    there, by_url = {row["intake_id"] for row in rows}, Counter(row["url"] for row in rows)
    found = [f"{by_url[url]} of {count} rows of {url}" for url, count in wanted if by_url[url] < count]
    return found + [f"submission {number} has no row" for number in numbers if number not in there]


def _original(states: Mapping[int, Any], number: int) -> int:
    seen: set[int] = set()
    while states[number]["state"] == "duplicate" and number not in seen:
        seen.add(number)
        number = states[number]["duplicate_of"]
    return number


def _end(states: Mapping[int, Any], number: int) -> str:
    row = states[_original(states, number)]
    return f"failed {row['class']}" if row["state"] == "failed" else str(row["state"])


def duplicated(database: Database) -> list[str]:
    """Two current versions of one asset, two results of one attempt, rows that are in a table twice."""
    current = _rows(
        database,
        "select video_id, asset, count(*) as n from public.artifacts where superseded_at is null"
        " group by video_id, asset having count(*) > 1",
    )
    attempts = _rows(
        database, "select attempt_id, count(*) as n from public.artifacts group by attempt_id having count(*) > 1"
    )
    found = [f"{row['n']} current versions of {row['asset']} of {row['video_id']}" for row in current]
    found += [f"{row['n']} results of attempt {row['attempt_id']}" for row in attempts]
    for asset, table in ASSET_TABLES.items():
        found += [
            f"{row['seen']} rows of {row['video_id']} in the view {table.name}, {row['made']} were made"
            for row in _rows(database, _COUNTED.format(view=table.name), asset=asset)
        ]
    same = _rows(
        database,
        "select video_id, start_ms, end_ms, count(*) as n from public.moments"
        " group by video_id, start_ms, end_ms having count(*) > 1",
    )
    return found + [f"{row['n']} moments of {row['video_id']} at {row['start_ms']} ms" for row in same]


_COUNTED = """
select a.video_id, a.row_count as made, count(t.video_id) as seen
from public.artifacts a left join public.{view} t on t.video_id = a.video_id
where a.asset = :asset and a.superseded_at is null
group by a.video_id, a.row_count having count(t.video_id) <> a.row_count
"""


def stale_writes(database: Database, content_of: Callable[[str], bytes | None]) -> list[str]:
    """Results of attempts that may not commit, rows without a result, results whose objects are not what was made.

    `content_of` reads an object of the store; None where there is none.
    """
    stale = [
        f"{row['asset']} version {row['version']} of {row['video_id']}: {row['why']}"
        for query in (_NOT_COMPLETED, _AFTER_ITS_END, _AFTER_A_NEWER_ONE)
        for row in _rows(database, query)
    ]
    for asset, table in [*ASSET_TABLES.items(), ("transcript", transcript_segments)]:
        orphans = _rows(database, _WITHOUT_ARTIFACT.format(table=table.name), asset=asset)
        stale += [f"rows of {table.name} of {row['video_id']} version {row['version']}: no result" for row in orphans]
    objects = _rows(database, _OBJECTS)
    return stale + [
        f"object {row['key']} of {row['asset']} of {row['video_id']}: {fault}"
        for row in objects
        if (fault := _object_fault(content_of(row["key"]), row["sha256"]))
    ]


def _object_fault(content: bytes | None, sha256: str) -> str | None:
    if content is None:
        return "missing"
    return None if hashlib.sha256(content).hexdigest() == sha256 else "has another content"


_NOT_COMPLETED = """
select a.video_id, a.asset, a.version, 'its attempt is ' || h.outcome as why
from public.artifacts a join public.pipeline_history h using (attempt_id) where h.outcome <> 'completed'
"""
_AFTER_ITS_END = """
select a.video_id, a.asset, a.version, 'committed after the end of its attempt' as why
from public.artifacts a join public.pipeline_history h using (attempt_id) where a.committed_at > h.ended_at
"""
_AFTER_A_NEWER_ONE = """
select a.video_id, a.asset, a.version, 'committed after the result of a newer attempt' as why
from public.artifacts a join public.artifacts n using (video_id, asset)
where n.version < a.version and n.attempt_id > a.attempt_id
"""
_WITHOUT_ARTIFACT = """
select distinct t.video_id, t.version from versions.{table} t where not exists (
    select from public.artifacts a where a.video_id = t.video_id and a.version = t.version and a.asset = :asset)
"""
_OBJECTS = """
select a.video_id, a.asset, o->>'key' as key, o->>'sha256' as sha256
from public.artifacts a, jsonb_array_elements(a.objects) o where a.superseded_at is null
"""


def leaked_slots(database: Database, instance: Any) -> list[str]:
    """What is held for work that is over; to be asked when nothing is at work any more.

    Places in Dagster's pools, workers, attempts, runs. The locks are those of `held_locks`.
    """
    storage = instance.event_log_storage
    found = [
        f"a slot of the pool {pool} is held by run {slot.run_id}"
        for pool in storage.get_concurrency_keys()
        for slot in storage.get_concurrency_info(pool).claimed_slots
    ]
    found += [f"worker {row['pid']} is at run {row['run_id']}" for row in _rows(database, "select * from workers")]
    found += [f"attempt {row['attempt_id']} at {row['asset']} is open" for row in _rows(database, _OPEN)]
    runs = [run for run in instance.get_runs() if not run.is_finished]
    return found + [f"run {run.run_id} is {run.status.value}" for run in runs]


def held_locks(database: Database) -> list[str]:
    """Turns, tickets and places that a session of PostgreSQL still holds; to be asked when the daemon was stopped."""
    return [f"a lock {row['lock']} is held by session {row['pid']}" for row in _rows(database, _LOCKS)]


_LOCKS = """
select classid::text || ':' || objid::text as lock, pid from pg_locks
where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
"""
_OPEN = "select attempt_id, asset from public.pipeline_history where outcome = 'running'"


def orphan_processes(marker: str, tunnels: int = 0) -> list[str]:
    """Processes of the run after its daemon was stopped, and `tunnels`: connections that the SSH host still has."""
    found = [f"process {process.pid} ({role_of(process)}) lives, ports {_ports(process)}" for process in marked(marker)]
    return found + [f"{tunnels} connections to the SSH host"] * bool(tunnels)


def _ports(process: Any) -> list[int]:
    import psutil

    try:
        return sorted(item.laddr.port for item in process.net_connections("tcp") if item.status == psutil.CONN_LISTEN)
    except psutil.Error:
        return []


def leftovers(state: Path, temporary: Path) -> list[tuple[str, int]]:
    """(what, bytes) of what no work needs: in scratch, half downloads, files half stored, folders in TMPDIR."""
    paths = [*_below(state / "scratch"), *_below(temporary), *(state / "cache" / "turns").glob("*")]
    paths += [path for path in state.rglob("*") if path.parent.name == ".incoming" or path.suffix == ".part"]
    return [(str(path), path.stat().st_size if path.is_file() else 0) for path in dict.fromkeys(paths)]


def _below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*")) if folder.exists() else []


def unexplained(database: Database) -> list[str]:
    """Attempts that ended badly without cause or class, and submissions that failed without one."""
    attempts = _rows(
        database,
        "select attempt_id, asset, outcome from public.pipeline_history"
        " where outcome in ('failed', 'cancelled', 'retrying') and (class is null or coalesce(cause, '') = '')",
    )
    submissions = _rows(
        database,
        "select intake_id, state from public.intake_state"
        " where state in ('failed', 'cancelled') and (class is null or coalesce(cause, '') = '')",
    )
    found = [f"attempt {row['attempt_id']} at {row['asset']} is {row['outcome']}" for row in attempts]
    return found + [f"submission {row['intake_id']} is {row['state']}" for row in submissions]


def budgets_passed(database: Database, *, video: Budget, day: Budget, videos: Sequence[str] | None = None) -> list[str]:
    """Videos and days that took more than their budget, reservations of calls on their way included.

    `videos`: those that had the budget; None: all. What calls took is counted from the calls, and from the totals.
    """
    found = []
    for row in _rows(database, _BY_VIDEO):
        if (videos is None or row["video_id"] in videos) and (limit := video.passed_by(_amounts(row))):
            found.append(f"{row['video_id']} took {row[limit]:.15g} {limit}")
    for row in [*_rows(database, _BY_DAY), *_rows(database, "select * from public.spending")]:
        if limit := day.passed_by(_amounts(row)):
            found.append(f"{row['day']} took {row[limit]:.15g} {limit}")
    return found


def tokens_taken_today(database: Database) -> int:
    """By the calls or by the totals, whichever is more: the totals leave out what nobody has counted."""
    rows = [*_rows(database, _BY_DAY), *_rows(database, "select * from public.spending")]
    today = _rows(database, "select (now() at time zone 'utc')::date as day")[0]["day"]
    return max((int(row["tokens"]) for row in rows if row["day"] == today), default=0)


def _amounts(row: Mapping[str, Any]) -> Amounts:
    return Amounts(float(row["seconds"]), int(row["tokens"]), float(row["cost"]))


# What an open call may take counts while its attempt runs, and for good if it was sent; what a call took that nobody
# counted is what it reserved.
_TOOK = """
    coalesce(sum(case when c.outcome = 'open' then c.reserved_seconds else coalesce(c.seconds, 0) end), 0) as seconds,
    coalesce(sum(coalesce(c.tokens_in, 0)::bigint + coalesce(c.tokens_out, 0) + c.reserved_tokens), 0) as tokens,
    coalesce(sum(c.cost + c.reserved_cost), 0) as cost
from public.model_calls c join public.pipeline_history h using (attempt_id)
where c.outcome <> 'open' or h.outcome = 'running' or c.sent
"""
_BY_VIDEO = f"select c.video_id, {_TOOK} group by c.video_id"
_BY_DAY = f"select (c.started_at at time zone 'utc')::date as day, {_TOOK} group by 1"


def _rows(database: Database, query: str, **parameters: object) -> list[dict[str, Any]]:
    with database.begin() as connection:
        return [dict(row) for row in connection.execute(text(query), parameters).mappings()]
