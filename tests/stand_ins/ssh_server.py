"""A real SSH server for tests and benchmarks: key login, and forwarding to ports of this machine's loopback alone.

    with SshServer(tmp_path) as server, ModelServer() as models:
        entry = models.entry(ssh=server.entry_fields())
        ...
        assert server.connections == 1                 # open now
        server.drop_connections()

It lives in a thread of this process; ssh_process.py starts one that can be frozen and killed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncssh

from tests.stand_ins.ssh_keys import HOST, USER, SshKeys

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_WAIT_S = 30.0  # only a hang takes as long

_T = TypeVar("_T")


class SshServer:
    """An SSH server in a thread of its own, on 127.0.0.1.

    `connections` and `channels`: open now; `connections_ever`, `channels_ever` and `logins_tried`: since the start.
    `refuses_keys`, `breaks_logins`, `login_s` (how long one takes) and `refuses_forwarding` hold from the next one on.
    """

    def __init__(self, folder: Path, *, host_key_types: tuple[str, ...] = ("ssh-ed25519",), port: int = 0) -> None:
        self.keys = SshKeys(folder, host_key_types)
        self.port = port
        self.refuses_keys = False
        self.breaks_logins = False
        self.login_s = 0.0
        self.refuses_forwarding = False
        self.logins_tried = 0
        self.connections_ever = 0
        self.channels_ever = 0
        self._open: set[asyncssh.SSHServerConnection] = set()
        self._logins: set[_Login] = set()
        self._loop = asyncio.new_event_loop()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-in ssh server")

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def channels(self) -> int:
        return sum(login.channels for login in list(self._logins))

    def entry_fields(self) -> dict[str, Any]:
        """The block `ssh` of an entry that leads through this server."""
        return self.keys.entry_fields(self.port)

    def start(self) -> None:
        self._thread.start()
        self.resume()

    def stop(self) -> None:
        self.pause()
        self._in_loop(self._ended_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_S)
        self._loop.close()

    def pause(self) -> None:
        """End all connections, and listen no more."""
        self._in_loop(self._closed())

    def resume(self) -> None:
        """Listen, on the same port as before."""
        self._in_loop(self._listening())
        if not self.keys.known_hosts.exists():
            self.keys.make_known(self.port)

    def drop_connections(self) -> None:
        """Break all connections without a word; new ones are welcome."""
        self._in_loop(self._dropped())

    def show_other_host_keys(self) -> None:
        """As after a new set-up of the host, or as an attacker does."""
        self.keys.replace_host_keys()
        self.pause()
        self.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _in_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _listening(self) -> None:
        self._acceptor = await asyncssh.create_server(
            lambda: _Login(self),
            HOST,
            self.port,
            server_host_keys=self.keys.host,
            password_auth=False,
            kbdint_auth=False,
            reuse_address=True,
        )
        self.port = self._acceptor.get_port()

    async def _closed(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
            self._acceptor = None
        await self._dropped()

    async def _dropped(self) -> None:
        gone = list(self._open)
        for connection in gone:
            connection.abort()
        await asyncio.gather(*(connection.wait_closed() for connection in gone))

    async def _ended_tasks(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_default_executor()


class _Login(asyncssh.SSHServer):
    """One connection: who may come in, and where to."""

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection | None = None
        self._forwarders: set[asyncssh.SSHForwarder] = set()

    @property
    def channels(self) -> int:
        return len(self._forwarders)

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server.connections_ever += 1
        self._server._open.add(conn)
        self._server._logins.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh calls it so
        if self._connection is not None:
            self._server._open.discard(self._connection)
            self._server._logins.discard(self)
        self._close_forwarders()

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._server.logins_tried += 1
        if self._server.breaks_logins and self._connection is not None:
            self._connection.abort()
        await asyncio.sleep(self._server.login_s)
        is_ours = key.public_data == self._server.keys.user.public_data
        return is_ours and username == USER and not self._server.refuses_keys

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,  # noqa: ARG002
        orig_port: int,  # noqa: ARG002
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        if self._server.refuses_forwarding or dest_host not in _LOOPBACK or self._connection is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not from here")
        return self._forward(self._connection, dest_host, dest_port)

    async def _forward(self, connection: asyncssh.SSHServerConnection, host: str, port: int) -> Any:
        forwarder = await connection.forward_connection(host, port)
        self._forwarders.add(forwarder)
        self._server.channels_ever += 1
        lost = forwarder.connection_lost

        def connection_lost(error: Exception | None) -> None:
            self._forwarders.discard(forwarder)
            lost(error)

        forwarder.connection_lost = connection_lost  # type: ignore[method-assign]
        if connection not in self._server._open:
            self._close_forwarders()
        return forwarder

    def _close_forwarders(self) -> None:
        """asyncssh leaves those open whose channel was not confirmed yet when the connection was lost."""
        for forwarder in list(self._forwarders):
            forwarder.close()
        self._forwarders.clear()


def main() -> None:
    """Serve from a folder on a port until standard input ends: `python -m tests.stand_ins.ssh_server FOLDER PORT`."""
    with SshServer(Path(sys.argv[1]), port=int(sys.argv[2])) as server:
        print(server.port, flush=True)  # noqa: T201 - whoever started it waits for the port
        sys.stdin.read()


if __name__ == "__main__":
    main()
