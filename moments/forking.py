"""Processes of runs, forked from one that has imported everything they need: the fork server of multiprocessing.

Two things are otherwise here. A process whose fork server is gone is looked for: multiprocessing takes it for dead, and
Dagster would report a run as failed that is at work. And a run does not keep its fork server alive when the code server
of both is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from contextlib import suppress
from multiprocessing import context, forkserver, popen_forkserver, process
from typing import Any

import psutil

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


_UNKNOWN = 255  # what multiprocessing gives as exit code when the fork server can't be asked any more


class ForkedPopen(popen_forkserver.Popen):
    """Knows its process also when the fork server is gone."""

    def __init__(self, process_obj: process.BaseProcess) -> None:
        super().__init__(process_obj)
        try:
            self._process: psutil.Process | None = psutil.Process(self.pid)
        except psutil.NoSuchProcess:
            self._process = None

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, or None while the process lives; unless `flag` is WNOHANG, waits for its end."""
        code = super().poll(flag)
        if code == _UNKNOWN and self._process and _lives(self._process):
            if flag == os.WNOHANG:
                self.returncode = None
                return None
            self._process.wait()
        return code


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class ForkedProcess(context.ForkServerProcess):
    """A process that is forked from the fork server."""

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> ForkedPopen:  # noqa: N802 - multiprocessing's name
        return ForkedPopen(process_obj)

    def run(self) -> None:
        """Let the fork server go when the code server goes: it waits until nobody holds this end of a pipe."""
        ours: Any = forkserver._forkserver  # noqa: SLF001 - there is no other way to it
        held, ours._forkserver_alive_fd = ours._forkserver_alive_fd, None  # noqa: SLF001
        if held is not None:
            os.close(held)
        super().run()


class ForkingContext(context.ForkServerContext):
    """multiprocessing, with these processes."""

    Process = ForkedProcess


def start_fork_server(folder: str | None = None) -> None:
    """Let it import while the caller loads. `folder`: where its socket goes; by default the one of temporary files.

    Should it die, multiprocessing starts another with the next process, and those that it has forked go on.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else numpy's import starts a thread a core
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    tempfile.tempdir = folder
    try:
        forkserver.ensure_running()
    finally:
        tempfile.tempdir = None
