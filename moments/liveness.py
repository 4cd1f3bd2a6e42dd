"""Signs of life of the processes that the supervisor keeps: one that hangs does not end, and would be waited for.

Dagster looks at its daemon from within, after half an hour; at its code server nobody does, and each tick of a sensor
fails after a minute. docs/adr/0014-one-supervisor.md.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from moments_resources.health import PARTS

if TYPE_CHECKING:
    from moments_sensors.reaper import Silence

ANSWER_SILENCE_S = 60.0  # a busy machine takes half of it to load the definitions
HEARTBEAT_SILENCE_S = 300.0  # heard every 30 s, but not while a tick waits for a code server, a minute at most
_ANSWER_S = 1


class Answering:
    """A code server on a socket: for how long it has not answered when it was asked."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._answers = 0
        self._silence = _silence()

    def silent_s(self) -> float:
        """Takes a second where there is no answer."""
        from dagster._core.errors import DagsterUserCodeUnreachableError
        from dagster._grpc.client import DagsterGrpcClient

        with suppress(DagsterUserCodeUnreachableError):
            DagsterGrpcClient(socket=str(self._socket)).get_server_id(timeout=_ANSWER_S)
            self._answers += 1
        return self._silence.look({"answers": self._answers})["answers"]


class Heartbeats:
    """The Dagster daemon: for how long the most silent of its parts has not been heard, by a clock that nobody sets."""

    def __init__(self) -> None:
        self._silence = _silence()

    def silent_s(self) -> float:
        """Raises what Dagster does where its tables can't be read."""
        from dagster import DagsterInstance

        with DagsterInstance.get() as instance:
            beats = instance.get_daemon_heartbeats()
        return max(self._silence.look({part: beats.get(part) for part in PARTS}).values())


def _silence() -> Silence:
    from moments_sensors.reaper import Silence  # which imports Dagster

    return Silence()
