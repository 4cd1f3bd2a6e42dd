"""What a supervised stand-in does (supervised.py); apart from it, so that it starts without our imports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

_SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]


def work(notes: Path, name: str) -> None:
    note(notes, name, os.getpid())
    if name != "hasty":
        note(notes, "below", subprocess.Popen(_SLEEP).pid)
        time.sleep(600)


def note(notes: Path, name: str, pid: int) -> None:
    with notes.open("a") as file:
        file.write(f"{name} {pid} {time.monotonic()}\n")


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])
