"""yt-dlp with its doors shut: HTTP through the address guard, native downloaders, nothing of this machine's.

What a page answers decides what yt-dlp does next, so every option here assumes a hostile page.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from moments_core.errors import SourceError
from moments_core.source import redacted

MAX_PAGE_BYTES = 16 * 1024 * 1024  # a watch page of YouTube has 1.5 MB; an endless page would fill the memory

# Best up to 1080 lines, H.264 and AAC first (clips of it are cut without encoding). A file that holds both tracks
# is preferred from 720 lines on; YouTube keeps those at 360, its better ones apart.
_FORMAT = "b[height>=720]{ours}/bv{ours}+ba{ours}/b{ours}"
_FORMAT_SORT = ["res:1080", "vcodec:h264", "acodec:aac"]
LISTS = ("playlist", "multi_video")  # what yt-dlp calls a result with entries
_PROTOCOLS = ("http", "https", "m3u8", "m3u8_native", "http_dash_segments")

# These run PhantomJS when it is installed: a browser that goes round the guard.
_BROWSER_EXTRACTORS = ("iqiyi", "douyutv", "pornhub")


class WarningLog:
    """yt-dlp's logger: keeps the last warnings as evidence and prints nothing."""

    def __init__(self) -> None:
        self.warnings: deque[str] = deque(maxlen=10)

    def debug(self, message: str) -> None:
        """Progress and chatter."""

    def warning(self, message: str) -> None:
        if "Falling back on generic" not in message:  # true of every page that has no extractor of its own
            self.warnings.append(plain(message))

    def error(self, message: str) -> None:
        self.warnings.append(plain(message))


def plain(message: str) -> str:
    """A message of yt-dlp as one line of at most 300 characters, its URLs redacted."""
    shown = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+", lambda url: redacted(url[0]), message)
    return printable(re.sub(r"^ERROR: |; please report this issue on .*", "", shown), 300)


def printable(text: str, limit: int) -> str:
    """`text` as one line without control characters, cut to `limit` characters."""
    spaced = (" " if letter.isspace() else letter for letter in text)
    visible = (letter for letter in spaced if not unicodedata.category(letter).startswith("C"))
    return " ".join("".join(visible).split())[:limit].rstrip()


def open_ytdlp(
    *,
    proxy_url: str,
    timeout_s: float,
    retries: int,
    retry_wait_s: float,
    on_progress: Callable[[dict[str, Any]], None],
    check: Callable[[], None],
) -> Any:
    """A `YoutubeDL` for one fetch. `check` is called before each request and between the chunks of a page.

    Its `last_failure` is what the latest request raised, or None: the downloaders keep only its text. `requests`
    counts them.
    """
    os.environ.setdefault("YTDLP_NO_PLUGINS", "1")  # plugins are code out of folders that users can write to
    waits = {kind: lambda n: retry_wait_s * 2**n for kind in ("http", "fragment", "extractor", "file_access")}
    return _guarded_class()(
        {
            **_CLOSED,
            "logger": WarningLog(),
            "proxy": proxy_url,
            "format": _FORMAT.format(ours=f"[protocol~='^({'|'.join(_PROTOCOLS)})$']"),
            "format_sort": _FORMAT_SORT,
            "progress_hooks": [on_progress],
            "socket_timeout": timeout_s,
            "retries": retries,
            "fragment_retries": retries,
            "extractor_retries": retries,
            "retry_sleep_functions": waits,
        },
        check,
    )


_CLOSED: dict[str, Any] = {
    "quiet": True,
    "noprogress": True,
    "color": "never",
    "cachedir": False,
    "noplaylist": True,
    "allowed_extractors": ["default", *(f"-{name}.*" for name in _BROWSER_EXTRACTORS)],
    "writesubtitles": True,  # asks extractors for their lists of tracks; nothing is written
    "writeautomaticsub": True,
    "geo_bypass": False,  # no forged X-Forwarded-For
    "check_formats": False,
    "skip_unavailable_fragments": False,  # a hole would shift everything after it
    "external_downloader": "native",
    "hls_prefer_native": True,
    "ffmpeg_location": "/nonexistent",  # ffmpeg would open the network itself, past the guard
    "fixup": "never",
    "postprocessors": [],
    "nopart": True,
    "_no_ytdl_file": True,
    "updatetime": False,
    "buffersize": 64 * 1024,
    "noresizebuffer": True,  # yt-dlp grows it to 4 MB, and the limit is checked once a buffer
}


@cache
def _guarded_class() -> type:  # noqa: C901 - the sum of its methods; yt-dlp may not be imported earlier
    from yt_dlp import YoutubeDL
    from yt_dlp.networking.exceptions import HTTPError, RequestError

    class GuardedYoutubeDL(YoutubeDL):  # type: ignore[misc]
        """Every request of extractors and native downloaders comes through `urlopen`."""

        def __init__(self, params: dict[str, Any], check: Callable[[], None]) -> None:
            self.check = check
            self.last_failure: Exception | None = None
            self.requests = 0
            self._responses: list[Any] = []
            super().__init__(params)

        def build_request_director(self, handlers: Iterable[Any], preferences: Any = None) -> Any:
            return super().build_request_director(filter(_speaks_http_only, handlers), preferences)

        def urlopen(self, req: Any) -> Any:
            self.requests += 1
            self.check()
            try:
                response = super().urlopen(_through_guard(req))
            except RequestError as error:
                self.last_failure = error
                if isinstance(error, HTTPError):  # extractors read some error pages
                    self._keep(error.response)
                raise
            self.last_failure = None
            return self._keep(response)

        def process_ie_result(self, ie_result: Any, download: bool = True, extra_info: Any = None) -> Any:
            """A list stays as its extractor gave it: yt-dlp would read it to its end, and open what it names."""
            if ie_result.get("_type") in LISTS:
                return ie_result
            return super().process_ie_result(ie_result, download=download, extra_info=extra_info)

        def save(self, track: Mapping[str, Any], target: Path) -> bool:
            """Fetch one format or caption track; True when it says that it is whole."""
            info = dict(track)
            info.setdefault("http_headers", self._calc_headers(info))
            downloader = _native_downloader(info, self.params)(self, self.params)
            for hook in self.params["progress_hooks"]:
                downloader.add_progress_hook(hook)
            with _closing_all(downloader):
                return bool(downloader.download(str(target), info)[0])

        def close(self) -> None:
            for response in self._responses:
                response.close()
            super().close()

        def _keep(self, response: Any) -> Any:
            # Extractors leave a response unread once its headers say enough; its socket stays open until `close`.
            self._responses = [kept for kept in self._responses if not kept.closed] + [response]
            response.read = _bounded(response.read, self.check)
            return response

    return GuardedYoutubeDL


def _speaks_http_only(handler: Any) -> bool:
    """urllib's handler also speaks ftp:, which goes round a SOCKS proxy; no format of ours needs WebSockets."""
    return set(handler._SUPPORTED_URL_SCHEMES) <= {"http", "https"}  # noqa: SLF001 - there is no public name for it


def _through_guard(req: Any) -> Any:
    """A request without a proxy of its own: a page can name one in an address (`#__youtubedl_smuggle=…`)."""
    from yt_dlp.networking import Request

    request = Request(req) if isinstance(req, str) else req
    request.headers.pop("Ytdl-Request-Proxy", None)
    request.proxies = {}
    return request


def _native_downloader(info: dict[str, Any], params: dict[str, Any]) -> Any:
    """One of yt-dlp's three that ask for everything through `urlopen`."""
    from yt_dlp.downloader import get_suitable_downloader
    from yt_dlp.downloader.dash import DashSegmentsFD
    from yt_dlp.downloader.hls import HlsFD
    from yt_dlp.downloader.http import HttpFD

    kind = get_suitable_downloader(info, params)
    if kind not in (HttpFD, HlsFD, DashSegmentsFD):
        protocol = printable(str(info.get("protocol")), 40)
        raise SourceError(f"The video is a stream of a kind that is not fetched ({protocol}): submit the file.")
    return kind


@contextmanager
def _closing_all(downloader: Any) -> Iterator[None]:
    """Closes what the downloader opens: those of yt-dlp leave their file open when a segment fails."""
    opened: list[IO[bytes]] = []
    original = downloader.sanitize_open

    def remembered(*arguments: Any) -> Any:
        stream, name = original(*arguments)
        opened.append(stream)
        return stream, name

    downloader.sanitize_open = remembered
    try:
        yield
    finally:
        for stream in opened:
            stream.close()


def _bounded(read: Callable[[int], bytes], check: Callable[[], None]) -> Callable[..., bytes]:
    """`read` that gives a whole body only up to `MAX_PAGE_BYTES`, counted after decompression."""

    def bounded(amount: int | None = None) -> bytes:
        if amount is not None and amount >= 0:
            return read(amount)
        body = bytearray()
        while chunk := read(256 * 1024):
            check()
            body += chunk
            if len(body) > MAX_PAGE_BYTES:
                size = f"{MAX_PAGE_BYTES >> 20} MB"
                raise SourceError(f"A page or playlist is larger than {size}: submit the address of the video itself.")
        return bytes(body)

    return bounded
