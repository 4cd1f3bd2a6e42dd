"""A time limit for a whole exchange with http.client.

A socket's own timeout is one for each read: a server that sends a byte now and then would hold us for ever.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any


class Limited:
    """As much of a socket as http.client uses; all that is sent and read after `seconds` raises TimeoutError."""

    def __init__(self, connected: socket.socket, seconds: float) -> None:
        self._socket = connected
        self._deadline = time.monotonic() + seconds

    def sendall(self, data: Any) -> None:
        self.set_timeout()
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - http.client reads bytes
        return io.BufferedReader(_Reader(self, self._socket))

    def close(self) -> None:
        self._socket.close()

    def set_timeout(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


class _Reader(io.RawIOBase):
    """Reads from the socket, which stays open until this is closed too: http.client closes the socket first."""

    def __init__(self, limited: Limited, connected: socket.socket) -> None:
        super().__init__()
        self._limited = limited
        self._raw = connected.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._limited.set_timeout()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
