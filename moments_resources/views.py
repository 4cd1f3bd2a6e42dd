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
       l.ended_at, l.run_id, l.try_again_at
from public.latest_attempts l
left join public.videos v on v.video_id = l.video_id
left join lateral (
    select url, name from public.url_intake
    where intake_id = l.intake_id or (l.video_id is not null and video_id = l.video_id)
    order by intake_id limit 1
) i on true
where l.outcome in ('failed', 'cancelled')
"""


def _attempts_of(row: str) -> str:
    """What the attempts of one submission say: one row.

    A failure counts until a later run of the submission begins. Where several assets failed, one that is not tried
    again decides, then the newest. By laterals, not by one `group by`: a sensor asks for a few rows of many.
    """
    first = "order by (try_again_at is null) desc, attempt_id desc"
    return f"""
    select count(*) > 0 as begun, max(last_run) as run_id,
           coalesce(bool_or(outcome in ('running', 'retrying')), false) as running,
           (array_agg(asset {first}) filter (where bad))[1] as asset,
           (array_agg(outcome {first}) filter (where bad))[1] as ended,
           (array_agg(class {first}) filter (where bad))[1] as class,
           (array_agg(cause {first}) filter (where bad))[1] as cause,
           case when bool_and(try_again_at is not null) filter (where bad) then max(try_again_at) filter (where bad)
                end as again,
           coalesce(bool_or(outcome = 'listed'), false) as listed,
           count(*) filter (where outcome in ('completed', 'reused')) = {len(ASSET_TABLES)}
               or coalesce(bool_or(outcome = 'listed'), false) as done,
           max(ended_at) as ended_at
    from (
        select h.*, first_value(h.run_id) over latest as last_run,
               outcome in ('failed', 'cancelled')
                   and run_id is not distinct from first_value(h.run_id) over latest as bad
        from (
            select distinct on (asset) asset, attempt_id, run_id, outcome, class, cause, try_again_at, ended_at
            from public.pipeline_history where intake_id = {row}.intake_id order by asset, attempt_id desc
        ) h
        window latest as (order by h.attempt_id desc)
    ) newest"""  # noqa: S608 - our own text


def _equal_options(one: str, other: str) -> str:
    """Whether two submissions ask for the same: that one brings its video back changes nothing of the result."""
    # By adding it, not by taking it out: a row by SQL may hold a number, from which nothing can be taken.
    revive = "jsonb_build_object('revive', null)"
    return f"{one}.options || {revive} = {other}.options || {revive}"


def _covered_by(row: str, depth: int) -> str:
    """The newest equal submission that began before and whose end is this one's end too. Once true, it stays so."""
    e, a, b = f"e{depth}", f"a{depth}", f"b{depth}"
    return f"""
    select max({e}.intake_id)
    from (
        select distinct intake_id from public.pipeline_history
        where video_id = {row}.video_id and intake_id < {row}.intake_id
    ) {b}
    join public.url_intake {e} on {e}.intake_id = {b}.intake_id and {_equal_options(e, row)}
    cross join lateral ({_attempts_of(e)}) {a}
    where case when {a}.running or {a}.again is not null then true
               when {a}.ended is not null then {a}.ended_at > {row}.submitted_at
               when {a}.done then {a}.ended_at > {row}.submitted_at or not {a}.listed and not exists (
                   select from public.artifacts
                   where video_id = {row}.video_id
                     and committed_at > {a}.ended_at and committed_at <= {row}.submitted_at)
               else true end"""  # noqa: S608 - our own text


def _first_of_those_that_wait(row: str) -> str:
    return f"""
    select e.intake_id from public.url_intake e
    where e.video_id = {row}.video_id and {_equal_options("e", row)} and e.intake_id <= {row}.intake_id
      and not exists (select from public.pipeline_history where intake_id = e.intake_id)
      and ({_covered_by("e", 2)}) is null
    order by e.intake_id limit 1"""  # noqa: S608 - our own text


#: One row a submission, with its state. A row never carries its state: written apart from the work, it would lie.
#: A failure that will be tried again is `waiting`, with the time in `not_before`.
#: A submission without attempts of its own is a duplicate of an equal one (same video, same options) that
#:   - runs or will be tried again; or failed after this one came in: they share that end; asked later, it is tried
#:     again; or
#:   - completed, and nothing of the video was made between its end and this submission: its result is the result. Not
#:     so a list, which may have grown; or
#:   - waits, and came first.
INTAKE_STATE = f"""
create view public.intake_state as
select i.intake_id, i.url, i.name, i.options, i.priority, i.submitted_at, i.submitted_by, i.video_id, i.listed_in,
       i.registered_at, i.settled,
       case when m.running then 'running'
            when m.again is not null then 'waiting'
            when m.ended is not null then m.ended
            when m.done then 'completed'
            when m.begun then 'running'
            when d.by <> i.intake_id then 'duplicate'
            else 'waiting' end as state,
       nullif(d.by, i.intake_id) as duplicate_of, m.asset as failed_asset, m.class, m.cause, m.again as not_before,
       (
           select count(distinct coalesce(run_id, attempt_id::text)) from public.pipeline_history
           where intake_id = i.intake_id and outcome in ('failed', 'cancelled')
       ) as tries,
       m.begun, m.running as is_at_work, m.run_id
from public.url_intake i
cross join lateral ({_attempts_of("i")}) m
cross join lateral (
    select case when not m.begun and i.video_id is not null and i.options->'force' is distinct from 'true'::jsonb
                then coalesce(({_covered_by("i", 1)}), ({_first_of_those_that_wait("i")})) end as by
) d
"""  # noqa: S608 - our own text


def create_views() -> list[str]:
    """All statements, in the order in which they can run."""
    current = [current_view(asset, table) for asset, table in ASSET_TABLES.items()]
    segments = current_view("transcript", transcript_segments)
    return [*current, segments, LATEST_ATTEMPTS, FAILURES, INTAKE_STATE]
