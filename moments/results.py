"""What stands in the lakehouse about a video, as the plain data that commands print and `--json` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from moments.services import Lakehouse
from moments_core.source import public_url
from moments_resources.intake import IntakeRow
from moments_resources.tables import ASSET_TABLES

Json = dict[str, Any]

_ENDED = {"completed", "failed", "cancelled"}
#: The state of a submission whose row is gone.
_REMOVED: Json = {
    "state": "cancelled",
    "failed_asset": None,
    "class": "cancelled",
    "cause": "The video was taken down: submit it with --revive if it is to come back.",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Which submission gives the result, this one or an equal one that came first, and where that stands.

    `has_failed`: the last try failed, and another one is due. `tries`: runs that failed so far.
    """

    intake_id: int
    has_ended: bool
    has_failed: bool
    tries: int


@dataclass(frozen=True, slots=True)
class States:
    """One row a video: state, asset in work or last, attempts, reason; and, for one that failed and will be tried
    again, the runs that failed so far and the time of the next.

    `counts`: videos by state. `total`: those that were asked for, of which `rows` may be the first.
    """

    rows: list[Json]
    counts: dict[str, int]
    total: int


class Results:
    """Reads videos, moments, states and attempts through the catalogue's views."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse

    def submission(self, row: IntakeRow, source: str) -> Json:
        """One submission's result, as `moments process --json` prints it."""
        found = self.rows("select * from public.intake_state where intake_id = :id", id=row.intake_id)
        state = found[0] if found else _REMOVED | {"video_id": row.video_id, "intake_id": row.intake_id}
        video_id = state["video_id"]
        if state["state"] == "duplicate":
            # Its result is the result of the submission that came first.
            state = self.rows("select * from public.intake_state where intake_id = :id", id=state["duplicate_of"])[0]
        completed = state["state"] == "completed"
        error = None if completed else _error(state)
        head = {
            "video_id": video_id,
            "source": source,
            "status": "completed" if completed else "failed",
            "failed_asset": None if completed else state["failed_asset"],
            "error": error,
        }
        return head | self.content(video_id, row.intake_id) | (self._listed(state) if completed else {})

    def content(self, video_id: str | None, intake_id: int | None = None) -> Json:
        """Duration, moments and assets of a video, as far as they exist; `note` says why there are no moments."""
        duration = self.rows("select duration from public.videos where video_id = :id", id=video_id)
        return {
            "duration": float(duration[0]["duration"]) if duration else None,
            "moments": [self._moment(row) for row in self.rows(_MOMENTS, id=video_id)],
            "note": self._note(video_id),
            "assets": self.assets(video_id, intake_id),
        }

    def _listed(self, state: Json) -> Json:
        """How many submissions a list became, and what of it was left out; nothing for what is no list."""
        found = self.rows(_LISTED, id=state["intake_id"])
        return found[0] if found else {}

    def _note(self, video_id: str | None) -> str | None:
        """What the finder said about a video in which it found nothing."""
        query = """
        select measures->>'note' as note from public.artifacts
        where video_id = :id and asset = 'moments' and superseded_at is null and row_count = 0"""
        found = self.rows(query, id=video_id)
        return found[0]["note"] or None if found else None

    def assets(self, video_id: str | None, intake_id: int | None = None) -> Json:
        """How each current asset was made; `reused` where this submission did not have to make it."""
        found = {row["asset"]: row for row in self.rows(_ASSETS, id=video_id, intake_id=intake_id)}
        return {
            name: {key: found[name][key] for key in ("version", "seconds", "reused")}
            for name in ASSET_TABLES
            if name in found
        }

    def made(self, video_id: str) -> list[Json]:
        """How each asset of a video was made, for `moments show`."""
        query = """
        select asset, version, code_version, config, inputs, measures, row_count, seconds, committed_at, run_id
        from public.artifacts where video_id = :id and superseded_at is null"""
        order = list(ASSET_TABLES)
        return sorted(self.rows(query, id=video_id), key=lambda row: order.index(row["asset"]))

    def states(self, video_id: str | None = None, *, state: str | None = None, limit: int | None = None) -> States:
        """Where each video stands, the newest submission first, and how many stand so in all."""
        rows = self.rows(_STATES, id=video_id, state=state, limit=limit)
        counts: dict[str, int] = rows[0]["counts"] or {}
        shown = [_titled(row) for row in rows if row["intake_id"] is not None]
        return States(shown, counts, counts.get(state, 0) if state else sum(counts.values()))

    def has_video(self, video_id: str) -> bool:
        """Whether anything is known of this video."""
        return bool(self.rows("select 1 from public.url_intake where video_id = :id limit 1", id=video_id))

    def progress(self, intake_id: int) -> Json | None:
        """The newest attempt that works for a submission: asset, progress 0..1, outcome."""
        found = self.rows(
            "select asset, progress, outcome from public.pipeline_history where intake_id = :id"
            " order by attempt_id desc limit 1",
            id=intake_id,
        )
        return found[0] if found else None

    def standing(self, intake_id: int) -> Standing:
        """Where a submission stands; a duplicate stands where the one before it does."""
        query = """
        select first.intake_id, first.state, first.tries,
               first.not_before is not null and not first.is_at_work as failed
        from public.intake_state mine
        join public.intake_state first
          on first.intake_id = case when mine.state = 'duplicate' then mine.duplicate_of else mine.intake_id end
        where mine.intake_id = :id"""
        rows = self.rows(query, id=intake_id)
        if not rows:  # taken down meanwhile
            return Standing(intake_id, has_ended=True, has_failed=False, tries=0)
        found = rows[0]
        return Standing(found["intake_id"], found["state"] in _ENDED, found["failed"], found["tries"])

    def rows(self, query: str, **parameters: object) -> list[Json]:
        with self._lakehouse.database.begin() as connection:
            return [dict(row) for row in connection.execute(text(query), parameters).mappings()]

    def _moment(self, row: Json) -> Json:
        refined = row["refined_by"] and {
            "start_time": float(row["refined_start"]),
            "end_time": float(row["refined_end"]),
            "refined_by": row["refined_by"],
        }
        clip = row["object_key"] and {
            "uri": self._lakehouse.store.uri(row["object_key"]),
            "start_time": float(row["clip_start"]),
            "end_time": float(row["clip_end"]),
        }
        return {
            "moment_id": row["moment_id"],
            "title": row["title"],
            "start_time": float(row["start_time"]),
            "end_time": float(row["end_time"]),
            "score": round(row["score"], 3),
            "refined": refined,
            "clip": clip,
        }


def _titled(state: Json) -> Json:
    """What has no title yet is called by its address; the one that was submitted may be signed."""
    address = public_url(state["url"])
    hidden = {"url", "intake_id", "counts"}
    return {key: state[key] or address if key == "title" else state[key] for key in state if key not in hidden}


def _error(state: Json) -> Json:
    if state["cause"] is None:
        return {"class": "transient", "reason": f"The work has not ended: it is {state['state']}."}
    return {"class": state["class"], "reason": state["cause"]}


_MOMENTS = """
select m.*, r.start_time as refined_start, r.end_time as refined_end, r.refined_by,
       c.start_time as clip_start, c.end_time as clip_end, c.object_key
from public.moments m
left join public.refined_moments r using (video_id, moment_id)
left join public.clips c using (video_id, moment_id)
where m.video_id = :id
order by m.ordinal
"""

_ASSETS = """
select a.asset, a.version, round(a.seconds::numeric, 3)::float as seconds,
       cast(:intake_id as bigint) is not null and not exists (
           select from public.pipeline_history h join public.url_intake mine on mine.intake_id = :intake_id
           where h.attempt_id = a.attempt_id and (h.intake_id = mine.intake_id
               -- or by an equal one that had failed, and was tried again for this one, too
               or h.started_at >= mine.submitted_at and exists (
                   select from public.pipeline_history f
                   where f.intake_id = h.intake_id and f.outcome = 'failed' and f.ended_at < mine.submitted_at))
       ) as reused
from public.artifacts a
where a.video_id = :id and a.superseded_at is null
"""

_LISTED = """
select (select count(*) from public.url_intake where listed_in = :id) as listed, evidence->>'note' as note
from (
    select outcome, evidence from public.pipeline_history
    where intake_id = :id and asset = 'raw_video' order by attempt_id desc limit 1
) newest
where outcome = 'listed'
"""

#: A bit an asset: which of them a submission has.
_BITS = " ".join(f"when '{asset}' then {1 << number}" for number, asset in enumerate(ASSET_TABLES))

# The view intake_state looks at each submission for itself: 13 s for 50,000. Those that had no trouble, which are
# nearly all, are `completed` by one pass over the history instead; the view is asked about the rest.
_STATES = f"""
with sound as materialized (
    select intake_id from public.pipeline_history
    where intake_id is not null and (cast(:id as text) is null or video_id = :id)
    group by intake_id
    having bool_and(outcome in ('completed', 'reused'))
       and bit_or(case asset {_BITS} else 0 end) = {(1 << len(ASSET_TABLES)) - 1}
), submissions as (
    select i.intake_id, i.video_id, i.name, i.url, i.submitted_at, 'completed' as state, null as failed_asset,
           null as class, null as cause, 0 as tries, cast(null as timestamptz) as not_before
    from public.url_intake i join sound using (intake_id)
    union all
    select s.intake_id, s.video_id, s.name, s.url, s.submitted_at, s.state, s.failed_asset,
           s.class, s.cause, s.tries, s.not_before
    from public.intake_state s
    where (cast(:id as text) is null or s.video_id = :id) and s.state <> 'duplicate'
      and not exists (select from sound where sound.intake_id = s.intake_id)
), newest as materialized (
    select distinct on (video_id, case when video_id is null then intake_id end) *
    from submissions s
    where not exists (select from public.tombstones t where t.video_id = s.video_id)
    order by video_id, case when video_id is null then intake_id end, intake_id desc
), counts as (
    select jsonb_object_agg(state, videos) as counts
    from (select state, count(*) as videos from newest group by state) by_state
), shown as (
    select * from newest where cast(:state as text) is null or state = :state order by intake_id desc limit :limit
)
select c.counts, s.intake_id, s.video_id, coalesce(v.title, s.name) as title, s.url, s.state,
       coalesce(s.failed_asset, h.asset) as asset, coalesce(h.attempts, 0) as attempts, s.class, s.cause as reason,
       s.tries, s.not_before, s.submitted_at
from counts c
left join shown s on true
left join public.videos v using (video_id)
left join lateral (
    select count(*) as attempts, (array_agg(asset order by attempt_id desc))[1] as asset
    from public.pipeline_history p where p.video_id = s.video_id
) h on true
order by s.intake_id desc
"""  # noqa: S608 - our own text
