"""Leases and workers, another try, lists, cancelling, takedown, retention, budgets: what keeps the tables true."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for view in ("intake_state", "failures", "latest_attempts"):
        op.execute(f"drop view public.{view}")
    _history()
    _intake()
    _workers()
    _ends_on_request()
    _budgets()
    for view in _VIEWS:
        op.execute(view)


def _history() -> None:
    lease = "Until when a running attempt may commit; its process renews it."
    again = "When a failed attempt will be followed by another; empty: never."
    op.add_column("pipeline_history", _time("lease_until", lease, nullable=True))
    op.add_column("pipeline_history", _time("try_again_at", again, nullable=True))
    op.drop_constraint("pipeline_history_outcome", "pipeline_history")
    op.create_check_constraint(
        "pipeline_history_outcome",
        "pipeline_history",
        "outcome in ('running', 'completed', 'reused', 'listed', 'retrying', 'failed', 'cancelled')",
    )
    op.alter_column(
        "pipeline_history",
        "outcome",
        existing_type=sa.Text(),
        comment="running, completed, reused, listed (the address led to a list of videos), retrying, failed or "
        "cancelled.",
    )
    op.create_check_constraint(
        "pipeline_history_failed_alone_is_tried_again",
        "pipeline_history",
        "try_again_at is null or outcome = 'failed'",
    )
    tried_again = sa.text("try_again_at is not null")
    op.create_index("pipeline_history_again", "pipeline_history", ["intake_id"], postgresql_where=tried_again)
    open_ones = sa.text("outcome in ('running', 'retrying')")
    op.create_index("pipeline_history_open", "pipeline_history", ["run_id"], postgresql_where=open_ones)
    bad_ones = sa.text("outcome in ('failed', 'cancelled')")
    op.create_index("pipeline_history_bad", "pipeline_history", ["ended_at"], postgresql_where=bad_ones)


def _intake() -> None:
    listed = "The submission whose address led to a list with this video; empty: submitted by itself."
    registered = "When the sensor made its partition; empty: not yet."
    settled = "A mark for the sensors alone: this row has ended, they need not look at it. Its state: intake_state."
    op.add_column("url_intake", sa.Column("listed_in", sa.BigInteger(), nullable=True, comment=listed))
    op.add_column("url_intake", _time("registered_at", registered, nullable=True))
    op.add_column(
        "url_intake",
        sa.Column("settled", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment=settled),
    )
    op.drop_index("url_intake_video_id", "url_intake")
    op.create_index("url_intake_video_id", "url_intake", ["video_id", "intake_id"])
    op.create_index(
        "url_intake_new", "url_intake", ["intake_id"], postgresql_where=sa.text("registered_at is null and not settled")
    )
    op.create_index(
        "url_intake_open",
        "url_intake",
        [sa.text("priority desc"), "intake_id"],
        postgresql_where=sa.text("not settled"),
    )
    op.create_index("url_intake_listed_in", "url_intake", ["listed_in"])


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("run_id", sa.Text(), nullable=False, comment="Dagster's run."),
        sa.Column("host", sa.Text(), nullable=False, comment="Machine that it is on."),
        sa.Column(
            "machine",
            sa.Text(),
            nullable=False,
            comment="Whose process numbers these are: the machine's start, and the container.",
        ),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Its process."),
        sa.Column(
            "process_started", sa.Float(), nullable=False, comment="Start of the process, seconds since the machine's."
        ),
        sa.Column(
            "beat",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Rises every few seconds while the process lives.",
        ),
        _time("began_at", "When the process took the run.", server_default=sa.text("now()")),
        _time("beat_at", "When beat rose last.", server_default=sa.text("now()")),
        sa.Column("stop_reason", sa.Text(), nullable=True, comment="Why it is to stop; empty: it is not."),
        sa.PrimaryKeyConstraint("run_id", "host", "pid"),
        comment="The processes that take a run through its steps; one leaves when its run is over.",
    )


def _ends_on_request() -> None:
    op.create_table(
        "cancellations",
        sa.Column("cancellation_id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Number."),
        sa.Column("video_id", sa.Text(), nullable=True, comment="The video; empty where it has no name."),
        _time("cancelled_at", "When.", server_default=sa.text("now()")),
        sa.Column("cancelled_by", sa.Text(), nullable=False, comment="Program or database user that asked for it."),
        sa.Column("run_ids", ARRAY(sa.Text()), nullable=False, comment="Dagster's runs that may begin nothing more."),
        sa.Column(
            "intake_ids", ARRAY(sa.BigInteger()), nullable=False, comment="Submissions that may begin nothing more."
        ),
        sa.PrimaryKeyConstraint("cancellation_id"),
        comment="What was stopped on request: no attempt begins for these runs and submissions.",
    )
    op.create_index("cancellations_video_id", "cancellations", ["video_id"])
    op.create_table(
        "tombstones",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        _time("deleted_at", "When its removal was asked for.", server_default=sa.text("now()")),
        sa.Column("deleted_by", sa.Text(), nullable=False, comment="Program or database user that asked for it."),
        _time("verified_at", "When nothing of it was left; empty: the removal broke off, repeat it.", nullable=True),
        sa.PrimaryKeyConstraint("video_id"),
        comment="Videos that were taken down: they do not come back unless a submission says `revive`.",
    )
    op.create_table(
        "garbage",
        sa.Column("key", sa.Text(), nullable=False, comment="Key in the object store."),
        _time("found_at", "When it was first seen to belong to nothing.", server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("key"),
        comment="Objects that no row names: removed by retention when they are still here a while later.",
    )


def _budgets() -> None:
    op.create_table(
        "spending",
        sa.Column("day", sa.Date(), nullable=False, comment="Day, UTC."),
        sa.Column("seconds", sa.Float(), server_default=sa.text("0"), nullable=False, comment="Of model calls."),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="In and out."),
        sa.Column("cost", sa.Float(), server_default=sa.text("0"), nullable=False, comment="In the prices' currency."),
        sa.PrimaryKeyConstraint("day"),
        comment="What model calls took, a row a day; stays when a video is taken down.",
    )
    most = "The most that it may take, reserved until it is known what it took: "
    for name, kind in (("seconds", sa.Float()), ("tokens", sa.BigInteger()), ("cost", sa.Float())):
        op.add_column(
            "model_calls",
            sa.Column(f"reserved_{name}", kind, server_default=sa.text("0"), nullable=False, comment=f"{most}{name}."),
        )
    sent = "Set when it goes out: if nobody hears of its end, it has taken what was reserved."
    op.add_column(
        "model_calls", sa.Column("sent", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment=sent)
    )
    op.alter_column(
        "model_calls",
        "started_at",
        existing_type=sa.DateTime(timezone=True),
        existing_nullable=False,
        comment="When it was sent; before that: when it was asked for.",
    )
    op.create_index("model_calls_open", "model_calls", ["attempt_id"], postgresql_where=sa.text("outcome = 'open'"))
    uncounted = sa.text("outcome <> 'open' and reserved_tokens > 0")
    op.create_index("model_calls_uncounted", "model_calls", ["started_at"], postgresql_where=uncounted)


def _time(name: str, comment: str, **more: object) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), **({"nullable": False} | more), comment=comment)  # type: ignore[arg-type]


# The views as they were at this version; moments_resources/views.py has today's.
_VIEWS = (
    """
create view public.latest_attempts as
select distinct on (coalesce(video_id, intake_id::text), asset) *
from public.pipeline_history
order by coalesce(video_id, intake_id::text), asset, attempt_id desc
""",
    """
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
""",
    """
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
cross join lateral (
    select count(*) > 0 as begun, max(last_run) as run_id,
           coalesce(bool_or(outcome in ('running', 'retrying')), false) as running,
           (array_agg(asset order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as asset,
           (array_agg(outcome order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as ended,
           (array_agg(class order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as class,
           (array_agg(cause order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as cause,
           case when bool_and(try_again_at is not null) filter (where bad) then max(try_again_at) filter (where bad)
                end as again,
           coalesce(bool_or(outcome = 'listed'), false) as listed,
           count(*) filter (where outcome in ('completed', 'reused')) = 8
               or coalesce(bool_or(outcome = 'listed'), false) as done,
           max(ended_at) as ended_at
    from (
        select h.*, first_value(h.run_id) over latest as last_run,
               outcome in ('failed', 'cancelled')
                   and run_id is not distinct from first_value(h.run_id) over latest as bad
        from (
            select distinct on (asset) asset, attempt_id, run_id, outcome, class, cause, try_again_at, ended_at
            from public.pipeline_history where intake_id = i.intake_id order by asset, attempt_id desc
        ) h
        window latest as (order by h.attempt_id desc)
    ) newest) m
cross join lateral (
    select case when not m.begun and i.video_id is not null and i.options->'force' is distinct from 'true'::jsonb
                then coalesce((
    select max(e1.intake_id)
    from (
        select distinct intake_id from public.pipeline_history
        where video_id = i.video_id and intake_id < i.intake_id
    ) b1
    join public.url_intake e1 on e1.intake_id = b1.intake_id and e1.options || jsonb_build_object('revive', null)
        = i.options || jsonb_build_object('revive', null)
    cross join lateral (
    select count(*) > 0 as begun, max(last_run) as run_id,
           coalesce(bool_or(outcome in ('running', 'retrying')), false) as running,
           (array_agg(asset order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as asset,
           (array_agg(outcome order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as ended,
           (array_agg(class order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as class,
           (array_agg(cause order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as cause,
           case when bool_and(try_again_at is not null) filter (where bad) then max(try_again_at) filter (where bad)
                end as again,
           coalesce(bool_or(outcome = 'listed'), false) as listed,
           count(*) filter (where outcome in ('completed', 'reused')) = 8
               or coalesce(bool_or(outcome = 'listed'), false) as done,
           max(ended_at) as ended_at
    from (
        select h.*, first_value(h.run_id) over latest as last_run,
               outcome in ('failed', 'cancelled')
                   and run_id is not distinct from first_value(h.run_id) over latest as bad
        from (
            select distinct on (asset) asset, attempt_id, run_id, outcome, class, cause, try_again_at, ended_at
            from public.pipeline_history where intake_id = e1.intake_id order by asset, attempt_id desc
        ) h
        window latest as (order by h.attempt_id desc)
    ) newest) a1
    where case when a1.running or a1.again is not null then true
               when a1.ended is not null then a1.ended_at > i.submitted_at
               when a1.done then a1.ended_at > i.submitted_at or not a1.listed and not exists (
                   select from public.artifacts
                   where video_id = i.video_id
                     and committed_at > a1.ended_at and committed_at <= i.submitted_at)
               else true end), (
    select e.intake_id from public.url_intake e
    where e.video_id = i.video_id
      and e.options || jsonb_build_object('revive', null)
        = i.options || jsonb_build_object('revive', null)
      and e.intake_id <= i.intake_id
      and not exists (select from public.pipeline_history where intake_id = e.intake_id)
      and (
    select max(e2.intake_id)
    from (
        select distinct intake_id from public.pipeline_history
        where video_id = e.video_id and intake_id < e.intake_id
    ) b2
    join public.url_intake e2 on e2.intake_id = b2.intake_id and e2.options || jsonb_build_object('revive', null)
        = e.options || jsonb_build_object('revive', null)
    cross join lateral (
    select count(*) > 0 as begun, max(last_run) as run_id,
           coalesce(bool_or(outcome in ('running', 'retrying')), false) as running,
           (array_agg(asset order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as asset,
           (array_agg(outcome order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as ended,
           (array_agg(class order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as class,
           (array_agg(cause order by (try_again_at is null) desc, attempt_id desc) filter (where bad))[1] as cause,
           case when bool_and(try_again_at is not null) filter (where bad) then max(try_again_at) filter (where bad)
                end as again,
           coalesce(bool_or(outcome = 'listed'), false) as listed,
           count(*) filter (where outcome in ('completed', 'reused')) = 8
               or coalesce(bool_or(outcome = 'listed'), false) as done,
           max(ended_at) as ended_at
    from (
        select h.*, first_value(h.run_id) over latest as last_run,
               outcome in ('failed', 'cancelled')
                   and run_id is not distinct from first_value(h.run_id) over latest as bad
        from (
            select distinct on (asset) asset, attempt_id, run_id, outcome, class, cause, try_again_at, ended_at
            from public.pipeline_history where intake_id = e2.intake_id order by asset, attempt_id desc
        ) h
        window latest as (order by h.attempt_id desc)
    ) newest) a2
    where case when a2.running or a2.again is not null then true
               when a2.ended is not null then a2.ended_at > e.submitted_at
               when a2.done then a2.ended_at > e.submitted_at or not a2.listed and not exists (
                   select from public.artifacts
                   where video_id = e.video_id
                     and committed_at > a2.ended_at and committed_at <= e.submitted_at)
               else true end) is null
    order by e.intake_id limit 1)) end as by
) d
""",
)
