"""What all wires to a model server share: how a reply's body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moments_core.errors import ReplyError
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
