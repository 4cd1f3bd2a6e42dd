"""The history of attempts: who works on which asset of which video, under which lease, and how it ended.

Every way in which work can end leads here: a step that succeeds or fails, a cancelled run, a process that died, a run
that could not even begin. What is to be tried again is decided here too, with the policy of moments_core/retrying.py.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select, text, update

from moments_core.errors import (
    DIED,
    FailureClass,
    FenceError,
    LeaseError,
    MomentsError,
    TransientError,
    classify,
    reason,
)
from moments_core.retrying import MOST_TRIES, next_try
from moments_resources import gate
from moments_resources.database import Database
from moments_resources.storable import storable, storable_text
from moments_resources.tables import ASSET_TABLES, pipeline_history, url_intake

#: How long an attempt may commit after its process was last heard: twenty beats (heart.py).
LEASE_S = 60

_LONGEST_CAUSE = 2000  # characters; an unforeseen error may carry a whole reply


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one asset of one video. It may commit while it is open; a newer one closes it."""

    attempt_id: int
    video_id: str
    asset: str
    number: int
    run_id: str


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has something unfinished in the history."""

    run_id: str
    intake_id: int | None


class History:
    """Writes pipeline_history.

    `tries`: how many runs of a submission may fail in a row, none of which made anything, before it has failed.
    """

    def __init__(self, database: Database, *, tries: int = MOST_TRIES) -> None:
        self.database = database
        self._tries = tries

    @contextmanager
    def turn(self, video_id: str, asset: str) -> Iterator[None]:
        """Take turns: one step at a time works on (video, asset), over the whole installation."""
        with self.database.lock(f"step:{video_id}:{asset}"):
            yield

    def open_attempt(self, video_id: str, asset: str, *, run_id: str, intake_id: int | None = None) -> Attempt:
        """Register a new attempt; to be called in one's turn.

        An earlier attempt that is still open lost its turn without closing: its process died, and it is closed as
        failed here. From now on its commit is refused. Raises as `gate.check`, and FenceError where a later run of
        the submission has begun: this one was taken for dead.
        """
        with self.database.begin() as connection:
            gate.enter(connection, video_id)
            gate.check(connection, video_id, run_id=run_id, intake_id=intake_id)
            _check_no_later_run(connection, run_id, intake_id)
            self._close_overtaken(connection, video_id, asset)
            _unsettle(connection, intake_id)
            return new_attempt(connection, video_id, asset, run_id=run_id, intake_id=intake_id)

    def close_reused(self, attempt: Attempt) -> None:
        """The attempt found that the current version is what it would make. Raises as `check_fence`."""
        with self.database.begin() as connection:
            check_fence(connection, attempt)
            close(connection, pipeline_history.c.attempt_id == attempt.attempt_id, "reused")

    def close_failed(self, attempt: Attempt, error: BaseException, *, will_retry: bool) -> None:
        """Keep why the attempt ended; does nothing to an attempt that has ended already."""
        open_one = and_(pipeline_history.c.attempt_id == attempt.attempt_id, pipeline_history.c.outcome == "running")
        with self.database.begin() as connection:
            self._close_bad(connection, open_one, attempt.run_id, error, will_retry=will_retry)

    def close_run(self, run_id: str, error: MomentsError) -> int:
        """Close the attempts that a run left open; says how many that were.

        An attempt that was to be tried again is open where it was not.
        """
        of_run = and_(pipeline_history.c.run_id == run_id, open_ones())
        with self.database.begin() as connection:
            return self._close_bad(connection, of_run, run_id, error)

    def end_run(self, run_id: str, error: MomentsError, *, intake_id: int | None = None) -> bool:
        """A run is over without success: nothing that it worked for stays open. Says whether anything was.

        Its submission gets an end with a reason also where no attempt has recorded one: killed between two steps,
        cancelled in the queue, or its code could not be loaded. A run that was cancelled ends it also where an
        attempt of it had failed and would be tried again.
        """
        closed = self.close_run(run_id, error)
        left = None if intake_id is None else self._left_by(run_id, intake_id, error)
        if left is None:
            return closed > 0
        video_id, asset = left
        self.note_failure(video_id, asset, run_id=run_id, intake_id=intake_id, error=error)
        return True

    def note_failure(
        self, video_id: str, asset: str, *, run_id: str, intake_id: int | None, error: MomentsError
    ) -> None:
        """Keep a failure that no attempt of this run has recorded; does nothing where one has.

        Needs no turn: whoever is at work on the same asset of the same video stays so.
        """
        ends = ["running", "cancelled"] if _ended_as(error) == "cancelled" else ["running", "cancelled", "failed"]
        recorded = select(pipeline_history.c.attempt_id).where(
            pipeline_history.c.video_id == video_id,
            pipeline_history.c.asset == asset,
            pipeline_history.c.run_id == run_id,
            pipeline_history.c.outcome.in_(ends),
        )
        with self.database.begin() as connection:
            gate.enter(connection, video_id)
            # Of a video that was taken down nothing is kept, also not what a straggler has to say.
            if gate.tombstone(connection, video_id) is None and connection.execute(recorded.limit(1)).first() is None:
                row = new_attempt(connection, video_id, asset, run_id=run_id, intake_id=intake_id)
                self._close_bad(connection, pipeline_history.c.attempt_id == row.attempt_id, run_id, error)

    def note_progress(self, attempt: Attempt, done: float) -> None:
        """Write how far the attempt has come, 0..1."""
        change = update(pipeline_history).where(
            pipeline_history.c.attempt_id == attempt.attempt_id, pipeline_history.c.outcome == "running"
        )
        with self.database.begin() as connection:
            connection.execute(change.values(progress=min(1.0, max(0.0, done))))

    def renew_leases(self, run_id: str) -> None:
        """The process of this run lives: its running attempts may go on."""
        running = (pipeline_history.c.run_id == run_id) & (pipeline_history.c.outcome == "running")
        with self.database.begin() as connection:
            connection.execute(update(pipeline_history).where(running).values(lease_until=_lease()))

    def open_runs(self) -> list[OpenRun]:
        """Runs with an open attempt, and runs of submissions that have begun and are neither at work nor over."""
        # Rows without attempts are left out before their state is asked for: ten thousand may wait.
        query = text("""
            with begun as materialized (
                select intake_id from public.url_intake i where not settled
                  and exists (select from public.pipeline_history h where h.intake_id = i.intake_id)
            )
            select run_id, max(intake_id) as intake_id from (
                select h.run_id, h.intake_id from public.pipeline_history h
                where h.outcome = 'running' or h.outcome = 'retrying' and not exists (
                    select from public.pipeline_history n
                    where n.video_id = h.video_id and n.asset = h.asset and n.run_id = h.run_id
                      and n.attempt_id > h.attempt_id)
                union
                select s.run_id, s.intake_id from begun join public.intake_state s using (intake_id)
                where s.state = 'running' and not s.is_at_work
            ) found where run_id is not null group by run_id""")
        with self.database.begin() as connection:
            return [OpenRun(row.run_id, row.intake_id) for row in connection.execute(query)]

    def _left_by(self, run_id: str, intake_id: int, error: MomentsError) -> tuple[str, str] | None:
        """(video, asset) that a run of a submission should have made next; None where the submission has its end.

        It has none yet where the run was at work, or was asked for and left no attempt: a first run or another try.
        """
        state = text("""
            select video_id from public.intake_state
            where intake_id = :intake and video_id is not null
              and (state = 'running' and run_id = :run
                   or state in ('waiting', 'duplicate') and not begun
                   or state = 'waiting' and run_id = :run and :cancelled
                   or state = 'waiting' and not exists (
                       select from public.pipeline_history where intake_id = :intake and run_id = :run))""")
        with self.database.begin() as connection:
            cancelled = _ended_as(error) == "cancelled"
            video_id = connection.scalar(state, {"intake": intake_id, "run": run_id, "cancelled": cancelled})
            missing = missing_assets(connection, intake_id)
        return (video_id, missing[0]) if video_id is not None and missing else None

    def _close_overtaken(self, connection: Connection, video_id: str, asset: str) -> None:
        table = pipeline_history.c
        still_open = (table.video_id == video_id) & (table.asset == asset) & (table.outcome == "running")
        for attempt_id, run_id in connection.execute(select(table.attempt_id, table.run_id).where(still_open)).all():
            self._close_bad(connection, table.attempt_id == attempt_id, run_id, TransientError(DIED))

    def _close_bad(
        self, connection: Connection, where: Any, run_id: str, error: BaseException, *, will_retry: bool = False
    ) -> int:
        outcome = "retrying" if will_retry else _ended_as(error)
        again = None if will_retry else self._again(connection, where, run_id, error)
        cause = (outcome, classify(error).value, reason(error), evidence_of(error))
        return close(connection, where, *cause, try_again_at=again)

    def _again(self, connection: Connection, where: Any, run_id: str, error: BaseException) -> Any:
        """When the submission that these attempts work for is tried again: an SQL value."""
        intake_id = connection.scalar(select(func.max(pipeline_history.c.intake_id)).where(where))
        if intake_id is None:
            return None  # a click in the UI: who made it sees the failure
        of_it, is_made = pipeline_history.c.intake_id == intake_id, pipeline_history.c.outcome == "completed"
        last_made = select(func.coalesce(func.max(pipeline_history.c.attempt_id), 0)).where(of_it, is_made)
        since_then = pipeline_history.c.attempt_id > last_made.scalar_subquery()
        earlier = select(func.count(func.distinct(pipeline_history.c.run_id))).where(
            of_it,
            since_then,
            pipeline_history.c.outcome == "failed",
            pipeline_history.c["class"] == FailureClass.TRANSIENT,  # days that waited for a budget are no tries
            pipeline_history.c.run_id != run_id,
        )
        again = next_try(error, failed=(connection.scalar(earlier) or 0) + 1, most=self._tries)
        return _from_now(again.total_seconds()) if isinstance(again, timedelta) else again


def missing_assets(connection: Connection, intake_id: int) -> list[str]:
    """Assets that a submission has not made yet, in their order: those whose newest attempt for it did not end well."""
    query = text("""
        select asset from (
            select distinct on (asset) asset, outcome from public.pipeline_history
            where intake_id = :intake order by asset, attempt_id desc
        ) newest where outcome in ('completed', 'reused', 'listed')""")
    made = set(connection.scalars(query, {"intake": intake_id}))
    return [asset for asset in ASSET_TABLES if asset not in made]


def check_fence(connection: Connection, attempt: Attempt) -> None:
    """Whether an attempt may still end well; its row stays locked to the end of the transaction.

    Raises FenceError for one that was ended or overtaken, LeaseError for one that was not heard for too long.
    """
    # Locked, so that a newer attempt, which closes this one, waits for the end of this transaction.
    lease_is_over = pipeline_history.c.lease_until < func.clock_timestamp()
    query = select(pipeline_history.c.outcome, lease_is_over.label("is_late")).where(
        pipeline_history.c.attempt_id == attempt.attempt_id
    )
    row = connection.execute(query.with_for_update()).first()
    if row is None or row.outcome != "running":
        raise FenceError(
            f"Attempt {attempt.number} at {attempt.asset} was ended or overtaken, so its result is not kept.",
            attempt=attempt.number,
            video_id=attempt.video_id,
        )
    if row.is_late:
        raise LeaseError(
            f"The process of attempt {attempt.number} at {attempt.asset} was silent for over {LEASE_S} s, so its "
            "result is not kept: run this again.",
            attempt=attempt.number,
            video_id=attempt.video_id,
        )


def close(
    connection: Connection,
    where: Any,
    outcome: str,
    failure_class: str | None = None,
    cause: str | None = None,
    evidence: Mapping[str, object] | None = None,
    *,
    try_again_at: Any = None,
) -> int:
    """Write the end of attempts; says how many there were."""
    seconds = func.extract("epoch", func.clock_timestamp() - pipeline_history.c.started_at)
    values = {
        "outcome": outcome,
        "class": failure_class,
        "cause": None if cause is None else storable_text(cause)[:_LONGEST_CAUSE],
        "evidence": dict(evidence or {}),
        "ended_at": func.clock_timestamp(),
        "seconds": func.coalesce(pipeline_history.c.seconds, seconds),
        "try_again_at": try_again_at,
    }
    return connection.execute(update(pipeline_history).where(where).values(**values)).rowcount


def evidence_of(error: BaseException) -> dict[str, object]:
    """What to keep beside the cause: the error's own facts and its kind, each short."""
    facts = error.evidence if isinstance(error, MomentsError) else {}
    origin = error.__cause__
    kinds = {"error": type(error).__name__, **({"caused_by": type(origin).__name__} if origin else {})}
    return kinds | {name: _short(value) for name, value in facts.items()}


def _ended_as(error: BaseException) -> str:
    return "cancelled" if classify(error) is FailureClass.CANCELLED else "failed"


def _short(value: object) -> object:
    plain = storable(value) if isinstance(value, (int, float)) else value
    return plain if isinstance(plain, (int, float)) or plain is None else storable_text(str(plain))[:4000]


def open_ones() -> ColumnElement[bool]:
    """Attempts that have not ended: running, or to be tried again within their run and not yet."""
    this, newer = pipeline_history.c, pipeline_history.alias("newer").c
    # Another run's attempt at the same asset is no retry of this one.
    same = (newer.video_id == this.video_id) & (newer.asset == this.asset) & (newer.run_id == this.run_id)
    is_tried_again = exists().where(same, newer.attempt_id > this.attempt_id)
    return or_(this.outcome == "running", and_(this.outcome == "retrying", ~is_tried_again))


def new_attempt(connection: Connection, video_id: str, asset: str, *, run_id: str, intake_id: int | None) -> Attempt:
    """A row for an attempt that runs from now on; the video's gate is held."""
    # `note_failure` comes without a turn: two at once must not take the same number.
    one_by_one = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(one_by_one, {"name": f"attempt:{video_id}:{asset}"})
    here = (pipeline_history.c.video_id == video_id) & (pipeline_history.c.asset == asset)
    last = connection.scalar(select(func.max(pipeline_history.c.attempt)).where(here)) or 0
    row = insert(pipeline_history).values(
        video_id=video_id,
        asset=asset,
        attempt=last + 1,
        outcome="running",
        run_id=run_id,
        intake_id=intake_id,
        host=socket.gethostname(),
        pid=os.getpid(),
        lease_until=_lease(),
    )
    attempt_id = connection.execute(row.returning(pipeline_history.c.attempt_id)).scalar_one()
    return Attempt(attempt_id, video_id, asset, last + 1, run_id)


def _check_no_later_run(connection: Connection, run_id: str, intake_id: int | None) -> None:
    """Whether this run is its submission's newest. A process that was frozen elsewhere may wake up hours later."""
    mine, later = pipeline_history.c, pipeline_history.alias("later").c
    last = select(func.max(mine.attempt_id)).where(mine.intake_id == intake_id, mine.run_id == run_id)
    taken_over = exists().where(
        later.intake_id == intake_id, later.run_id != run_id, later.attempt_id > last.scalar_subquery()
    )
    if intake_id is not None and connection.scalar(select(taken_over)):
        raise FenceError("A later run of this submission took over, so this one may begin nothing more.", run=run_id)


def _unsettle(connection: Connection, intake_id: int | None) -> None:
    """A submission that ended and is worked on again: the sensors have to see to it again."""
    if intake_id is not None:
        settled = (url_intake.c.intake_id == intake_id) & url_intake.c.settled
        connection.execute(update(url_intake).where(settled).values(settled=False))


def _lease() -> Any:
    return _from_now(LEASE_S)


def _from_now(seconds: float) -> Any:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
