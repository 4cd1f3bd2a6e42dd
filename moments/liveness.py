"""Signs of life of the processes that the supervisor keeps: one that hangs does not end, and would be waited for.

Dagster looks at its daemon from within, after half an hour; at its code server nobody does, and each tick of a sensor
fails after a minute. docs/adr/0014-one-supervisor.md.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from moments_resources.health import PARTS

ANSWER_SILENCE_S = 60.0  # a busy machine takes half of it to load the definitions
HEARTBEAT_SILENCE_S = 300.0  # heard every 30 s, but not while a tick waits for a code server, a minute at most
_ANSWER_S = 1


class Answering:
    """A code server on a socket: for how long it has not answered when it was asked."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._answered = time.monotonic()

    def silent_s(self) -> float:
        """Takes a second where there is no answer."""
        from dagster._core.errors import DagsterUserCodeUnreachableError
        from dagster._grpc.client import DagsterGrpcClient

        with suppress(DagsterUserCodeUnreachableError):
            DagsterGrpcClient(socket=str(self._socket)).get_server_id(timeout=_ANSWER_S)
            self._answered = time.monotonic()
        return time.monotonic() - self._answered


class Heartbeats:
    """The Dagster daemon: for how long the most silent of its parts has not been heard, by a clock that nobody sets."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._heard: dict[str, tuple[float | None, float]] = dict.fromkeys(PARTS, (None, now))

    def silent_s(self) -> float:
        """Raises what Dagster does where its tables can't be read."""
        from dagster import DagsterInstance

        with DagsterInstance.get() as instance:
            beats = instance.get_daemon_heartbeats()
        now = time.monotonic()
        for part, (before, _) in self._heard.items():
            beat = beats[part].timestamp if part in beats else None
            if beat != before:
                self._heard[part] = beat, now
        return max(now - since for _, since in self._heard.values())
