"""The processes of a fault run, known by a variable in their environment that each child inherits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MARKER = "MOMENTS_FAULT_RUN"

#: What a process is, by words of its command line; the first that fits.
ROLES = {
    "code server": ("moments.code_server",),
    "Dagster daemon": ("dagster._daemon",),
    "supervisor": ("moments.cli", "daemon"),
}


def marked(marker: str) -> list[psutil.Process]:
    """All that live, whoever their parent is by now."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError, psutil.Error):  # it has just ended
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(int(folder.name)))
    return [process for process in found if _lives(process)]


def standing_in(folder: Path) -> list[psutil.Process]:
    """Those whose working folder it is: PostgreSQL stands in its data."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == str(folder):
                found.append(process)
    return found


def role_of(process: psutil.Process) -> str:
    """One of ROLES, `fork server`, `run worker`, `ffmpeg`, or the name of the program."""
    try:
        words, name = process.cmdline(), process.name()
    except psutil.Error:
        return "gone"
    if "-S" in words[:3]:  # the guard of a group, or a launcher on its way to become what it starts
        return "guard"
    if any("multiprocessing.forkserver" in word for word in words):
        return "fork server" if _is_below_code_server(process) else "run worker"
    for role, needed in ROLES.items():
        if all(any(need == word for word in words) for need in needed):
            return role
    return "ffmpeg" if name.startswith("ffmpeg") else name


def _is_below_code_server(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
    except psutil.Error:
        return False
    return parent is not None and role_of(parent) == "code server"


def with_role(marker: str, role: str) -> list[psutil.Process]:
    return [process for process in marked(marker) if role_of(process) == role]


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> int:
    """How many of them got the signal."""
    sent = 0
    for process in processes:
        with suppress(psutil.Error, ProcessLookupError):
            process.send_signal(number)
            sent += 1
    return sent


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
