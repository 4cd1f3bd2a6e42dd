"""One fault run from its plan to its figures: submit and break, repair, wait, look."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import invariants, on_processes, on_servers, on_work
from benchmarks.faults.bucket import stray_files, stray_objects
from benchmarks.faults.budget_phase import play_budgets
from benchmarks.faults.cancelling import broken_at_the_end
from benchmarks.faults.field import Field
from benchmarks.faults.plan import Plan, PlannedFault, PlannedSubmission
from benchmarks.faults.stand import BUCKET, PREFIX, Stand, built_stand
from benchmarks.faults.watch import Watch
from benchmarks.report import Figure

_AT_ONCE = 24  # faults that wait for their victims
_STILL_S = 3.0

Offenders = Mapping[str, Sequence[str]]


_BUDGETS_PATIENCE = 1.5  # of the patience: for two waits, and the video that is killed in between


@dataclass(frozen=True)
class Outcome:
    """`offenders`: by invariant. `figures`: as benchmarks/report.py shows them."""

    offenders: Offenders
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class _Course:
    """How it went.

    `missed`: planned faults that did not strike. `played_s`: until the last struck. `given_up`: `time.monotonic()`.
    """

    planned: int
    missed: Sequence[str]
    played_s: float
    drained_s: float
    given_up: float
    is_budget_played: bool


def run_plan(make_plan: Callable[[Sequence[str]], Plan], folder: Path, *, patience_s: float) -> Outcome:
    """Play a plan. `make_plan` gets the kinds that this machine can't play.

    `patience_s`: after the last fault, for every submission to come to its end. Beside the plan's own time a
    run takes three and a half times that and three minutes at most: faults that wait for a victim and for its end (1),
    the end of all (1), the budgets (1.5).
    """
    with built_stand(folder) as stand, Watch(stand.rows) as watch:
        plan = make_plan(_unplayable(stand))
        _tell("\n".join(plan.lines()))
        field = Field(stand, watch, patience_s / 2)
        keeper = threading.Thread(target=stand.keep_daemon, name="keeper")
        stand.start_daemon()
        stand.keeping.set()
        keeper.start()
        try:
            began = time.monotonic()
            _play(field, plan)
            played_s = time.monotonic() - began
            missed = tuple(field.missed)
            _repair(field)
            given_up = time.monotonic() + patience_s
            drained_s = _drain(field, given_up)
            # Where submissions have no end, the run has failed already, and more patience shows nothing.
            budgets = play_budgets(field, _BUDGETS_PATIENCE * patience_s) if drained_s < patience_s else None
            _quiet(field)
            offenders = {"budgets_passed": budgets or []} | _live_offenders(field)
        finally:
            stand.stop_daemon()
            keeper.join()
        offenders |= _offenders_after(field)
        given_up = max(given_up, time.monotonic())  # the last fault strikes while the budgets are played
        course = _Course(len(plan.faults), missed, played_s, drained_s, given_up, budgets is not None)
        return Outcome(offenders, _figures(field, offenders, course))


def _unplayable(stand: Stand) -> list[str]:
    return ([] if stand.has_own_disk else ["disk_full"]) + ([] if _can_cancel() else ["video_cancelled"])


def _can_cancel() -> bool:
    from moments.cli import main

    return "cancel" in main.commands


def _play(field: Field, plan: Plan) -> None:
    """Everything at its time; a fault that waits for its victim keeps no other waiting."""
    plays = {**on_processes.faults(), **on_servers.faults(), **on_work.faults()}
    events: list[PlannedSubmission | PlannedFault] = [*plan.submissions, *plan.faults]
    started = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE + 8) as pool:
        running = []
        for event in sorted(events, key=lambda event: event.at_s):
            time.sleep(max(0.0, started + event.at_s - time.monotonic()))
            if isinstance(event, PlannedFault):
                running.append(pool.submit(plays[event.kind], field, event.chance))
            else:
                running.append(pool.submit(_submit, field, event))
        for done in running:
            done.result()


def _submit(field: Field, planned: PlannedSubmission) -> None:
    stand = field.stand
    if planned.by_sql:
        address = stand.site.address(f"video-{planned.number}")
        field.wanted.append((address, 1))
        insert = "insert into public.url_intake (url, priority) values (:url, :priority) returning intake_id"
        stand.patient_rows(insert, url=address, priority=planned.priority)
        return
    path = stand.folder / f"video-{planned.number}.mp4"
    path.write_bytes(stand.site.video + _free_box(planned.number))
    on_work.submit(field, str(path))


def _free_box(number: int) -> bytes:
    """A part of an MP4 file that every reader passes over: it makes another file of the same video."""
    content = b"%08d" % number
    return (8 + len(content)).to_bytes(4, "big") + b"free" + content


def _repair(field: Field) -> None:
    """What a person would start again; the program's own parts come back by themselves."""
    field.stand.postgres.ensure_running()
    field.stand.gcs.faults.clear()
    field.stand.model_faults.clear()
    field.stand.site.failures.clear()


def _drain(field: Field, given_up: float) -> float:
    """Wait until every submission has an end; seconds that it took. `given_up`: `time.monotonic()`."""
    started = time.monotonic()
    query = "select count(*) as n from public.intake_state where state in ('waiting', 'running')"
    while time.monotonic() < given_up:
        if field.stand.patient_rows(query)[0]["n"] == 0:
            break
        time.sleep(1)
    return time.monotonic() - started


def _quiet(field: Field) -> None:
    """A run says good-bye some moments after its last step."""
    deadline = time.monotonic() + 40.0
    while time.monotonic() < deadline and field.stand.patient_rows("select 1 from public.workers"):
        time.sleep(0.5)
    time.sleep(_STILL_S)


def _live_offenders(field: Field) -> dict[str, Sequence[str]]:
    """What is asked while the daemon runs: with it, nothing is at work any more."""
    from dagster import DagsterInstance

    database = field.stand.lakehouse.database
    foreseen = _foreseen(field)
    with DagsterInstance.get() as instance:
        slots = invariants.leaked_slots(database, instance)
    return {
        "lost": [
            *invariants.lost(database, foreseen),
            *invariants.missing(database, field.wanted, field.wanted_ids),
        ],
        "duplicated": invariants.duplicated(database),
        "stale_writes": invariants.stale_writes(database, lambda key: _content(field.stand, key)),
        "leaked_slots": slots,
        "unexplained": invariants.unexplained(database),
        "wrong": list(dict.fromkeys([*field.wrong, *broken_at_the_end(field)])),
    }


def _offenders_after(field: Field) -> dict[str, Sequence[str]]:
    """What is asked when the daemon was stopped."""
    stand = field.stand
    state, names = stand.lakehouse.settings.state, list(stand.gcs.objects(BUCKET))
    address = f"gs://{BUCKET}/"
    left = [
        *invariants.leftovers(state, stand.folder / "tmp"),
        *stray_objects(names, PREFIX),
        *stray_files(
            state / "cache",
            [address + name for name in names],
            lambda uri: stand.gcs.content(BUCKET, uri.removeprefix(address)),
        ),
    ]
    return {
        "orphan_processes": invariants.orphan_processes(stand.marker, stand.ssh.connections + stand.ssh.channels),
        "leftover_bytes": [f"{what} ({size} bytes)" for what, size in left],
        "held_locks": invariants.held_locks(stand.lakehouse.database),
    }


def _foreseen(field: Field) -> dict[int, frozenset[str]]:
    rows = field.stand.rows("select intake_id, video_id from public.url_intake")
    return {row["intake_id"]: field.foreseen[row["intake_id"]] | field.foreseen_videos[row["video_id"]] for row in rows}


def _content(stand: Stand, key: str) -> bytes | None:
    return stand.gcs.content(BUCKET, f"{PREFIX}{key}")


def _figures(field: Field, offenders: Offenders, course: _Course) -> dict[str, Figure]:
    kinds = Counter(struck.kind for struck in field.struck)
    counts = field.stand.rows(
        "select count(*) as n, count(*) filter (where url like 'upload:%') as files from url_intake"
    )
    _tell("\n".join(f"  {kind:28} {count}" for kind, count in sorted(kinds.items())))
    _tell(f"  found nobody to hit: {', '.join(course.missed) or 'none'}")
    found: dict[str, Figure] = {name: len(lines) for name, lines in offenders.items()}
    if not course.is_budget_played:
        found["budgets_passed"] = None
    return {
        "planned": course.planned,
        "faults": course.planned - len(course.missed),
        "missed": len(course.missed),
        "kinds": len(kinds),
        "submissions": counts[0]["n"],
        "files": counts[0]["files"],
        **found,
        **_recovery(field, course.given_up),
        "played_s": round(course.played_s, 1),
        "drained_s": round(course.drained_s, 1),
    }


def _recovery(field: Field, given_up: float) -> dict[str, Figure]:
    """Times from a strike to the next step of each video that it hit; one that never came counts until the end."""
    hits = [(video, struck) for struck in field.struck for video in struck.videos]
    found = [
        (field.watch.recovery_s(video, struck.at, given_up=given_up), struck.kind, video) for video, struck in hits
    ]
    slowest = sorted((hit for hit in found if hit[0] is not None), reverse=True)
    for seconds, kind, video in slowest[:5]:
        _tell(f"  {kind} cost {video} {seconds:.0f} s, struck {field.watch.strikes[video]} times by choice")
    times = [hit[0] for hit in slowest]
    return {
        "recoveries": len(times),
        "recovery_p50_s": round(statistics.median(times), 1) if times else None,
        "recovery_p95_s": round(_p95(times), 1) if times else None,
        "recovery_worst_s": round(max(times), 1) if times else None,
    }


def _p95(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, round(0.95 * (len(times) - 1)))]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
