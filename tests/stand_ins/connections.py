"""An HTTP server on a port of 127.0.0.1, a thread a connection, that can end all of them: what stand-ins stand on.

A stand-in that hangs must not hang its test: closing the server wakes every thread that waits, ends its connection
and joins it. All threads have names that begin with "stand-in", so that a test for what is left tells them from ours.
"""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Connections(HTTPServer):
    """Serves from `start` to `close`. `defects`: what threads failed with; a client that went away is none."""

    request_queue_size = 1024

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.defects: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.02,), name="stand-in")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._accepting.start()

    def close(self) -> None:
        """End every connection and thread; idempotent. Raises what a thread failed with: that is a defect here."""
        if self._accepting.is_alive():
            self.shutdown()
            self._accepting.join()
            self.end_connections()
            self.server_close()
            for thread in self._threads:
                thread.join()
        if self.defects:
            raise self.defects.pop()

    def end_connections(self) -> None:
        """End all open connections, and go on serving new ones."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # gone already
                    continue

    # Not by ThreadingMixIn: its threads have names like those of the tunnels' threads, which tests look for.
    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="stand-in connection")
        self._threads = [*(thread for thread in self._threads if thread.is_alive()), thread]
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):  # an OSError: the client went away
            self.defects.append(error)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - kept, and raised by close()
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
