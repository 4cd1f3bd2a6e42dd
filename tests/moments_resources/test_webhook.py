"""Alerts over real sockets: what is posted, what is told of the answer, and that the address stays a secret."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from moments_core.alerting import Alert
from moments_core.errors import NetworkError
from moments_resources.webhook import Webhook
from tests.stand_ins.http_exchange import Asked, Exchange, HttpStandIn, Reply

HIDDEN = "T0000-B0000-geheim"
ALERT = Alert("unhealthy", ("No daemon is at work: start it.", "The disk is full: free some."))

Answer = Callable[[Exchange, int], None]


class Hook(HttpStandIn):
    """Takes posts; `answer` gets the exchange and how many came before it."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[Asked] = []

        def serve(exchange: Exchange) -> None:
            self.asked.append(exchange.asked)
            answer(exchange, len(self.asked) - 1)

        super().__init__(serve, lambda _: Reply(200, b"ok", content_type="text/plain"))

    @property
    def webhook(self) -> Webhook:
        return Webhook(f"{self.url}/services/{HIDDEN}?token={HIDDEN}")


def ok(exchange: Exchange, _: int) -> None:
    exchange.send(exchange.proper())


def test_an_alert_is_one_post_that_a_chat_shows_and_a_program_reads() -> None:
    with Hook(ok) as hook:
        told = hook.webhook.send(ALERT)
        (asked,) = hook.asked
    assert told == f"The webhook at {hook.url} answered 200 (ok)."
    assert (asked.method, asked.path) == ("POST", f"/services/{HIDDEN}?token={HIDDEN}")
    assert set(asked.json) == {"text", "state", "problems", "host", "at"}
    assert asked.json["problems"] == list(ALERT.problems)
    assert asked.json["state"] == "unhealthy"
    assert asked.json["text"].splitlines()[1:] == [f"- {problem}" for problem in ALERT.problems]


def test_a_webhook_that_fails_at_first_is_asked_three_times() -> None:
    with Hook(lambda exchange, before: exchange.send(Reply(503, b"")) if before < 2 else ok(exchange, 0)) as hook:
        assert "answered 200" in hook.webhook.send(ALERT)
        assert len(hook.asked) == 3


def test_a_redirect_is_not_followed() -> None:
    with Hook(ok) as elsewhere:
        moved = Reply(307, b"", {"Location": f"{elsewhere.url}/"})
        with Hook(lambda exchange, _: exchange.send(moved)) as hook, pytest.raises(NetworkError, match="answered 307"):
            hook.webhook.send(ALERT)
    assert elsewhere.asked == []


def test_a_webhook_that_hangs_is_left_after_a_while() -> None:
    def trickle(exchange: Exchange, _: int) -> None:
        while exchange.wait(0.05):
            exchange.raw(b"HTTP/1.1 200 OK\r\n" if exchange.asked.answered_bytes == 0 else b"X-Wait: 1\r\n")

    with Hook(trickle) as hook, pytest.raises(NetworkError, match="did not answer within"):
        replace(hook.webhook, timeout_s=0.3).send(ALERT)


def echo(exchange: Exchange, _: int) -> None:
    exchange.send(Reply(404, f"no hook {exchange.asked.path} {HIDDEN}".encode()))


def reset(exchange: Exchange, _: int) -> None:
    exchange.reset()


@pytest.mark.parametrize("answer", [ok, echo, reset])
def test_the_address_stands_in_no_log_no_error_and_no_answer(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Hook(answer) as hook:
        try:
            told = hook.webhook.send(ALERT)
        except NetworkError as error:
            told = f"{error} {error.evidence} {error.__cause__!r} {error.__context__!r}"
    assert hook.asked
    assert HIDDEN not in told
    assert HIDDEN not in caplog.text
    assert HIDDEN not in repr(hook.webhook)
    assert f"127.0.0.1:{hook.port}" in told


def test_a_host_that_is_not_there_is_told_without_its_secret() -> None:
    with pytest.raises(NetworkError, match="can't be reached") as failed:
        Webhook(f"http://user:{HIDDEN}@127.0.0.1:9/{HIDDEN}").send(ALERT)
    assert HIDDEN not in f"{failed.value} {failed.value.__cause__!r} {failed.value.__context__!r}"
