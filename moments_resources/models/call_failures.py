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
from moments_core.scrubbing import scrubbed

TRIES = 5  # of one call; then the step fails and is tried again as a whole, with the replies that came
MOST_TIME_OUTS = 2  # of one call: each costs the model as much as a reply
MAX_WAIT_S = 120.0  # for a server that names a time; a later one is the business of the next run
_BUSY = {408, 425, 429, 503}


class StatusError(Exception):
    """The server answered with a status that brings no reply. `body`: the beginning of what it said."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class CallFailure:
    """Why a call brought no reply. `wait_s`: the time that the server asked for.

    `way_is_broken`: the link should be looked at. `most_tries`: how often such a call is made.
    """

    error: MomentsError
    status: int | None = None
    wait_s: float | None = None
    way_is_broken: bool = False
    most_tries: int = TRIES


def failure_of(entry: ModelEntry, error: BaseException, *, secret: str | None) -> CallFailure | None:
    """What an exception of a call means; None for one that is no failure of a call. `secret` is never repeated."""
    import httpx2

    if isinstance(error, StatusError):
        return _answered(entry, error, secret)
    if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
        sentence = f"The model {entry.key} did not answer within {entry.timeout_s:g} s: see whether its server is well."
        error_of_ours = ServiceError(sentence, model=entry.key)
        return CallFailure(error_of_ours, way_is_broken=True, most_tries=MOST_TIME_OUTS)
    if isinstance(error, httpx2.RequestError):
        sentence = f"The connection to the model {entry.key} broke ({_kind(error)}): run this again."
        return CallFailure(NetworkError(sentence, model=entry.key), way_is_broken=True)
    if isinstance(error, MomentsError):
        return CallFailure(error, way_is_broken=isinstance(error, NetworkError))
    return None


def made_nothing(error: BaseException) -> bool:
    """Whether a call that was sent ended so that the model made nothing: it was refused, or nobody was reached."""
    import httpx2

    return isinstance(error, (StatusError, httpx2.ConnectError, httpx2.ConnectTimeout))


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
        if wait_s is not None and wait_s > MAX_WAIT_S:
            evidence["not_before_s"] = math.ceil(wait_s)
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
    except (ValueError, TypeError, OverflowError):  # what a hostile date makes of it
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _kind(error: BaseException) -> str:
    # "RemoteProtocolError" -> "remote protocol error"; never its text, which may hold an address with a signature.
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
