"""One group for all that the supervisor starts and all that those start: it is gone when the supervisor is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from moments_resources.processes import dying_with_parent

# The kernel ends the children of a supervisor that was killed with -9, but not theirs: a run's process must outlive
# its code server, so it can't ask to die with it. The guard leads the group and reads from a pipe that the supervisor
# alone holds open, without ever writing to it.
_GUARD = (
    "import os, shutil, signal, sys\n"
    "for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
    "sys.stdin.buffer.read()\n"
    "shutil.rmtree(sys.argv[1], ignore_errors=True)\n"
    "os.killpg(0, signal.SIGKILL)\n"
)


class ProcessGroup:
    """`folder` is private to the group and goes with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = self._start_guard(0)
        self._id = self._guard.pid

    def see_to_guard(self) -> None:
        """Start the guard again if somebody ended it."""
        if self._guard.poll() is None:
            return
        try:
            self._guard = self._start_guard(self._id)
        except PermissionError:  # nobody is left in the group, so it is no more
            self._guard = self._start_guard(0)
            self._id = self._guard.pid

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """A process of the group, in the folder that the user stands in: `.env` means the same to it as to us."""
        self.see_to_guard()
        return subprocess.Popen(  # noqa: S603 - the commands are ours
            dying_with_parent(command), stdin=subprocess.DEVNULL, process_group=self._id
        )

    def end(self, asked: Mapping[subprocess.Popen[bytes], signal.Signals], patience_seconds: float) -> None:
        """Ask each of `asked` to end by its signal; after `patience_seconds` at the latest, kill the whole group.

        A second Ctrl-C ends the patience.
        """
        try:
            for process, number in asked.items():
                process.send_signal(number)
            deadline = time.monotonic() + patience_seconds
            for process in asked:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            self._kill()
            for process in (*asked, self._guard):
                process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._id, signal.SIGKILL)

    def _start_guard(self, group: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", _GUARD, str(self._folder)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, process_group=group)  # noqa: S603 - a script of ours


def kill_with_all_below(process: subprocess.Popen[bytes]) -> None:
    """At once, without asking: the process and what it has started."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    process.kill()
    for one in below:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
