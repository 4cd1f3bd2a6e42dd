"""Faults of the work itself: cancelled, submitted late or fifty times, bad for good; the clock set, the disk full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.faults.cancelling import run_cancelled, video_cancelled
from benchmarks.faults.clock import STEP
from benchmarks.faults.field import FAILED_FOR_GOOD, Field
from moments_core.errors import MomentsError
from moments_core.options import Options

Play = Callable[[Field, float], None]

AT_ONCE = 50


def faults() -> dict[str, Play]:
    """All of this file, by kind."""
    return {
        "run_cancelled": run_cancelled,
        "video_cancelled": video_cancelled,
        "disk_full": _disk_full,
        "clock_step": _clock_step,
        "late_commit": _late_commit,
        "fifty_at_once": _fifty_at_once,
        "poison_video": _poison_video,
    }


def _disk_full(field: Field, chance: float) -> None:
    """Scratch is a small disk of its own; something fills it for some seconds."""
    ballast = _scratch(field) / ".ballast"
    with field.outage():
        field.hit_all("disk_full")
        try:
            _fill(ballast)
            time.sleep(5 + 7 * chance)
        finally:
            ballast.unlink(missing_ok=True)


def _scratch(field: Field) -> Path:
    return field.stand.lakehouse.settings.state / "scratch"


def _fill(ballast: Path) -> None:
    piece = b"\0" * 2**16
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(piece)


def _clock_step(field: Field, chance: float) -> None:
    """The clock of PostgreSQL goes forward by up to two minutes, beyond any lease; or back by up to 20 s."""
    seconds = 180 * chance - 20 if chance > 0.3 else -60 * chance - 2
    with field.outage():
        field.hit_all("clock_step")
        with suppress(MomentsError, SQLAlchemyError), field.stand.lakehouse.database.begin() as connection:
            connection.execute(text(STEP), {"seconds": seconds})


def _late_commit(field: Field, chance: float) -> None:
    """A row with a low number that appears when higher ones have been taken in."""
    address = field.stand.site.address(f"late-{time.monotonic_ns()}")
    field.wanted.append((address, 1))
    field.hit("late_commit")
    while True:  # PostgreSQL may be killed meanwhile, and who submits tries again
        with suppress(MomentsError, SQLAlchemyError), field.stand.lakehouse.database.begin() as connection:
            connection.execute(text("insert into public.url_intake (url) values (:url)"), {"url": address})
            time.sleep(3 + 9 * chance)
            break
        time.sleep(1)


def _fifty_at_once(field: Field, _chance: float) -> None:
    """One URL; they are to become one run, unless it fails."""
    address = field.stand.site.address(f"fifty-{time.monotonic_ns()}")
    field.wanted.append((address, AT_ONCE))
    field.hit("fifty_at_once")
    barrier = threading.Barrier(AT_ONCE)

    def submit_one() -> None:
        barrier.wait()
        submit(field, address)

    threads = [threading.Thread(target=submit_one, name="submitter") for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _poison_video(field: Field, _chance: float) -> None:
    field.hit("poison_video")
    field.foreseen[submit(field, field.stand.site.address(f"poison-{time.monotonic_ns()}"))] = FAILED_FOR_GOOD


def submit(field: Field, source: str) -> int:
    """Put a source in through `Intake.submit`, again until it is in and taken; the number of the row."""
    intake = field.stand.lakehouse.intake
    while True:
        try:
            row = intake.submit(source, Options(), submitted_by="fault run")
            field.wanted_ids.append(row.intake_id)
            refusal = intake.refusal(row)
        except (MomentsError, SQLAlchemyError):
            time.sleep(1)
            continue
        if refusal is None:
            return row.intake_id
        # The store was away while the file went up: whoever submitted it was told so at once.
        field.foreseen[row.intake_id] = frozenset({f"failed {refusal[0]}"})
        time.sleep(1)
