"""Videos that are over, as many as a benchmark wants, written by SQL: what real runs would have left in the tables."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from moments.services import Lakehouse

_SUBMISSIONS = """
insert into public.url_intake (url, video_id, registered_at, settled, submitted_at)
select 'https://example.org/finished-' || n || '.mp4', 'web-finished-' || n, now(), true, now() - interval '1 day'
from generate_series(cast(:first as int), cast(:last as int)) n"""

_ATTEMPTS = """
insert into public.pipeline_history
    (video_id, asset, attempt, outcome, seconds, started_at, ended_at, intake_id, run_id, host, pid)
select i.video_id, asset, 1, 'completed', 1, i.submitted_at, i.submitted_at, i.intake_id,
       md5(i.video_id)::uuid::text, 'host', 1
from public.url_intake i, unnest(cast(:assets as text[])) asset
where i.video_id like 'web-finished-%' and not exists (
    select from public.pipeline_history h where h.intake_id = i.intake_id)"""

_ARTIFACTS = """
insert into public.artifacts
    (video_id, asset, version, attempt_id, run_id, code_version, config_hash, config, inputs, objects, row_count,
     measures, seconds, committed_at)
select video_id, asset, 1, attempt_id, run_id, '1', md5(asset), '{}', '{}', '[]', 1, '{}', 1, ended_at
from public.pipeline_history where video_id like 'web-finished-%'
on conflict do nothing"""

_RUNS = """
insert into dagster.runs
    (run_id, snapshot_id, pipeline_name, status, run_body, partition, create_timestamp, update_timestamp)
select h.run_id, r.snapshot_id, r.pipeline_name, r.status, replace(r.run_body, r.run_id, h.run_id), h.video_id,
       h.ended_at, h.ended_at
from public.pipeline_history h, dagster.runs r
where h.asset = 'raw_video' and h.video_id like 'web-finished-%' and r.run_id = :sample
on conflict do nothing"""

_RUN_TAGS = """
insert into dagster.run_tags (run_id, key, value)
select h.run_id, 'moments/intake_id', h.intake_id::text
from public.pipeline_history h
where h.asset = 'raw_video' and h.video_id like 'web-finished-%' and not exists (
    select from dagster.run_tags t where t.run_id = h.run_id)"""


def finish_videos(lakehouse: Lakehouse, instance: dg.DagsterInstance, count: int) -> None:
    """Add videos that are over until there are `count`: submission, attempts, artifacts, run, partition."""
    from sqlalchemy import text

    from moments_assets.partitions import videos
    from moments_resources.tables import ASSET_TABLES

    known = [key for key in instance.get_dynamic_partitions(str(videos.name)) if key.startswith("web-finished-")]
    sample = _finished_run(instance)
    with lakehouse.database.begin() as connection:
        connection.execute(text(_SUBMISSIONS), {"first": len(known), "last": count - 1})
        connection.execute(text(_ATTEMPTS), {"assets": list(ASSET_TABLES)})
        for statement, parameters in ((_ARTIFACTS, {}), (_RUNS, {"sample": sample}), (_RUN_TAGS, {})):
            connection.execute(text(statement), parameters)
    instance.add_dynamic_partitions(str(videos.name), [f"web-finished-{n}" for n in range(len(known), count)])
    with lakehouse.database.own_connection() as connection:
        connection.execute(text("vacuum analyze"))  # as autovacuum does, when it gets to it


def _finished_run(instance: dg.DagsterInstance) -> str:
    """One run that succeeded, as Dagster stores it; the others are copies of it."""
    import dagster as dg

    run_id = str(uuid.uuid4())
    instance.add_run(dg.DagsterRun("process_video", run_id, status=dg.DagsterRunStatus.SUCCESS))
    return run_id
