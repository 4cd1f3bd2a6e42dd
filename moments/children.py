"""Ending the processes that we started, each the head of a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence


def end_all(children: Sequence[subprocess.Popen[bytes]], *, asking: signal.Signals, patience_seconds: float) -> None:
    """Ask all that still run to end; after `patience_seconds` in all, kill those that have not, with their groups."""
    for child in children:
        if child.poll() is None:
            child.send_signal(asking)
    deadline = time.monotonic() + patience_seconds
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
