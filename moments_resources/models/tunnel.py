"""A tunnel to a port that only an SSH host can reach.

Each tunnel has a thread that opens it, waits, and closes it. An interrupt (Ctrl-C, SIGTERM, an engine's cancel) is
raised in the main thread, at any line; were the tunnel opened there, it would leave half a tunnel behind.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from moments_core.errors import CancelledError, NetworkError, ResourceError
from moments_core.model_entry import Ssh

if TYPE_CHECKING:
    from moments_resources.models.forwarding import Forwarder
    from moments_resources.models.ssh_connection import SshConnection

CONNECT_S = 10.0
_PHASES = 5  # to resolve the name, connect, agree on keys, log in, reach the remote port
_CLOSE_S = 15.0  # three threads at most 5 s each; only one that waits for a name server can take longer


class Tunnel:
    """A port of 127.0.0.1 that leads to `remote_host:remote_port` as `ssh.host` sees it. Opened once, closed once.

    `connect_s`: for each phase of opening it.
    """

    def __init__(self, ssh: Ssh, remote_host: str, remote_port: int, *, connect_s: float = CONNECT_S) -> None:
        self._ssh = ssh
        self._remote = (remote_host, remote_port)
        self._connect_s = connect_s
        self._connection: SshConnection | None = None
        self._port = 0
        self._fault: BaseException | None = None
        self._is_ready = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"tunnel to {ssh.host}", daemon=True)

    def open(self) -> int:
        """The local port, once the remote port takes connections.

        Raises SettingsError for what stays wrong (key file, known_hosts, a host key that differs, a key that is
        refused), NetworkError or ServiceError for what may pass. Then nothing is left of it.
        """
        limit_s = _PHASES * self._connect_s
        try:
            self._thread.start()
            is_ready = self._is_ready.wait(limit_s)
        except BaseException:
            self.close()
            raise
        if not is_ready:
            self.close()
            raise NetworkError(f"The tunnel through {self._ssh.host} was not open after {limit_s:.0f} s: try again.")
        if self._fault is not None:
            self._thread.join(_CLOSE_S)
            raise self._fault
        return self._port

    def close(self) -> None:
        """Leave no thread, port or socket; again and again if you like, and while it is being opened."""
        self._is_over.set()
        if self._connection is not None:
            self._connection.abort()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _live(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            if self._is_ready.is_set():
                raise
            self._fault = error  # open() raises it, in the thread that called it
        finally:
            self._is_ready.set()

    def _serve(self) -> None:
        from moments_resources.models.forwarding import Forwarder
        from moments_resources.models.ssh_connection import SshConnection

        self._connection = SshConnection(self._ssh, self._remote, connect_s=self._connect_s)
        if self._is_over.is_set():  # close() came before there was a connection to abort
            raise CancelledError(f"The tunnel through {self._ssh.host} was closed before it was open.")
        forwarder = Forwarder(self._connection)
        try:
            self._port = _started(forwarder)
            self._is_ready.set()
            self._is_over.wait()
        finally:
            forwarder.stop()


def _started(forwarder: Forwarder) -> int:
    from sshtunnel import BaseSSHTunnelForwarderError

    try:
        forwarder.start()
        return int(forwarder.local_bind_port)
    except BaseSSHTunnelForwarderError:
        raise ResourceError("No local port for a tunnel could be opened: this machine may be out of them.") from None
