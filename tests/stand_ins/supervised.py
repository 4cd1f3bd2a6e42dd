"""A supervisor over stand-ins of Dagster's processes, which start in a moment.

`python -m tests.stand_ins.supervised NOTES` works on the lakehouse that the environment names. Each process writes a
line `NAME PID TIME` into the file NOTES when it starts: `daemon` and `server`, each with a child of its own
(`below`), which nothing but the group ends, and `hasty`, which ends at once. The hook writes `tick`. While there is a
file NOTES.silent, `server` gives no sign of life; it hangs after a second of that.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

from moments.cli_support import errors_shown
from moments.daemon import group_folder
from moments.process_group import ProcessGroup
from moments.services import up
from moments.settings import load_settings
from moments.supervisor import Program, Pulse, Supervisor, answer_signals
from moments_core.errors import ServiceError
from tests.stand_ins.supervised_child import note

MODULE = "tests.stand_ins.supervised"
CHILD = "tests.stand_ins.supervised_child"


def supervise(notes: Path) -> None:
    def tick() -> None:
        note(notes, "tick", os.getpid())
        raise ServiceError("The hook's own sentence.")

    answer_signals()
    with errors_shown(), suppress(KeyboardInterrupt), group_folder() as folder:
        note(notes, folder, os.getpid())
        supervisor = Supervisor(
            up(load_settings()),
            ProcessGroup(Path(folder)),
            daemon=_program("daemon", notes),
            others=[_program("server", notes, _pulse(notes)), _program("hasty", notes)],
            hooks=[tick],
        )
        supervisor.run(lambda: None)


def _program(name: str, notes: Path, pulse: Pulse | None = None) -> Program:
    return Program(name, CHILD, [str(notes), name], pulse=pulse)


def _pulse(notes: Path) -> Pulse:
    silent = notes.with_suffix(".silent")
    return Pulse(lambda: math.inf if silent.exists() else 0.0, longest_s=1.0)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
