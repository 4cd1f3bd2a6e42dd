"""The views that analysts read: the current version of each asset's table, with times in seconds beside them.

What stands here is what a migrated database has (a test compares them). A migration holds the text of its time, so
a change here is a new migration that drops the views and creates them again.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Table

from moments_resources.tables import ASSET_TABLES, transcript_segments

SECONDS = {"start_ms": "start_time", "end_ms": "end_time", "time_ms": "time", "duration_ms": "duration"}


def _columns(table: Table) -> Iterable[str]:
    for column in table.c:
        yield f"t.{column.name}"
        if column.name in SECONDS:
            yield f"(t.{column.name} / 1000.0)::double precision as {SECONDS[column.name]}"


def current_view(asset: str, table: Table) -> str:
    """`create view` for the current rows of one table of one asset."""
    return (
        f"create view public.{table.name} as\n"
        f"select {', '.join(_columns(table))}\n"
        f"from versions.{table.name} t\n"
        f"join public.artifacts a on a.video_id = t.video_id and a.version = t.version\n"
        f"where a.asset = '{asset}' and a.superseded_at is null"
    )


LATEST_ATTEMPTS = """
create view public.latest_attempts as
select distinct on (coalesce(video_id, intake_id::text), asset) *
from public.pipeline_history
order by coalesce(video_id, intake_id::text), asset, attempt_id desc
"""

#: What failed and why: the newest attempt of a video and asset, where it did not go well.
FAILURES = """
create view public.failures as
select l.video_id, coalesce(v.title, i.name) as title, coalesce(v.url, i.url) as url, l.asset, l.class, l.cause,
       l.ended_at, l.run_id
from public.latest_attempts l
left join public.videos v on v.video_id = l.video_id
left join lateral (
    select url, name from public.url_intake
    where intake_id = l.intake_id or (l.video_id is not null and video_id = l.video_id)
    order by intake_id limit 1
) i on true
where l.outcome in ('failed', 'cancelled')
"""

#: One row a submission, with its state. A row never carries its state: written apart from the work, it would lie.
#: A submission without attempts of its own is a duplicate of an equal one (same video, same options) that
#:   - runs; or failed after this one came in: they share that end; asked again later, it is tried again; or
#:   - completed, and nothing of the video was made since: its result is the result; or
#:   - waits, and came first.
INTAKE_STATE = """
create view public.intake_state as
with mine as (
    select intake_id,
           bool_or(outcome in ('running', 'retrying')) as running,
           (array_agg(asset order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as asset,
           (array_agg(outcome order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as ended,
           (array_agg(class order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as class,
           (array_agg(cause order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as cause,
           count(distinct asset) filter (where outcome in ('completed', 'reused')) = __ASSETS__ as done,
           max(ended_at) as ended_at
    from (
        select distinct on (intake_id, asset) * from public.pipeline_history
        where intake_id is not null order by intake_id, asset, attempt_id desc
    ) newest
    group by intake_id
), changed as (
    select video_id, max(committed_at) as at from public.artifacts group by video_id
), asked as (
    select i.*, i.options->'force' is not distinct from 'true'::jsonb or i.video_id is null as on_its_own,
           m.running, m.asset, m.ended, m.class, m.cause, m.done, m.ended_at, m.intake_id is not null as begun
    from public.url_intake i
    left join mine m using (intake_id)
), covered as (
    select i.intake_id, max(e.intake_id) as by
    from asked i
    join asked e on e.video_id = i.video_id and e.options = i.options and e.intake_id < i.intake_id and e.begun
    left join changed c on c.video_id = e.video_id
    where not i.begun and not i.on_its_own
      and case when e.ended is not null and not e.running then e.ended_at > i.submitted_at
               when e.done then c.at <= e.ended_at or e.ended_at > i.submitted_at
               else true end
    group by i.intake_id
), first as (
    select i.intake_id, min(i.intake_id) over (partition by i.video_id, i.options) as by
    from asked i
    left join covered using (intake_id)
    where not i.begun and not i.on_its_own and covered.by is null
)
select i.intake_id, i.url, i.name, i.options, i.priority, i.submitted_at, i.submitted_by, i.video_id,
       case when i.ended is not null and not i.running then i.ended
            when i.done then 'completed'
            when i.begun then 'running'
            when coalesce(covered.by, first.by, i.intake_id) <> i.intake_id then 'duplicate'
            else 'waiting' end as state,
       nullif(coalesce(covered.by, first.by), i.intake_id) as duplicate_of, i.asset as failed_asset, i.class, i.cause
from asked i
left join covered using (intake_id)
left join first using (intake_id)
""".replace("__ASSETS__", str(len(ASSET_TABLES)))


def create_views() -> list[str]:
    """All statements, in the order in which they can run."""
    current = [current_view(asset, table) for asset, table in ASSET_TABLES.items()]
    segments = current_view("transcript", transcript_segments)
    return [*current, segments, LATEST_ATTEMPTS, FAILURES, INTAKE_STATE]
