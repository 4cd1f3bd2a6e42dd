"""An HTTP server on a free port of 127.0.0.1 that reads requests, and answers them, as far as a test wants it to."""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Self

from tests.stand_ins.connections import Connections


@dataclass(frozen=True)
class Answer:
    """A status, a body, and headers beside Content-Length."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    def with_body(self, body: bytes) -> Self:
        return replace(self, body=body)

    def with_json(self, **changed: object) -> Self:
        return self.with_body(json.dumps({**json.loads(self.body), **changed}).encode())


class Asked:
    """One request, whose body is still on its way."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.method = handler.command
        self.target = handler.path
        self.headers = dict(handler.headers.items())
        self._length = int(self.header("content-length") or 0)

    def header(self, name: str) -> str:
        return str(self._handler.headers.get(name, ""))

    def read_all(self) -> bytes:
        """The body. Raises ConnectionAbortedError where the client went away in the middle of it."""
        body = self._handler.rfile.read(self._length)
        if len(body) < self._length:
            raise ConnectionAbortedError(f"{len(body)} of {self._length} bytes came")
        return body

    def read_half(self) -> bytes:
        return self._handler.rfile.read(self._length // 2)

    def send(self, answer: Answer) -> None:
        # In one piece: a second small packet would wait 40 ms for the acknowledgement of the first.
        self._handler.connection.sendall(self._head(answer) + answer.body)

    def send_half(self, answer: Answer) -> None:
        self._handler.connection.sendall(self._head(answer) + answer.body[: len(answer.body) // 2])
        self._handler.close_connection = True

    def in_tls(self, context: ssl.SSLContext, reply: Callable[[bytes, bytes], bytes]) -> None:
        """After a CONNECT: one request in TLS; `reply` makes the whole answer from its head and its body."""
        with context.wrap_socket(self._handler.connection, server_side=True) as secured:
            stream = secured.makefile("rb")
            head = b"".join(iter(stream.readline, b"\r\n"))
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            secured.sendall(reply(head, stream.read(int(length[1])) if length else b""))
        self._handler.close_connection = True

    def hang(self) -> None:
        """Answer nothing; ends with the client or with the server."""
        self.read_all()
        select.select([self._handler.connection], [], [])
        self._handler.close_connection = True

    def reset(self) -> None:
        """End the connection as a server does that dies."""
        connection = self._handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self._handler.close_connection = True

    def _head(self, answer: Answer) -> bytes:
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        lines = [f"HTTP/1.1 {answer.status} Stand-in", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class ProxyServer:
    """Serves each request by `answer`, in a thread of its connection."""

    def __init__(self, answer: Callable[[Asked], None]) -> None:
        self._server = _Server(_Handler)
        self._server.answer = answer
        self._server.start()

    @property
    def url(self) -> str:
        return self._server.url

    def close(self) -> None:
        """End every connection and thread. Raises what a thread failed with: that is a defect here."""
        self._server.close()


class _Server(Connections):
    answer: Callable[[Asked], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        self.server.answer(Asked(self))

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_CONNECT = _serve  # noqa: N815 - the base class calls them so

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Quiet."""
