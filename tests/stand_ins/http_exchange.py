"""HTTP over real sockets for stand-in servers: one request at a time, and every way in which an answer can go wrong."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from tests.stand_ins.connections import Connections


@dataclass(frozen=True)
class Reply:
    """A status, a body and headers beside Content-Type and Content-Length."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass
class Asked:
    """A request as it came. `at` and `ended_at` are `time.monotonic()`, the same clock in all processes of a machine.

    `seen` holds what the server made of it (a video that it watched, a sound that it heard). `fault` names the one
    that was played; `status` is what was answered, None where nothing was;
    `answered_bytes` counts heads and bodies.
    """

    method: str
    path: str
    headers: Mapping[str, str]  # by lower-case name
    body: bytes
    at: float
    seen: list[Any] = field(default_factory=list)
    fault: str | None = None
    status: int | None = None
    answered_bytes: int = 0
    ended_at: float | None = None

    @cached_property
    def json(self) -> Any:
        """The body as JSON; ValueError where it is none."""
        return json.loads(self.body)


class Exchange:
    """One request and the socket on which it is answered."""

    def __init__(self, handler: BaseHTTPRequestHandler, asked: Asked, proper: Callable[[Asked], Reply]) -> None:
        self.asked = asked
        self.before_answer: Callable[[], None] = lambda: None
        self._handler = handler
        self._proper = proper

    def proper(self) -> Reply:
        """What a sound server would answer."""
        return self._proper(self.asked)

    def send(self, reply: Reply) -> None:
        # In one piece: a second small packet would wait 40 ms for the acknowledgement of the first.
        self.raw(self.head(reply, length=len(reply.body)) + reply.body)
        self.asked.status = reply.status

    def head(self, reply: Reply, *, length: int | None) -> bytes:
        """Status line and headers; without a length the body ends with the connection."""
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if length is None:
            headers["Connection"] = "close"
            self._handler.close_connection = True
        else:
            headers["Content-Length"] = str(length)
        lines = [f"HTTP/1.1 {reply.status} Stand-in", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def raw(self, data: bytes) -> None:
        self.before_answer()
        self._handler.connection.sendall(data)
        self.asked.answered_bytes += len(data)

    def wait(self, seconds: float | None) -> bool:
        """Let time pass; False as soon as the client is gone or the server closes."""
        readable, _, _ = select.select([self._handler.connection], [], [], seconds)
        return not readable

    def close(self) -> None:
        """End the connection after what was sent, although more may have been promised."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """End the connection as a crashed server does: the client reads "connection reset"."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.connection.close()
        self._handler.close_connection = True


class HttpStandIn:
    """A server on a free port of 127.0.0.1. `answer` serves each request, in a thread of its connection."""

    def __init__(self, answer: Callable[[Exchange], None], proper: Callable[[Asked], Reply], *, port: int = 0) -> None:
        self._server = _Server(_Handler, port=port)
        self._server.answer, self._server.proper = answer, proper
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return self._server.url

    def close(self) -> None:
        """End every connection and thread; idempotent. Raises what a thread failed with: that is a defect here."""
        self._server.close()

    def break_connections(self) -> None:
        """End all open connections, and go on serving new ones."""
        self._server.end_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except Exception as defect:
            if error is None:
                raise
            error.add_note(f"The stand-in failed too: {defect!r}")


class _Server(Connections):
    answer: Callable[[Exchange], None]
    proper: Callable[[Asked], Reply]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self._body(headers), at=time.monotonic())
        try:
            self.server.answer(Exchange(self, asked, self.server.proper))
        finally:
            asked.ended_at = time.monotonic()

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Quiet."""
