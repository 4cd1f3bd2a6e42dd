"""The heart of a process that takes a run through its steps: it beats in PostgreSQL while the process lives.

With each beat the leases of the run's attempts are renewed, and the process learns whether it is to stop: the run was
cancelled, or the process was silent for so long that it was taken for dead and the work given to another. Then it
interrupts itself as Ctrl-C would, so that the step ends properly; if that does not help, it leaves at once.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from moments_core.errors import MomentsError
from moments_resources.history import History
from moments_resources.workers import Workers

BEAT_S = 3.0
_LAST_BEAT_S = 5.0  # for a beat on its way, when the run is over
_STOP_S = 20.0  # from the interrupt to the end; ffmpeg is killed at once, a tunnel is closed in seconds


class Heart:
    """Beats while the block is entered. One a run and process."""

    def __init__(self, workers: Workers, history: History, run_id: str) -> None:
        self._workers = workers
        self._history = history
        self._run_id = run_id
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heart", daemon=True)

    def __enter__(self) -> Self:
        self._workers.enter(self._run_id)
        self._thread.start()
        return self

    def __exit__(self, _kind: object, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join(_LAST_BEAT_S)
        with suppress(MomentsError, SQLAlchemyError):  # who can't say good-bye is found silent, its run is over
            self._workers.leave(self._run_id)

    def _live(self) -> None:
        while not self._is_over.wait(BEAT_S):
            if self._beat() is not None:
                self._stop()
                return

    def _beat(self) -> str | None:
        # A database that is away says nothing about this run. Beats begin again with it.
        with suppress(MomentsError, SQLAlchemyError):
            stop_reason = self._workers.beat(self._run_id)
            if stop_reason is None:
                self._history.renew_leases(self._run_id)
            return stop_reason
        return None

    def _stop(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        if not self._is_over.wait(_STOP_S):
            os._exit(1)  # its children die with it; its folders are removed by the next step on this machine
