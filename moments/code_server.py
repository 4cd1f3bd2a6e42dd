"""The code server: Dagster's own, whose runs are forked from a process that has imported everything they need.

A run's process that starts from nothing spends five seconds of CPU on imports, more than on a short video itself, and
Dagster starts one run after the other. docs/adr/0020-runs-are-forked.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from moments.forking import ForkingContext, start_fork_server

LOCATION = "moments"  # as in workspace.yaml: Dagster keeps the state of a sensor under it


def main(arguments: list[str]) -> None:
    """`arguments`: of `dagster api grpc`, without the module: it is ours."""
    from dagster._cli.api import grpc_command
    from dagster._grpc import server

    class ForkingServer(server.DagsterApiServer):
        """`_mp_ctx` makes the process of a run; Dagster has no setting for it."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._mp_ctx: Any = ForkingContext()

    server.DagsterApiServer = ForkingServer  # type: ignore[misc]
    start_fork_server(_folder(arguments))
    ours = ["--module-name", "moments.definitions", "--location-name", LOCATION]
    grpc_command.main(args=[*ours, *arguments], prog_name="moments.code_server")


def _folder(arguments: list[str]) -> str | None:
    """Beside our own socket, in the folder that goes with the supervisor's group also when it is killed."""
    return str(Path(arguments[arguments.index("--socket") + 1]).parent) if "--socket" in arguments else None


if __name__ == "__main__":
    main(sys.argv[1:])
