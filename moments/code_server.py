"""The code server: Dagster's own, whose runs are forked from a process that has imported everything they need.

A run's process that starts from nothing spends five seconds of CPU on imports, more than on a short video itself, and
Dagster starts one run after the other. docs/adr/0020-runs-are-forked.md.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

LOCATION = "moments"  # as in workspace.yaml: Dagster keeps the state of a sensor under it

#: What the process of a run imports sooner or later. None of them may start a thread or open anything: after a fork
#: it would not be there, or be open twice.
PRELOADED = (
    "dagster._grpc.impl",
    "dagster._core.executor.in_process",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.workspace.autodiscovery",
    "moments.dagster_storage",
    "moments.definitions",
    "moments.remote_models",
    "moments.services",
    "moments_assets.making",
    "moments_core.finder.find",
    "moments_resources.media.proxy",
    "moments_resources.media_io",
    "moments_resources.models.chat_finder",
    "moments_resources.models.link",
    "moments_resources.models.parakeet",
    "moments_resources.models.progress",
    "moments_resources.models.registry",
    "moments_resources.models.served",
    "moments_resources.models.text_refiner",
    "moments_resources.models.tunnel",
    "moments_resources.models.video_refiner",
    "moments_resources.speech_pocketsphinx",
    "moments_resources.step",
    "moments_resources.table_io",
    "moments_resources.workers",
    "anyio._backends._asyncio",
    "av",
    "ffmpeg",
    "httpcore2",
    "imageio_ffmpeg",
    "openai.resources.chat",
    "pandas",
    "psycopg2.extras",
    "upath",
)


def main(arguments: list[str]) -> None:
    """`arguments`: of `dagster api grpc`, without the module: it is ours."""
    from dagster._cli.api import grpc_command
    from dagster._grpc import server

    class ForkingServer(server.DagsterApiServer):
        """`_mp_ctx` makes the process of a run; Dagster has no setting for it."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._mp_ctx: Any = multiprocessing.get_context("forkserver")

    server.DagsterApiServer = ForkingServer  # type: ignore[misc]
    _start_fork_server(_folder(arguments))
    ours = ["--module-name", "moments.definitions", "--location-name", LOCATION]
    grpc_command.main(args=[*ours, *arguments], prog_name="moments.code_server")


def _start_fork_server(folder: str | None) -> None:
    """It imports while the code server loads. `folder`: where its socket goes; by default the one of temporary files.

    Should it die, multiprocessing starts another with the next run, and the runs that it has forked go on.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else numpy's import starts a thread a core
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    tempfile.tempdir = folder
    try:
        forkserver.ensure_running()
    finally:
        tempfile.tempdir = None


def _folder(arguments: list[str]) -> str | None:
    """Beside our own socket, in the folder that goes with the supervisor's group also when it is killed."""
    return str(Path(arguments[arguments.index("--socket") + 1]).parent) if "--socket" in arguments else None


if __name__ == "__main__":
    main(sys.argv[1:])
