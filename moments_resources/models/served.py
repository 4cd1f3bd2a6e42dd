"""Whether a model answers over HTTP at an address, asked without anything that costs."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from urllib.parse import urlsplit

from moments_core.errors import MomentsError, NetworkError, ServiceError, SettingsError
from moments_core.model_entry import ModelEntry
from moments_resources.models.limited_socket import Limited

_MAX_REPLY_BYTES = 4_000_000  # a hosted API lists some hundred models of about 500 bytes
_MAY_PASS = {408, 425, 429}  # beside all from 500 on: the server is busy, or starts

_WANTS_A_KEY = "the server wants a key: give base_url, and in api_key_env the variable that holds the key"


def api_key(entry: ModelEntry) -> str | None:
    """The key that the model is called with, from the environment. Raises SettingsError where it can't be sent."""
    if entry.api_key_env is None:
        return None
    key = os.environ.get(entry.api_key_env, "")
    if not key:
        raise SettingsError(f"The environment variable {entry.api_key_env} is not set: put the key there.")
    if re.fullmatch(r"[!-~]+", key) is None:
        raise SettingsError(f"The value of {entry.api_key_env} holds spaces or signs that no key has.")
    return key


@contextmanager
def reached(address: str, timeout_s: float) -> Iterator[HTTPConnection]:
    """A connection of its own: it follows no redirect, which would carry the key along, and knows no proxy.

    It is good for `timeout_s` after it stood. Raises NetworkError, or SettingsError for a certificate.
    """
    connection = _connection(address, timeout_s)
    place = f"{connection.host}:{connection.port}"
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise SettingsError(
            f"{place} can't be reached: its certificate is not trusted ({error.verify_message})."
        ) from error
    except (OSError, UnicodeError) as error:
        raise NetworkError(f"{place} can't be reached: {_why(error)}.") from error
    try:
        connection.sock = Limited(connection.sock, timeout_s)
        yield connection
    finally:
        connection.close()


def check_served(entry: ModelEntry, connection: HTTPConnection, address: str) -> str:
    """What answers there, in a sentence. Raises SettingsError where it is not this model, ServiceError if it is away.

    `chat` and `vision`: the server lists `served_name`. `asr`: it answers at all; there is no standard health page.
    """
    path = urlsplit(address).path or "/"
    if entry.kind == "asr":
        status, _ = _got(connection, path, api_key(entry))
        if status >= 500:
            raise _refusal(entry, path, status)
        return f"The server answers, GET {path} with status {status}."
    path = f"{path.rstrip('/')}/models"
    status, body = _got(connection, path, api_key(entry))
    if status != 200:
        raise _refusal(entry, path, status)
    _check_listed(entry, _names(body), path)
    return f"The server knows {entry.served_name}."


def _connection(address: str, timeout_s: float) -> HTTPConnection:
    parts = urlsplit(address)
    # Always with its port: without one, http.client takes the end of an IPv6 address for it.
    if parts.scheme == "https":
        return HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=timeout_s)
    return HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time; check the address and the firewall"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens on that port; check the port, or start the server"
    return str(getattr(error, "strerror", None) or "its name can't be resolved")


def _got(connection: HTTPConnection, path: str, key: str | None) -> tuple[int, bytes]:
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, _body(response)
    except (HTTPException, OSError, ValueError) as error:
        # Not chained: it may quote the request, and so the key.
        raise ServiceError(
            f"The server broke off or gave no HTTP answer to GET {path}.", cause=type(error).__name__
        ) from None


def _body(response: HTTPResponse) -> bytes:
    body = response.read(_MAX_REPLY_BYTES)
    if response.length and len(body) < _MAX_REPLY_BYTES:  # http.client says nothing when it is given a limit
        raise IncompleteRead(body, response.length)
    return body


def _refusal(entry: ModelEntry, path: str, status: int) -> MomentsError:
    """What a status means. Not the server's own words: a reply to a wrong key may quote the key."""
    if status in _MAY_PASS or status >= 500:
        return ServiceError(f"GET {path}: the server answers with status {status}.", status=status)
    return SettingsError(f"GET {path}: {_meaning(entry, status)}.", status=status)


def _meaning(entry: ModelEntry, status: int) -> str:
    if status in {401, 403}:
        return f"the server refuses the key in {entry.api_key_env}" if entry.api_key_env else _WANTS_A_KEY
    if status == 404:
        return "there is no such page; check path or base_url, which mostly ends in /v1"
    if 300 <= status < 400:
        return "the server sends us elsewhere; give its final address"
    return f"the server answers with status {status}"


def _names(body: bytes) -> list[str] | None:
    """The models in a reply to GET /models, or None where it is no such reply."""
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _check_listed(entry: ModelEntry, names: list[str] | None, path: str) -> None:
    if names is None:
        raise SettingsError(f"GET {path}: the reply is no list of models; is this an OpenAI-like API?")
    if entry.served_name in names:
        return
    some = ", ".join(ascii(name[:60]) for name in names[:5]) + (", …" if len(names) > 5 else "")
    known = f"it serves {some}" if names else "it serves no model"
    raise SettingsError(f"The server does not know {entry.served_name}: {known}; correct served_name.")
