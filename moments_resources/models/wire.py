"""What all wires to a model server share: the client that sends, and how a reply's body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moments_core.errors import ReplyError
from moments_core.model_entry import ModelEntry
from moments_resources.models.call_failures import StatusError

if TYPE_CHECKING:
    import httpx2

MAX_REPLY_BYTES = 32_000_000  # the words of six hours of speech are 10 MB; a larger body is no reply
_MAX_ERROR_BYTES = 20_000


async def reply_body(response: httpx2.Response) -> bytes:
    """The body of a 2xx response that is being streamed. Raises StatusError for another, ReplyError for a flood."""
    await raise_failure(response)
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise ReplyError(f"The model's reply is larger than {MAX_REPLY_BYTES // 1_000_000} MB, so it is no reply.")
    return bytes(body)


async def raise_failure(response: httpx2.Response) -> None:
    """Raises StatusError, with the beginning of the body, for a response that is none of 2xx."""
    if not response.is_success:
        raise StatusError(response.status_code, dict(response.headers), await _beginning(response))


async def _beginning(response: httpx2.Response) -> str:
    said = bytearray()
    async for chunk in response.aiter_bytes():
        said += chunk
        if len(said) > _MAX_ERROR_BYTES:
            break
    return said.decode(errors="replace")


def http_client(entry: ModelEntry) -> httpx2.AsyncClient:
    import ssl

    import httpx2

    is_encrypted = (entry.base_url or "").startswith("https:")
    # No proxy, no .netrc, no redirect that would carry a key elsewhere; the deadline is ours. A connection a call: one
    # that lay idle may be closed by the server just when it is used, which would look like a fault.
    return httpx2.AsyncClient(
        trust_env=False,
        timeout=None,
        follow_redirects=False,
        limits=httpx2.Limits(max_keepalive_connections=0),
        # As the health check has it. To read all certificates takes 50 ms, which a tunnel's plain HTTP can do without.
        verify=ssl.create_default_context() if is_encrypted else False,
    )
