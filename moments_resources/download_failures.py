"""What went wrong in a download, as an error of ours: whether to try again, and one sentence for the user.

yt-dlp wraps errors up to five deep and sometimes keeps only their text, so the causes are searched first and the
text is matched last.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from http.client import responses
from typing import TypeVar

from moments_core.errors import MomentsError, NetworkError, ResourceError, SourceError
from moments_core.source import public_url
from moments_resources.address_guard import Refused, Reply
from moments_resources.guarded_ytdlp import plain, printable

E = TypeVar("E", bound=BaseException)

_SIGN_IN = "can't be fetched without signing in, or is forbidden: submit a public address, or the file itself"
_ELSEWHERE = "is not offered in this region: submit another address, or the file itself"
_NO_VIDEO = "holds no video that can be fetched: submit the address of the page, or of the file, that plays it"
_ABSENT = "is not there: check the address"
_LIVE = "is a live stream: submit it when it is over"
_DRM = "is protected against copying (DRM) and can't be fetched: submit a video that is not"

_BUSY = {408, 425, 429}
_BY_STATUS = {401: _SIGN_IN, 403: _SIGN_IN, 404: _ABSENT, 410: _ABSENT, 451: _ELSEWHERE}

# In this order: "Sign in to confirm you're not a bot" is about this machine, other sign-ins about the video.
_BY_TEXT: tuple[tuple[str, type[MomentsError], str], ...] = (
    (r"\bDRM\b", SourceError, _DRM),
    (r"not a bot|rate.?limit|too many requests", NetworkError, "turns this machine away for now: try again later"),
    (r"(in|from) your (country|location|region)|geo.?restrict", SourceError, _ELSEWHERE),
    (r"live event|livestream|live stream|premieres? in|is (currently )?live|not currently live", SourceError, _LIVE),
    (r"private|sign in|log.?in|registered|members.only|subscri|password|cookies|purchase", SourceError, _SIGN_IN),
    (r"ffmpeg|encrypt", SourceError, "is a stream of a kind that is not fetched (live or encrypted): submit the file"),
    (r"got error|timed out|network error|bytes read|incomplete", NetworkError, "broke off: try again later"),
    (r"unsupported URL|no video|no .*formats|format is not available|is empty|data blocks", SourceError, _NO_VIDEO),
    (r"unavailable|not available|removed|deleted|terminated|not exist|not found", SourceError, _ABSENT),
)


def download_failure(
    error: Exception, *, url: str, refused: Sequence[Refused], last_failure: Exception | None
) -> MomentsError:
    """The error of ours for what yt-dlp raised on `url`.

    `refused` is what the address guard turned away; `last_failure` what the latest request raised.
    """
    causes = list(_causes(error))
    if "Got error" in str(error) and last_failure is not None:  # the download gave up and kept the text alone
        causes += _causes(last_failure)
    failure = _of_ours(causes) or _of_machine(causes) or _of_network(causes, url, refused) or _of_text(error, url)
    extractor = next(filter(None, (getattr(cause, "ie", None) for cause in causes)), None)
    failure.evidence.setdefault("detail", plain(str(error)))
    if extractor:
        failure.evidence.setdefault("extractor", printable(str(extractor), 80))
    return failure


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from, outermost first."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause in seen:
            continue
        seen.append(cause)
        yield cause
        wrapped = (getattr(cause, "exc_info", None) or (None, None))[1]  # yt-dlp's own link
        linked = (cause.__cause__, None if cause.__suppress_context__ else cause.__context__, wrapped)
        waiting += [inner for inner in (*linked, getattr(cause, "cause", None)) if isinstance(inner, BaseException)]


def _first(causes: Sequence[BaseException], kind: type[E]) -> E | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)


def _of_ours(causes: Sequence[BaseException]) -> MomentsError | None:
    return _first(causes, MomentsError)


def _of_machine(causes: Sequence[BaseException]) -> MomentsError | None:
    full = {errno.ENOSPC, errno.EDQUOT}
    if any(isinstance(cause, OSError) and cause.errno in full for cause in causes):
        return ResourceError("The disk filled up during the download: free some space, then run this again.")
    if _first(causes, MemoryError):
        return ResourceError("The memory of this machine ran out during the download: run this again with more.")
    return None


def _of_network(causes: Sequence[BaseException], url: str, refused: Sequence[Refused]) -> MomentsError | None:
    from yt_dlp.networking.exceptions import CertificateVerifyError, HTTPError, TransportError
    from yt_dlp.socks import Socks5Error
    from yt_dlp.utils import GeoRestrictedError

    if geo := _first(causes, GeoRestrictedError):
        return SourceError(f"{public_url(url)} {_ELSEWHERE}.", countries=printable(str(geo.countries), 200))
    if answer := _first(causes, HTTPError):
        return _of_status(answer.status, url)
    if reply := _first(causes, Socks5Error):
        return _of_reply(reply.errno, url, refused)
    if _first(causes, CertificateVerifyError):
        shown = public_url(url)
        return SourceError(f"The certificate of {shown} is not valid, so its host can't be trusted: check it.")
    if _first(causes, TransportError) or _first(causes, ConnectionError) or _first(causes, TimeoutError):
        return NetworkError(f"The connection to {public_url(url)} broke off or timed out: try again later.")
    return None


def _of_status(status: int, url: str) -> MomentsError:
    answered = f"HTTP {status} {responses.get(status, '')}".rstrip()
    if status in _BUSY or status >= 500:
        return NetworkError(f"{public_url(url)} answers {answered}: try again later.", http_status=status)
    if 300 <= status < 400:
        return SourceError(f"{public_url(url)} redirects in a circle: check the address.", http_status=status)
    what = _BY_STATUS.get(status, "is refused by its server: check the address")
    return SourceError(f"{public_url(url)} {what} ({answered}).", http_status=status)


def _of_reply(code: int | None, url: str, refused: Sequence[Refused]) -> MomentsError:
    if code == Reply.REFUSED and refused:
        host, address = printable(refused[-1].host, 100), refused[-1].address
        return SourceError(
            f"{public_url(url)} leads to {host}, a private address, which is not fetched: "
            "set MOMENTS_ALLOW_PRIVATE_HOSTS=1 if your own network is meant.",
            host=host,
            address=address,
        )
    if code == Reply.UNKNOWN_HOST:
        return SourceError(f"The host of {public_url(url)} is unknown: check its spelling.")
    why = {
        Reply.CONNECTION_REFUSED: "it refuses the connection",
        Reply.TIMED_OUT: "it does not answer",
        Reply.UNREACHABLE: "no network leads there",
    }.get(Reply(code) if code in list(Reply) else Reply.FAILED, "its name or address gives no connection")
    return NetworkError(f"The host of {public_url(url)} can't be reached ({why}): try again later.")


def _of_text(error: Exception, url: str) -> MomentsError:
    text = re.sub(r"\S+://\S+", "", str(error))  # the words of a URL say nothing about the failure
    for pattern, kind, what in _BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{public_url(url)} {what}.")
    return SourceError(f"yt-dlp can't read {public_url(url)}: a newer yt-dlp may, or submit the file itself.")
