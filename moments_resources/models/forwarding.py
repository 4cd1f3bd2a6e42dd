"""sshtunnel's forwarder, over a connection that we made, with every connection through it accounted for.

Imported lazily, for sshtunnel and paramiko. Written against sshtunnel 0.5: the two methods that are overridden below
have no public name there.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sshtunnel import SSHTunnelForwarder, _ThreadingForwardServer  # noqa: TID253 - imported where a tunnel is opened

if TYPE_CHECKING:
    from moments_resources.models.ssh_connection import SshConnection

_JOIN_S = 5.0  # a handler that lost both of its ends returns at once

_SILENT = logging.Logger("moments.tunnel", logging.CRITICAL + 1)  # sshtunnel would print to stderr otherwise


class _Server(_ThreadingForwardServer):  # type: ignore[misc]  # sshtunnel has no types
    """Listens on the local port. sshtunnel's own forgets its threads, and waits for clients that don't read."""

    request_queue_size = 128  # with socketserver's 5, eight calls that start together waited 1 s for a repeated SYN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listener: threading.Thread | None = None
        self._connections: dict[threading.Thread, socket.socket] = {}

    def serve_forever(self, poll_interval: float = 0.1) -> None:
        self._listener = threading.current_thread()
        super().serve_forever(poll_interval)

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._connections[thread] = request
        thread.start()

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.pop(threading.current_thread(), None)

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """Nothing: the connection is closed next, and whoever made it knows best what that means."""

    def end(self) -> None:
        """Stop listening and end all connections."""
        if self._listener is not None:
            self.shutdown()
            self._listener.join(_JOIN_S)
        self.server_close()
        left = list(self._connections.items())
        for _, request in left:
            with suppress(OSError):  # it ended by itself
                request.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _JOIN_S
        for thread, _ in left:
            thread.join(max(0.0, deadline - time.monotonic()))


class Forwarder(SSHTunnelForwarder):  # type: ignore[misc]  # sshtunnel has no types
    """Forwards an ephemeral port of 127.0.0.1 to `connection.remote`."""

    _server_list: list[_Server]

    def __init__(self, connection: SshConnection) -> None:
        self._connection = connection
        super().__init__(
            ("not-used.invalid", 22),
            ssh_username="not-used",
            ssh_password="not-used",  # noqa: S106 - sshtunnel demands something to log in with; the connection does that
            ssh_config_file=None,
            allow_agent=False,
            host_pkey_directories=[],
            local_bind_address=("127.0.0.1", 0),
            remote_bind_address=connection.remote,
            logger=_SILENT,
        )

    def stop(self, force: bool = True) -> None:  # noqa: ARG002 - sshtunnel calls it so
        """Close everything. The connection first: that wakes all who wait for it."""
        self._connection.close()
        for server in self._server_list:
            server.end()
        self._server_list = []
        self.is_alive = False

    def _connect_to_gateway(self) -> None:
        self._transport = self._connection.connect()

    def _make_ssh_forward_server_class(self, remote_address_: tuple[str, int]) -> type[_Server]:  # noqa: ARG002
        return _Server
