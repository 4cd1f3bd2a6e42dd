"""Stopping all work on a video, as far as the tables say it: in one transaction, with the gate of the video shut.

From its commit on no attempt of the video may commit, none begins for what was stopped, and nothing is tried again.
Its processes learn of it with their next beat (heart.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, text

from moments_core.errors import FailureClass
from moments_resources import gate
from moments_resources.history import close, new_attempt, open_ones
from moments_resources.tables import ASSET_TABLES, cancellations, pipeline_history
from moments_resources.workers import ask_to_stop


@dataclass(frozen=True, slots=True)
class Stopped:
    """What was stopped: runs, submissions, and how many attempts were open."""

    run_ids: tuple[str, ...] = ()
    intake_ids: tuple[int, ...] = ()
    attempts: int = 0

    @property
    def is_nothing(self) -> bool:
        return not (self.run_ids or self.intake_ids or self.attempts)


def stop(connection: Connection, video_id: str, *, runs: Sequence[str], by: str) -> Stopped:
    """Cancel what is open of a video, and the `runs` that Dagster knows. `by`: who asked for it."""
    gate.shut(connection, video_id)
    cause = f"Cancelled by {by}: submit it again if that was a mistake."
    is_open = (pipeline_history.c.video_id == video_id) & open_ones()
    at_work = connection.scalars(select(pipeline_history.c.run_id).where(is_open)).all()
    run_ids = tuple(sorted({*runs, *(run_id for run_id in at_work if run_id is not None)}))
    intake_ids = tuple(connection.scalars(text(_OPEN_SUBMISSIONS), {"id": video_id}))
    stopped = Stopped(run_ids, intake_ids, len(at_work))
    if not stopped.is_nothing:
        _note(connection, video_id, stopped, by)
        close(connection, is_open, "cancelled", FailureClass.CANCELLED.value, cause)
        _end_submissions(connection, video_id, cause)
        ask_to_stop(connection, run_ids, cause)
    return stopped


#: Duplicates too: they end with the one that they wait for, and must not begin in its place.
_OPEN_SUBMISSIONS = """
select intake_id from public.intake_state
where video_id = :id and (state in ('waiting', 'running') or state = 'duplicate' and not settled)
order by intake_id"""


def _note(connection: Connection, video_id: str, stopped: Stopped, by: str) -> None:
    row = insert(cancellations).values(
        video_id=video_id, cancelled_by=by, run_ids=list(stopped.run_ids), intake_ids=list(stopped.intake_ids)
    )
    connection.execute(row)


#: What is open still: it waits, for its first run or another one, or is between two steps.
_WITHOUT_AN_END = """
select intake_id, failed_asset from public.intake_state
where video_id = :id and state in ('waiting', 'running') order by intake_id"""

_MADE = """
select asset from (
    select distinct on (asset) asset, outcome from public.pipeline_history
    where intake_id = :id order by asset, attempt_id desc
) newest where outcome in ('completed', 'reused')"""


def _end_submissions(connection: Connection, video_id: str, cause: str) -> None:
    """Give each open submission its end, as an attempt at what it lacks in a run of its own: what came before counts
    no more."""
    for intake_id, failed_asset in connection.execute(text(_WITHOUT_AN_END), {"id": video_id}).all():
        made = set(connection.scalars(text(_MADE), {"id": intake_id}))
        asset = failed_asset or next(asset for asset in ASSET_TABLES if asset not in made)
        end = new_attempt(connection, video_id, asset, run_id=str(uuid.uuid4()), intake_id=intake_id)
        where = pipeline_history.c.attempt_id == end.attempt_id
        close(connection, where, "cancelled", FailureClass.CANCELLED.value, cause)
