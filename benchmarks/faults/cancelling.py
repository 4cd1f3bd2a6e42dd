"""Cancelled from the command line and as the UI does it; and whether that was heeded: at once, and to the end.

What came later than a cancel is told by numbers of attempts, not by times: the clock of the database is set meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.faults.field import CANCELLED, Field

Row = dict[str, Any]
Rows = Callable[..., list[Row]]

_COMMAND_S = 180
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What was cancelled, and how far the history was when that was done.

    `may_end`: outcomes that may be noted of it later: nothing began for them.
    """

    video_id: str
    run_ids: tuple[str, ...]
    intake_ids: tuple[int, ...]
    last_attempt: int
    committed: frozenset[int]  # attempts of these runs that had a result
    may_end: tuple[str, ...] = ("cancelled",)


def video_cancelled(field: Field, _chance: float) -> None:
    """`moments cancel VIDEO`, in a process of its own."""
    row = field.victim("video_cancelled")
    if not row:
        return
    field.foresee(row, CANCELLED)
    field.hit("video_cancelled", [row["video_id"]])
    if _command(field, row["video_id"]):
        rows = field.stand.patient_rows
        _note(field, note_command(rows, row), open_work(rows, row))


def run_cancelled(field: Field, _chance: float) -> None:
    """As the UI cancels a run."""
    from dagster import DagsterInstance

    row = field.victim("run_cancelled")
    if not row:
        return
    field.foresee(row, CANCELLED)
    field.hit("run_cancelled", [row["video_id"]])
    try:
        with DagsterInstance.get() as instance:
            instance.run_coordinator.cancel_run(row["run_id"])
    except Exception as error:  # noqa: BLE001 - the code server or PostgreSQL may be away: the UI shows it, too
        field.missed.append(f"run_cancelled ({type(error).__name__})")
        return
    if not _until_over(field, row["run_id"]):
        field.wrong.append(f"run {row['run_id']} was cancelled in the UI and is at work {field.patience_s:.0f} s later")
        return
    _note(field, note_run(field.stand.patient_rows, row), [])


def note_command(rows: Rows, row: Row) -> Cancelled:
    """To be called when `moments cancel` has come back: all that it stopped, and what was struck.

    The latter also where the command took note of nothing: then it was over before.
    """
    found = rows("select run_ids, intake_ids from public.cancellations where video_id = :id", id=row["video_id"])
    run_ids = {row["run_id"], *(run_id for item in found for run_id in item["run_ids"])}
    intake_ids = {row["intake_id"], *(number for item in found for number in item["intake_ids"])}
    return _noted(rows, row["video_id"], run_ids, intake_ids)


def note_run(rows: Rows, row: Row) -> Cancelled:
    """To be called when a run that was cancelled in Dagster is over.

    Its submission belongs to it where the history says that it was cancelled; else it was through before, or its
    process died before it heard of it: then the submission is tried again, in another run.
    """
    is_heard = rows(_HEARD, run=row["run_id"], intake=row["intake_id"])
    intake_ids = {row["intake_id"]} if is_heard else set()
    # `failed`: that a process died is noted when it is missed, which may be after the end of its run.
    return _noted(rows, row["video_id"], {row["run_id"]}, intake_ids, may_end=("cancelled", "failed"))


def _noted(
    rows: Rows, video_id: str, run_ids: set[Any], intake_ids: set[Any], may_end: tuple[str, ...] = ("cancelled",)
) -> Cancelled:
    runs = tuple(sorted(run_ids - {None}))
    last = rows("select coalesce(max(attempt_id), 0) as n from public.pipeline_history")[0]["n"]
    committed = frozenset(item["attempt_id"] for item in rows(_COMMITTED, runs=list(runs)))
    return Cancelled(video_id, runs, tuple(sorted(intake_ids - {None})), last, committed, may_end)


def is_open(rows: Rows, run_id: str) -> bool:
    """Whether an attempt of a run has no end yet: a step that waited for its retry is ended by the reaper."""
    return bool(rows(_WITHOUT_AN_END, run=run_id))


def open_work(rows: Rows, row: Row) -> list[str]:
    """What is open still of a video that `moments cancel` has just stopped: the attempt that was struck."""
    found = rows("select outcome from public.pipeline_history where attempt_id = :id", id=row["attempt_id"])
    is_open = any(item["outcome"] == "running" for item in found)
    return [f"attempt {row['attempt_id']} of {row['video_id']} was cancelled and is open"] * is_open


def broken(rows: Rows, cancelled: Cancelled) -> list[str]:
    """What went on although it was cancelled; to be asked at once, and at the end of everything."""
    asked = {"runs": list(cancelled.run_ids), "intakes": list(cancelled.intake_ids)}
    began = rows(_BEGAN, **asked, last=cancelled.last_attempt, may_end=list(cancelled.may_end))
    committed = {item["attempt_id"] for item in rows(_COMMITTED, runs=asked["runs"])} - cancelled.committed
    open_rows = rows(_OPEN, **asked)
    video = cancelled.video_id
    found = [f"attempt {item['attempt_id']} of {video} began after its cancel ({item['outcome']})" for item in began]
    found += [f"attempt {item['attempt_id']} of {video} is {item['outcome']} after its cancel" for item in open_rows]
    found += [f"attempt {number} of {video} committed after its cancel" for number in sorted(committed)]
    states = rows(_UNENDED, intakes=asked["intakes"])
    return found + [f"submission {item['intake_id']} is {item['state']} after its cancel" for item in states]


def broken_at_the_end(field: Field) -> list[str]:
    """As `broken`, of every cancel."""
    return [line for cancelled in field.cancelled for line in broken(field.stand.patient_rows, cancelled)]


_OF_IT = "(run_id = any(:runs) or intake_id = any(:intakes))"
_BEGAN = f"""
select attempt_id, outcome from public.pipeline_history
where {_OF_IT} and attempt_id > :last and outcome <> all(:may_end)
"""  # noqa: S608 - our own text
_OPEN = f"select attempt_id, outcome from public.pipeline_history where {_OF_IT} and outcome = 'running'"  # noqa: S608
_WITHOUT_AN_END = """
select 1 from public.pipeline_history h
where run_id = :run and (outcome = 'running' or outcome = 'retrying' and not exists (
    select from public.pipeline_history n
    where n.run_id = h.run_id and n.asset = h.asset and n.attempt_id > h.attempt_id))
"""
_HEARD = """
select 1 from public.pipeline_history where run_id = :run and intake_id = :intake and outcome = 'cancelled'
"""
_COMMITTED = "select attempt_id from public.artifacts where run_id = any(:runs)"
_UNENDED = """
select intake_id, state from public.intake_state
where intake_id = any(:intakes) and state in ('waiting', 'running')
"""


def _note(field: Field, cancelled: Cancelled, found: Sequence[str]) -> None:
    field.cancelled.append(cancelled)
    field.wrong.extend([*found, *broken(field.stand.patient_rows, cancelled)])


def _command(field: Field, video_id: str) -> bool:
    """Whether it came back well. Where PostgreSQL was struck meanwhile it is repeated, as its message asks for."""
    deadline = time.monotonic() + field.patience_s
    while True:
        began = time.monotonic()
        code, said = _run_command(video_id)
        if code == 0:
            return True
        if field.postgres_answered(since=began):
            field.wrong.append(f"`moments cancel {video_id}` ended with {code}: {said}")
            return False
        if time.monotonic() > deadline:
            field.missed.append(f"video_cancelled ({said})")
            return False
        time.sleep(1)


def _run_command(video_id: str) -> tuple[int | None, str]:
    command = [sys.executable, "-m", "moments.cli", "cancel", video_id]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_COMMAND_S)
    except subprocess.TimeoutExpired:
        return None, f"nothing within {_COMMAND_S} s"
    return done.returncode, done.stderr.strip()[-200:]


def _until_over(field: Field, run_id: str) -> bool:
    """Wait until a run is over for Dagster and for the history: a process learns of it some seconds later."""
    from dagster import DagsterInstance

    deadline = time.monotonic() + field.patience_s
    while time.monotonic() < deadline:
        try:
            with DagsterInstance.get() as instance:
                run = instance.get_run_by_id(run_id)
            if (run is None or run.is_finished) and not is_open(field.stand.rows, run_id):
                return True
        except Exception:  # noqa: BLE001, S110 - PostgreSQL may be away; Dagster's errors have no common class
            pass
        time.sleep(_POLL_S)
    return False
