"""What a call that brought no reply means: the error, whether it may go well again, and when."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from moments_core.errors import MomentsError, NetworkError, PermanentError, ServiceError, SettingsError
from moments_core.model_entry import ModelEntry

MAX_WAIT_S = 120.0  # for a server that names a time; a later one is the business of the next run
_SAID_LENGTH = 300  # characters of the server's own words; they tell what a 400 is about

_BUSY = {408, 425, 429, 503}
_SECRETS = re.compile(r"(?i)(bearer\s+)\S+|\bsk-[\w-]{8,}|\?[^\s\"']*|data:[\w/]+;base64,\S+")


class StatusError(Exception):
    """The server answered with a status that brings no reply. `body`: the beginning of what it said."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class CallFailure:
    """Why a call brought no reply. `wait_s`: the time that the server asked for; `way_is_broken`: reopen the link."""

    error: MomentsError
    status: int | None = None
    wait_s: float | None = None
    way_is_broken: bool = False


def failure_of(entry: ModelEntry, error: BaseException, *, secret: str | None) -> CallFailure | None:
    """What an exception of a call means; None for one that is no failure of a call. `secret` is never repeated."""
    import httpx2

    if isinstance(error, StatusError):
        return _answered(entry, error, secret)
    if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
        sentence = f"The model {entry.key} did not answer within {entry.timeout_s:g} s: see whether its server is well."
        return CallFailure(ServiceError(sentence, model=entry.key), way_is_broken=True)
    if isinstance(error, httpx2.TransportError):
        sentence = f"The connection to the model {entry.key} broke ({_kind(error)}): run this again."
        return CallFailure(NetworkError(sentence, model=entry.key), way_is_broken=True)
    if isinstance(error, MomentsError):
        return CallFailure(error)
    return None


def _answered(entry: ModelEntry, answer: StatusError, secret: str | None) -> CallFailure:
    said = scrubbed(answer.body, secret)
    wait_s = retry_after(answer.headers.get("retry-after"))
    return CallFailure(_meaning(entry, answer.status, said, wait_s), status=answer.status, wait_s=wait_s)


def _meaning(entry: ModelEntry, status: int, said: str, wait_s: float | None) -> MomentsError:
    evidence: dict[str, object] = {"model": entry.key, "status": status, "said": said}
    if status in {401, 403}:
        where = f"the key in {entry.api_key_env}" if entry.api_key_env else "calls without a key"
        return SettingsError(f"The server of the model {entry.key} refuses {where} (status {status}).", **evidence)
    if status == 404 or 300 <= status < 400:
        sentence = f"The server of the model {entry.key} has no such page or model (status {status}): "
        return SettingsError(f"{sentence}run `moments models test {entry.key}`.", **evidence)
    if status == 429:
        when = f" in {math.ceil(wait_s)} s" if wait_s is not None else " later"
        return ServiceError(f"The model {entry.key} has too much to do (status 429): run this again{when}.", **evidence)
    if status in _BUSY or status >= 500:
        sentence = f"The server of the model {entry.key} failed (status {status}): run this again, or see its log."
        return ServiceError(sentence, **evidence)
    told = f": {said}" if said else ""
    return PermanentError(f"The model {entry.key} refused the request (status {status}){told}.", **evidence)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or an HTTP date); None for none."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value):
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def scrubbed(text: str, secret: str | None = None) -> str:
    """A server's words in one short line, without keys, queries of URLs and inline files."""
    short = text[: 20 * _SAID_LENGTH]
    short = short.replace(secret, "***") if secret else short
    plain = " ".join(_SECRETS.sub(lambda found: f"{found[1] or ''}***", short).split())
    return "".join(letter for letter in plain if letter.isprintable())[:_SAID_LENGTH].rstrip(". ")


def _kind(error: BaseException) -> str:
    # "RemoteProtocolError" -> "remote protocol error"; never its text, which may hold an address with a signature.
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
