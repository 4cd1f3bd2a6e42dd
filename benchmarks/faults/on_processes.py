"""Faults of processes: killed, frozen, cut off from power."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from benchmarks.faults.field import Field
from benchmarks.faults.plan import STAGES
from benchmarks.faults.processes import marked, role_of, send

Play = Callable[[Field, float], None]

_PROCESSES = {
    "code_server": "code server",
    "fork_server": "fork server",
    "dagster_daemon": "Dagster daemon",
    "supervisor": "supervisor",
}
_FROZEN = ("code_server", "dagster_daemon", "supervisor")
_SILENCE_S = 20.0  # after which a worker is taken for dead (moments_sensors/reaper.py)
_POLL_S = 0.02


def faults() -> dict[str, Play]:
    """All of this file, by kind."""
    return {
        **{f"worker_killed_in_{stage}": _worker_killed(stage) for stage in STAGES},
        **{f"{name}_killed": _killed(f"{name}_killed", role) for name, role in _PROCESSES.items()},
        **{f"{name}_frozen": _frozen(f"{name}_frozen", _PROCESSES[name]) for name in _FROZEN},
        "worker_frozen": _worker_frozen,
        "ffmpeg_killed": _ffmpeg_killed,
        "postgres_killed": _postgres_killed,
        "postgres_frozen": _postgres_frozen,
        "power_cut": _power_cut,
        "tick_broken_off": _tick_broken_off,
        "second_daemon": _second_daemon,
    }


def _worker_killed(stage: str) -> Play:
    kind = f"worker_killed_in_{stage}"

    def play(field: Field, _chance: float) -> None:
        if found := _victim(field, kind, stage):
            video_id, worker = found
            field.hit(kind, [video_id])
            send([worker], signal.SIGKILL)

    return play


def _worker_frozen(field: Field, chance: float) -> None:
    """Shorter or longer than the silence after which it is taken for dead; should it live, it goes on afterwards."""
    if found := _victim(field, "worker_frozen"):
        video_id, worker = found
        field.hit("worker_frozen", [video_id])
        send([worker], signal.SIGSTOP)
        time.sleep(_SILENCE_S * (0.3 + 1.5 * chance))
        send([worker], signal.SIGCONT)


def _ffmpeg_killed(field: Field, _chance: float) -> None:
    deadline = time.monotonic() + field.patience_s
    while time.monotonic() < deadline:
        for row in field.watch.at_work():
            with suppress(psutil.Error):
                for child in psutil.Process(row["pid"]).children():
                    if role_of(child) == "ffmpeg":
                        field.hit("ffmpeg_killed", [row["video_id"]])
                        send([child], signal.SIGKILL)
                        return
        time.sleep(_POLL_S)
    field.missed.append("ffmpeg_killed")


def _killed(kind: str, role: str) -> Play:
    def play(field: Field, _chance: float) -> None:
        with field.outage():
            if victims := _wait_for(field, role):
                field.hit_all(kind)
                send(victims, signal.SIGKILL)
            else:
                field.missed.append(kind)

    return play


def _frozen(kind: str, role: str) -> Play:
    def play(field: Field, chance: float) -> None:
        with field.outage():
            victims = _wait_for(field, role)
            if not victims:
                field.missed.append(kind)
                return
            field.hit_all(kind)
            _freeze(victims, 5 + 10 * chance)

    return play


def _postgres_killed(field: Field, chance: float) -> None:
    with field.outage():
        field.hit_all("postgres_killed")
        send(field.stand.postgres_processes(), signal.SIGKILL)
        time.sleep(5 * chance)
        field.stand.postgres.ensure_running()


def _postgres_frozen(field: Field, chance: float) -> None:
    with field.outage():
        victims = field.stand.postgres_processes()
        field.hit_all("postgres_frozen")
        _freeze(victims, 5 + 10 * chance)


def _power_cut(field: Field, chance: float) -> None:
    """All processes of the program and PostgreSQL at once; the stand-ins are other machines."""
    with field.outage():
        stand = field.stand
        field.hit_all("power_cut")
        stand.keeping.clear()
        send([*stand.postgres_processes(), *marked(stand.marker)], signal.SIGKILL)
        send(marked(stand.marker), signal.SIGKILL)  # what was just being started
        time.sleep(3 * chance)
        stand.postgres.ensure_running()
        stand.keeping.set()


def _tick_broken_off(field: Field, chance: float) -> None:
    """A new submission, and the daemon or its code server killed some time after it: at any point of the tick."""
    with field.outage():
        stand = field.stand
        address = stand.site.address(f"tick-{time.monotonic_ns()}")
        field.wanted.append((address, 1))
        stand.patient_rows("insert into public.url_intake (url) values (:url) returning 1", url=address)
        time.sleep(8 * chance)
        field.hit_all("tick_broken_off")
        role = "Dagster daemon" if int(chance * 1000) % 2 else "code server"
        send(stand.processes(role), signal.SIGKILL)


def _second_daemon(field: Field, _chance: float) -> None:
    """It must end by itself; but where the first has just died, it is the daemon."""
    field.hit("second_daemon")
    second = field.stand.start_daemon()
    deadline = time.monotonic() + 2 * field.patience_s
    while time.monotonic() < deadline:
        if second.poll() is not None:
            return
        if [child for child in field.stand.children if child.poll() is None] == [second]:
            return
        time.sleep(0.2)
    field.wrong.append("two daemons were at work at once")
    send([psutil.Process(second.pid)], signal.SIGKILL)


def _freeze(processes: list[psutil.Process], seconds: float) -> None:
    send(processes, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        send(processes, signal.SIGCONT)


def _victim(field: Field, kind: str, stage: str | None = None) -> tuple[str, psutil.Process] | None:
    """(video, process) of an attempt that runs; None, which is noted, where there is none, or its process has ended."""
    row = field.victim(kind, stage)
    if row is None:
        return None
    for process in marked(field.stand.marker):
        if process.pid == row["pid"]:
            return row["video_id"], process
    field.missed.append(kind)
    return None


def _wait_for(field: Field, role: str) -> list[psutil.Process]:
    deadline = time.monotonic() + field.patience_s
    while time.monotonic() < deadline:
        if found := field.stand.processes(role):
            return found
        time.sleep(0.1)
    return []
