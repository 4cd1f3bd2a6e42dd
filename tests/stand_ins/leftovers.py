"""What work leaves behind in this process: threads, sockets, pipes, files.

before = Leftovers()
...
before.assert_nothing_new()
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

_PATIENCE_S = 5.0  # the other end of a connection, where it lives in this process too, closes a moment later
_FILES = Path("/proc/self/fd")  # Linux; elsewhere only threads are seen


class Leftovers:
    """Takes note of what is there when it is made."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._files = _open_files()

    def new(self) -> list[str]:
        """What is there now and was not, by name."""
        threads = [repr(thread) for thread in threading.enumerate() if thread not in self._threads]
        return threads + sorted(_open_files() - self._files)

    def assert_nothing_new(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (left := self.new()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, f"left behind: {left}"


def our_threads() -> set[str]:
    """The names of this process's threads, those of stand-ins aside."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("stand-in")}


def _open_files() -> set[str]:
    found = set()
    for link in _FILES.iterdir() if _FILES.exists() else ():
        try:
            found.add(str(link.readlink()))
        except OSError:  # the one that listed the folder
            continue
    return {name for name in found if not name.startswith("/proc/")}
