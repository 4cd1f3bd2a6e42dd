"""What goes wrong with a model's answer, each fault as a function of one exchange.

server.faults.extend([too_many(after_s=1), hang])    # the next calls, in this order; then all is well again
server.fault_for = lambda asked: hang if b"second" in asked.body else None
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from tests.stand_ins.http_exchange import Exchange, Reply

Fault = Callable[[Exchange], None]


def status(code: int, *, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Fault:
    """An error reply with this status, in vLLM's form unless `body` says otherwise."""

    def play(exchange: Exchange) -> None:
        default = error_body(f"The stand-in was told to answer {code}.", code)
        exchange.send(Reply(code, default if body is None else body, headers or {}))

    play.__name__ = f"status_{code}"
    return play


def too_many(*, after_s: float | None = None, until: datetime | None = None) -> Fault:
    """429; Retry-After in seconds, as an HTTP date (`until`, with a time zone), or not at all."""
    if until is not None:
        return status(429, headers={"Retry-After": format_datetime(until, usegmt=True)})
    return status(429, headers={} if after_s is None else {"Retry-After": f"{after_s:g}"})


def quoting_the_key(exchange: Exchange) -> None:
    """401 whose message repeats what was sent as Authorization, as some servers do."""
    sent = exchange.asked.headers.get("authorization", "nothing")
    exchange.send(Reply(401, error_body(f"Incorrect API key provided: {sent}", 401)))


def refused_quoting_the_key(exchange: Exchange) -> None:
    """400 whose message repeats the Authorization header."""
    sent = exchange.asked.headers.get("authorization", "nothing")
    exchange.send(Reply(400, error_body(f"Bad request. Headers were: Authorization: {sent}", 400)))


def hang(exchange: Exchange) -> None:
    """Never answers; ends with the client or with the server."""
    exchange.wait(None)
    exchange.close()


def slow_drip(exchange: Exchange, *, every_s: float = 0.2) -> None:
    """The right answer, one byte at a time."""
    reply = exchange.proper()
    exchange.raw(exchange.head(reply, length=len(reply.body)))
    for index in range(len(reply.body)):
        if not exchange.wait(every_s):
            return
        exchange.raw(reply.body[index : index + 1])


def broken_off(exchange: Exchange) -> None:
    """Half of the body, and then the end of the connection: the client sees that the rest is missing."""
    reply = exchange.proper()
    exchange.raw(exchange.head(reply, length=len(reply.body)) + reply.body[: len(reply.body) // 2])
    exchange.close()


def half_json(exchange: Exchange) -> None:
    """Half of the JSON with no length promised: to HTTP the reply is whole."""
    reply = exchange.proper()
    exchange.raw(exchange.head(reply, length=None) + reply.body[: len(reply.body) // 2])
    exchange.close()


def reset(exchange: Exchange) -> None:
    """The connection is reset, as when the server's process dies."""
    exchange.reset()


def not_json(exchange: Exchange) -> None:
    """200 with a web page, as a proxy in front of the model gives."""
    exchange.send(Reply(200, b"<html><body>It works!</body></html>", content_type="text/html"))


def json_of_another_kind(exchange: Exchange) -> None:
    """200 with JSON that is neither a chat completion nor a transcription."""
    exchange.send(Reply(200, b'{"hello": ["world", 1, null]}'))


def huge_body(exchange: Exchange, *, megabytes: int = 512, code: int = 200) -> None:
    """A reply that begins well and goes on for `megabytes`, or until the client has enough."""
    piece = b" " * 2**20
    exchange.raw(exchange.head(Reply(code, b""), length=megabytes * len(piece)) + b'{"id": "')
    exchange.raw(piece[8:])
    for _ in range(megabytes - 1):
        if not exchange.wait(0):
            return
        exchange.raw(piece)


def saying(text: str | None, *, finish_reason: str = "stop") -> Fault:
    """A chat completion with this content."""
    return rewording(lambda _: text, finish_reason=finish_reason)


def rewording(change: Callable[[str], str | None], *, finish_reason: str = "stop") -> Fault:
    """The right chat completion with its content changed."""

    def play(exchange: Exchange) -> None:
        completion: dict[str, Any] = json.loads(exchange.proper().body)
        choice = completion["choices"][0]
        choice["message"]["content"] = change(choice["message"]["content"])
        choice["finish_reason"] = finish_reason
        exchange.send(Reply(200, json.dumps(completion).encode()))

    play.__name__ = "rewording"
    return play


wrong_schema = saying('{"unexpected": true}')
prose = saying("I have watched the video with care, and there is much that I like about it.")
prose_around = rewording(lambda text: f"Of course! Here is what I found:\n\n{text}\n\nLet me know if you need more.")
fenced = rewording(lambda text: f"```json\n{text}\n```")
thinking = rewording(lambda text: f'<think>The user wants JSON, such as [{{"a": 1}}].</think>\n\n{text}')
cut_by_length = rewording(lambda text: text[: len(text) * 2 // 3], finish_reason="length")
empty_content = saying("")
no_content = saying(None)

#: Faults by name, for parametrised tests and for the command line.
FAULTS: Mapping[str, Fault] = {
    "429": too_many(after_s=1),
    "500": status(500),
    "503": status(503),
    "quoting_the_key": quoting_the_key,
    "refused_quoting_the_key": refused_quoting_the_key,
    "hang": hang,
    "slow_drip": slow_drip,
    "broken_off": broken_off,
    "half_json": half_json,
    "reset": reset,
    "not_json": not_json,
    "json_of_another_kind": json_of_another_kind,
    "huge_body": huge_body,
    "wrong_schema": wrong_schema,
    "prose": prose,
    "prose_around": prose_around,
    "fenced": fenced,
    "thinking": thinking,
    "cut_by_length": cut_by_length,
    "empty_content": empty_content,
    "no_content": no_content,
}


def error_body(message: str, code: int) -> bytes:
    """An error as vLLM words it."""
    return json.dumps({"error": {"message": message, "type": "StandInError", "param": None, "code": code}}).encode()
