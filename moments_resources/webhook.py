"""Tells a chat, or whoever listens, how the installation is: one POST of JSON to one address.

The address is a secret: who has it can write there. Only its scheme, host and port ever leave this module.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moments_core.alerting import Alert
from moments_core.errors import NetworkError
from moments_core.scrubbing import scrubbed

if TYPE_CHECKING:
    import httpx2

TRIES = 3
_PAUSE_S = 1.0
_LONGEST_ANSWER = 1000  # bytes; services answer `ok`, or a sentence


@dataclass(frozen=True)
class Webhook:
    """An http(s) address that takes alerts."""

    url: str = field(repr=False)
    timeout_s: float = 10.0  # of a try, the answer included

    @property
    def place(self) -> str:
        """Where it is, without what is secret in it."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")

    def send(self, alert: Alert) -> str:
        """Post an alert; a sentence on what came back. Raises NetworkError after three tries without a success."""
        with _unlogged(self.url):
            return asyncio.run(self._send(_body(alert)))

    async def _send(self, body: dict[str, object]) -> str:
        import httpx2

        # Without environment, as all our clients: a proxy would be shown the address. Redirects are not followed, they
        # would hand the alert, and what the address says, to somebody else.
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False) as client:
            for _ in range(TRIES - 1):
                told, has_arrived = await self._try(client, body)
                if has_arrived:
                    return told
                await asyncio.sleep(_PAUSE_S)
            told, has_arrived = await self._try(client, body)
            if has_arrived:
                return told
            raise NetworkError(told)

    async def _try(self, client: httpx2.AsyncClient, body: dict[str, object]) -> tuple[str, bool]:
        """(What came back, whether the alert arrived)."""
        import httpx2

        try:
            async with asyncio.timeout(self.timeout_s), client.stream("POST", self.url, json=body) as response:
                answer = await _beginning(response)
        except TimeoutError:
            return f"The webhook at {self.place} did not answer within {self.timeout_s:.0f} s: is it up?", False
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:  # their text may hold the address
            kind = type(error).__name__
            return f"The webhook at {self.place} can't be reached ({kind}): check MOMENTS_ALERT_WEBHOOK.", False
        said = f" ({answer})" if (answer := self._scrubbed(answer)) else ""
        if response.is_success:
            return f"The webhook at {self.place} answered {response.status_code}{said}.", True
        return f"The webhook at {self.place} answered {response.status_code}{said}: check MOMENTS_ALERT_WEBHOOK.", False

    def _scrubbed(self, answer: str) -> str:
        for secret in _secret_parts(self.url):
            answer = answer.replace(secret, "***")
        return scrubbed(answer, limit=100)


def _secret_parts(url: str) -> list[str]:
    """The longest first: the address, all after the host, and each word of that which is no word of a language."""
    parts = urlsplit(url)
    rest = url.partition("://")[2].partition("/")[2]
    words = [word for word in re.split(r"[/?&=#]", rest) if len(word) >= 8]
    found = {url, rest, *words, parts.username or "", parts.password or ""}
    return sorted((part for part in found if part), key=len, reverse=True)


async def _beginning(response: httpx2.Response) -> str:
    answer = b""
    async for piece in response.aiter_raw():
        answer += piece
        if len(answer) >= _LONGEST_ANSWER:
            break
    return answer[:_LONGEST_ANSWER].decode("utf-8", "replace")


def _body(alert: Alert) -> dict[str, object]:
    """`text` is what Slack, Mattermost and Teams show; the rest is for programs."""
    host = socket.gethostname()
    return {
        "text": _text(alert, host),
        "state": alert.state,
        "problems": list(alert.problems),
        "host": host,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _text(alert: Alert, host: str) -> str:
    if alert.state == "test":
        return f"A test of the alerts of moments on {host}: they arrive."
    if alert.state == "healthy":
        return f"moments on {host} is healthy again."
    return "\n".join([f"moments on {host} is unhealthy:", *(f"- {problem}" for problem in alert.problems)])


@contextmanager
def _unlogged(url: str) -> Iterator[None]:
    """httpx2 logs the address of each request."""
    rest = url.partition("://")[2].partition("/")[2]

    def is_harmless(record: logging.LogRecord) -> bool:
        return not rest or rest not in record.getMessage()

    logger = logging.getLogger("httpx2")
    logger.addFilter(is_harmless)
    try:
        yield
    finally:
        logger.removeFilter(is_harmless)
