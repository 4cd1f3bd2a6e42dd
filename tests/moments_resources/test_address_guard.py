from __future__ import annotations

import ipaddress
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from moments_core.source import IPAddress
from moments_resources.address_guard import AddressGuard, Refused, Reply, policy

LOOPBACK_SPELLINGS = [
    "localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "0177.0.0.1", "017700000001",
    "0x7f.0.0.1", "0x7f000001", "0x7f.1", "0", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1",  # noqa: S104
    "::127.0.0.1", "0:0:0:0:0:0:0:1", "64:ff9b::127.0.0.1", "2002:7f00:1::1",
]  # fmt: skip


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    """Sends back what it gets; `accepted` lists its connections, in the order in which they came."""

    accepted: list[object]

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002
        self.accepted.append(client_address)
        return True


def _others(server: _EchoServer) -> int:
    """Connections that the server got. One more, after them, shows that it has seen them all."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as last:
        last.sendall(b"x")
        assert last.recv(1) == b"x"
    return len(server.accepted) - 1


@contextmanager
def _echo_server(host: str) -> Iterator[_EchoServer]:
    with _EchoServer((host, 0), _Echo) as server:
        server.accepted = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def echo() -> Iterator[_EchoServer]:
    with _echo_server("0.0.0.0") as server:  # noqa: S104 - every address of loopback must be able to reach it
        yield server


def _only(allowed: str):
    return lambda address: address == ipaddress.ip_address(allowed)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def _greet(guard: AddressGuard, user: str | None = None, password: str | None = None) -> socket.socket:
    """A connection to the guard that has sent its credentials; the guard's answer to them is unread."""
    url = urlsplit(guard.proxy_url)
    connection = socket.create_connection((url.hostname, url.port), timeout=10)
    connection.sendall(b"\x05\x02\x00\x02")
    assert _exactly(connection, 2) == b"\x05\x02"
    name, secret = (user or url.username).encode(), (password or url.password).encode()
    connection.sendall(bytes((1, len(name))) + name + bytes((len(secret),)) + secret)
    return connection


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes((3, len(host))) + host.encode()
    return bytes((1 if address.version == 4 else 4,)) + address.packed


def _connect(guard: AddressGuard, host: str, port: int, *, command: int = 1) -> tuple[socket.socket, Reply]:
    connection = _greet(guard)
    assert _exactly(connection, 2) == b"\x01\x00"
    connection.sendall(bytes((5, command, 0)) + _address(host) + port.to_bytes(2))
    return connection, Reply(_exactly(connection, 10)[1])


def _try(guard: AddressGuard, host: str, port: int, **how: int) -> Reply:
    connection, reply = _connect(guard, host, port, **how)
    connection.close()
    return reply


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
def test_no_spelling_of_loopback_gets_through(host: str, echo: _EchoServer) -> None:
    with AddressGuard(policy(allow_private=False)) as guard:
        assert _try(guard, host, echo.server_address[1]) is Reply.REFUSED
    assert _others(echo) == 0


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0177.0.0.1", "0x7f.1"])
def test_the_spellings_do_reach_loopback_where_that_is_allowed(host: str, echo: _EchoServer) -> None:
    with AddressGuard(_only("127.0.0.1")) as guard:
        assert _try(guard, host, echo.server_address[1]) is Reply.CONNECTED
    assert _others(echo) == 1


def test_a_refusal_names_the_host_and_what_it_stands_for() -> None:
    with AddressGuard(policy(allow_private=False)) as guard:
        assert _try(guard, "2130706433", 80) is Reply.REFUSED
    assert guard.refused == [Refused("2130706433", "127.0.0.1")]


def test_the_policy_decides_between_two_addresses_of_one_machine(echo: _EchoServer) -> None:
    port = echo.server_address[1]
    with AddressGuard(_only("127.0.0.2")) as guard:
        assert _try(guard, "127.0.0.1", port) is Reply.REFUSED
        assert _try(guard, "127.0.0.2", port) is Reply.CONNECTED
    assert _others(echo) == 1


def test_a_host_is_reached_at_its_allowed_address_only(echo: _EchoServer) -> None:
    judged: list[IPAddress] = []

    def allow_v4(address: IPAddress) -> bool:
        judged.append(address)
        return address.version == 4

    with AddressGuard(allow_v4) as guard:
        assert _try(guard, "localhost", echo.server_address[1]) is Reply.CONNECTED
    assert ipaddress.ip_address("127.0.0.1") in judged
    assert guard.refused == []


def test_bytes_arrive_whole_and_in_order_both_ways(echo: _EchoServer) -> None:
    sent = bytes(range(256)) * 20_000  # 5 MB, many times the size of every buffer on the way
    with AddressGuard(policy(allow_private=True)) as guard:
        connection, _ = _connect(guard, "127.0.0.1", echo.server_address[1])
        writer = threading.Thread(target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR)))
        writer.start()
        assert _exactly(connection, len(sent) + 1) == sent  # and the end of the stream comes through
        writer.join()
        connection.close()


@pytest.mark.parametrize(("user", "password"), [("other", None), (None, "other")])
def test_who_does_not_know_the_password_gets_no_connection(
    user: str | None, password: str | None, echo: _EchoServer
) -> None:
    with AddressGuard(policy(allow_private=True)) as guard, _greet(guard, user, password) as connection:
        assert _exactly(connection, 3) == b"\x01\x01"
    assert _others(echo) == 0


def test_a_client_without_a_password_is_turned_away() -> None:
    with AddressGuard(policy(allow_private=True)) as guard:
        url = urlsplit(guard.proxy_url)
        with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
            connection.sendall(b"\x05\x01\x00")
            assert _exactly(connection, 3) == b"\x05\xff"


def test_a_client_that_speaks_another_protocol_is_turned_away() -> None:
    with AddressGuard(policy(allow_private=True)) as guard:
        url = urlsplit(guard.proxy_url)
        with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
            connection.sendall(b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n" + b"\x00" * 80)
            assert not _exactly(connection, 10).startswith(b"HTTP")


@pytest.mark.parametrize("command", [2, 3])
def test_nothing_but_connect_is_served(command: int) -> None:
    with AddressGuard(policy(allow_private=True)) as guard:
        assert _try(guard, "127.0.0.1", 9, command=command) is Reply.COMMAND_UNKNOWN


def test_an_unknown_host_is_told_from_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with AddressGuard(policy(allow_private=True)) as guard:
        # A resolver that can't be reached says "try again" instead: FAILED.
        assert _try(guard, "no-such-host.invalid", 80) in (Reply.UNKNOWN_HOST, Reply.FAILED)
        assert _try(guard, "127.0.0.1", closed) is Reply.CONNECTION_REFUSED


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "a\x00b"])
def test_a_name_that_can_not_be_a_host_is_an_unknown_host(host: str) -> None:
    with AddressGuard(policy(allow_private=True)) as guard:
        assert _try(guard, host, 80) is Reply.UNKNOWN_HOST


def test_a_connection_on_which_nothing_moves_is_cut(echo: _EchoServer) -> None:
    with AddressGuard(policy(allow_private=True), idle_s=0.05) as guard:
        connection, _ = _connect(guard, "127.0.0.1", echo.server_address[1])
        assert connection.recv(1) == b""
        connection.close()


def test_a_connection_lives_as_long_as_one_direction_moves(echo: _EchoServer) -> None:
    with AddressGuard(policy(allow_private=True), idle_s=1.0) as guard:
        connection, _ = _connect(guard, "127.0.0.1", echo.server_address[1])
        for _ in range(12):  # 1.2 s in all, longer than any one pause may be
            time.sleep(0.1)
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        connection.close()


def test_at_the_exit_no_thread_no_port_and_no_connection_is_left(echo: _EchoServer) -> None:
    threads = set(threading.enumerate())
    with AddressGuard(policy(allow_private=True)) as guard:
        live, _ = _connect(guard, "127.0.0.1", echo.server_address[1])
        half_open = _greet(guard)
        url = urlsplit(guard.proxy_url)
    assert not [thread for thread in set(threading.enumerate()) - threads if "guard" in thread.name]
    assert live.recv(1) == b""
    assert _exactly(half_open, 3) in (b"\x01\x00", b"")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.hostname, url.port), timeout=10)
    live.close()
    half_open.close()


def test_the_exit_does_not_wait_for_a_peer_that_does_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        with AddressGuard(policy(allow_private=True)) as guard:
            connection, _ = _connect(guard, "127.0.0.1", deaf.getsockname()[1])
            connection.setblocking(False)
            with suppress(BlockingIOError):  # until every buffer on the way is full
                while connection.send(b"x" * 65536):
                    pass
        connection.close()
