"""A SOCKS5 proxy on loopback that connects to allowed addresses only.

Checking a URL before it is fetched is not enough: redirects, playlists and pages name further hosts, a host name can
answer a public address to the check and 127.0.0.1 to the connection (DNS rebinding), and 127.0.0.1 can be written in
a dozen ways. So the check stands where the connection is made: whoever uses the proxy has no resolver and no socket
of their own, and the guard connects to the very address that it judged.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Self, TypeAlias

from moments_core.source import IPAddress, is_private

Policy: TypeAlias = Callable[[IPAddress], bool]

CONNECT_S = 15.0  # three SYN retries on Linux (1 + 2 + 4 s), and room for a slow line
_HANDSHAKE_S = 10.0  # the client is on this machine: anything slower is not a client
_FLUSH_S = 5.0  # for the last bytes of a connection that ended well
_CHUNK = 256 * 1024  # bytes a read; 64 KiB halves the throughput of one connection

_VERSION, _AUTH_VERSION, _BY_PASSWORD, _NO_METHOD, _CONNECT = 5, 1, 2, 0xFF, 1


class Reply(IntEnum):
    """The reply codes of RFC 1928 that the guard gives, and what each says here."""

    CONNECTED = 0
    FAILED = 1  # also: the resolver did not answer
    REFUSED = 2  # the policy forbids every address of the host
    UNREACHABLE = 3
    UNKNOWN_HOST = 4  # the resolver says that there is no such host
    CONNECTION_REFUSED = 5
    TIMED_OUT = 6
    COMMAND_UNKNOWN = 7
    ADDRESS_TYPE_UNKNOWN = 8


@dataclass(frozen=True, slots=True)
class Refused:
    """A connection that was not made: the host as asked for, and the address that it stands for."""

    host: str
    address: str


class _Stop(Exception):  # noqa: N818 - not a fault: carries the answer that ends a handshake
    def __init__(self, reply: Reply) -> None:
        self.reply = reply


def policy(*, allow_private: bool) -> Policy:
    """Which addresses may be reached: public ones, or all."""
    if allow_private:
        return lambda _: True
    return lambda address: not is_private(address)


class AddressGuard:
    """Runs the proxy as a context manager; at exit every thread, socket and connection is gone.

    `proxy_url` carries a random password, so that no other process of this machine can use the proxy.
    `refused` lists what was not connected to. A connection on which nothing moves for `idle_s` seconds is cut.
    The exit waits for a host name that is being resolved, since no resolver call can be broken off.
    """

    def __init__(self, is_allowed: Policy, *, idle_s: float = 60.0) -> None:
        self._is_allowed = is_allowed
        self._idle_s = idle_s
        self._user, self._password = secrets.token_hex(8), secrets.token_hex(16)
        self._connections: set[asyncio.Task[None]] = set()
        self.refused: list[Refused] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="address-guard", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    @property
    def proxy_url(self) -> str:
        """`socks5h`: the h leaves resolving host names to the guard."""
        return f"socks5h://{self._user}:{self._password}@127.0.0.1:{self._port}"

    @property
    def _flush_s(self) -> float:
        return 0.0 if self._stopped.is_set() else _FLUSH_S

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve_until_stopped())

    async def _serve_until_stopped(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener, limit=_CHUNK)
        await self._stopped.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                await self._authenticate(reader, writer)
                host, port = await _read_target(reader)
            upstream = await self._open(host, port)
            _answer(writer, Reply.CONNECTED)
            await self._relay((reader, writer), upstream)
        except _Stop as stop:
            _answer(writer, stop.reply)
        except (OSError, EOFError):
            pass  # the client went away or is none; it learns that from its closed connection
        finally:
            await _close(writer, self._flush_s)

    async def _authenticate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if version != _VERSION or _BY_PASSWORD not in methods:
            writer.write(bytes((_VERSION, _NO_METHOD)))
            raise EOFError
        writer.write(bytes((_VERSION, _BY_PASSWORD)))
        await reader.readexactly(1)
        user, password = await _read_counted(reader), await _read_counted(reader)
        known = hmac.compare_digest(user + b":" + password, f"{self._user}:{self._password}".encode())
        writer.write(bytes((_AUTH_VERSION, not known)))
        if not known:
            raise EOFError

    async def _open(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address of the host that is allowed and answers."""
        stop = _Stop(Reply.FAILED)
        for family, address in self._allowed(host, await _resolve(host, port)):
            try:
                return await _connect(family, address)
            except OSError as error:
                stop = _Stop(_reply_to(error))
        raise stop

    def _allowed(
        self, host: str, addresses: list[tuple[socket.AddressFamily, tuple[str, int]]]
    ) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        allowed = [pair for pair in addresses if self._is_allowed(ipaddress.ip_address(pair[1][0]))]
        if not allowed:
            self.refused.append(Refused(host, addresses[0][1][0]))
            raise _Stop(Reply.REFUSED)
        return allowed

    async def _relay(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Copy both ways until both sides have ended, one breaks off, or nothing moves for `idle_s`."""
        try:
            async with asyncio.timeout(self._idle_s) as idle, asyncio.TaskGroup() as both:
                both.create_task(self._copy(client[0], upstream[1], idle))
                both.create_task(self._copy(upstream[0], client[1], idle))
        except* (OSError, EOFError):
            pass  # a broken or idle connection: both ends see theirs closed
        finally:
            await _close(upstream[1], self._flush_s)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
            idle.reschedule(self._loop.time() + self._idle_s)
        target.write_eof()


async def _read_counted(reader: asyncio.StreamReader) -> bytes:
    (count,) = await reader.readexactly(1)
    return await reader.readexactly(count)


async def _read_target(reader: asyncio.StreamReader) -> tuple[str, int]:
    _, command, _, kind = await reader.readexactly(4)
    if kind == 1:
        host = str(ipaddress.IPv4Address(await reader.readexactly(4)))
    elif kind == 3:
        host = (await _read_counted(reader)).decode("ascii", "replace")
    elif kind == 4:
        host = str(ipaddress.IPv6Address(await reader.readexactly(16)))
    else:
        raise _Stop(Reply.ADDRESS_TYPE_UNKNOWN)
    port = int.from_bytes(await reader.readexactly(2))
    if command != _CONNECT:
        raise _Stop(Reply.COMMAND_UNKNOWN)
    return host, port


async def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Addresses of a host, in the resolver's order; never empty.

    The system's resolver also reads 2130706433, 0177.0.0.1, 0x7f.1 and 127.1, so no spelling escapes the check.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        again = error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY)
        raise _Stop(Reply.FAILED if again else Reply.UNKNOWN_HOST) from error
    except ValueError as error:  # a label that is empty or too long, a NUL byte
        raise _Stop(Reply.UNKNOWN_HOST) from error
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


async def _connect(
    family: socket.AddressFamily, address: tuple[str, int]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # The address is numeric and fixes the family: nothing is resolved a second time.
    async with asyncio.timeout(CONNECT_S):
        return await asyncio.open_connection(*address, family=family, flags=socket.AI_NUMERICHOST, limit=_CHUNK)


def _reply_to(error: OSError) -> Reply:
    if isinstance(error, TimeoutError):
        return Reply.TIMED_OUT
    if isinstance(error, ConnectionRefusedError):
        return Reply.CONNECTION_REFUSED
    return Reply.UNREACHABLE if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) else Reply.FAILED


def _answer(writer: asyncio.StreamWriter, reply: Reply) -> None:
    # The bound address of the answer is 0.0.0.0:0: nobody needs to know it.
    with suppress(OSError):
        writer.write(bytes((_VERSION, reply, 0, 1, 0, 0, 0, 0, 0, 0)))


async def _close(writer: asyncio.StreamWriter, flush_s: float) -> None:
    writer.close()
    try:
        async with asyncio.timeout(flush_s):
            await writer.wait_closed()
    except OSError:
        pass  # the other side is gone, or does not read: nothing is left to be said to it
    finally:
        writer.transport.abort()
