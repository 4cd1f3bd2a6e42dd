"""Fetches the video of a URL into a folder, with captions and what its page says about it; or says which it lists."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from moments_core.errors import MomentsError, NetworkError, SourceError
from moments_core.source import parse_url, public_url
from moments_resources.address_guard import AddressGuard, Policy, policy
from moments_resources.download_failures import download_failure
from moments_resources.fetched import Captions, Fetched, Info, choose_captions, described, duration_ms
from moments_resources.guarded_ytdlp import open_ytdlp, plain
from moments_resources.sites import identify
from moments_resources.video_lists import ListFound, as_in, entries_in, list_found

__all__ = ["Captions", "Downloader", "Fetched", "Limits", "ListFound", "Progress", "identify"]

Progress: TypeAlias = Callable[[int, int | None], None]  # bytes so far, bytes in all if they are known

MAX_PAGES = 60  # requests until the video is found; YouTube takes about ten
ENTRIES_A_PAGE = 10  # of a long list, at least; YouTube gives 30 and more
MAX_CAPTION_BYTES = 16 * 1024 * 1024  # ten hours of automatic captions with word times have 6 MB
_EXTENSION = re.compile("mp4|m4v|mov|webm|mkv|ogv|ogg|avi|flv|ts|mpg|wmv|3gp|m4a|mp3|opus|aac|wav|flac")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one fetch may take.

    `max_bytes` counts what arrives, over all files. `max_duration_ms` holds against the page's own statement;
    None: no limit. `max_seconds` ends a fetch whose server drips. Of a list, `max_list` entries are read. A request is
    repeated `retries` times, after `retry_wait_s`, twice that, and so on.
    """

    max_bytes: int = 20 * 1024**3
    max_duration_ms: int | None = 12 * 3_600_000
    max_seconds: float = 4 * 3600.0
    max_list: int = 100
    allow_private_hosts: bool = False
    timeout_s: float = 20.0
    retries: int = 3
    retry_wait_s: float = 1.0


class Downloader:
    """yt-dlp behind an `AddressGuard`. `is_allowed` overrides the policy that `limits` names."""

    def __init__(self, limits: Limits | None = None, *, is_allowed: Policy | None = None) -> None:
        self._limits = limits or Limits()
        self._is_allowed = is_allowed or policy(allow_private=self._limits.allow_private_hosts)

    def fetch(self, url: str, folder: Path, *, on_progress: Progress | None = None) -> Fetched | ListFound:
        """Fetch the video of `url` into `folder` as `video.…`, and `audio.…` where the sound is apart.

        Where `url` leads to several videos, nothing is fetched, and what they are is the answer. What is asked for
        is `url` to the letter, its fragment aside; its normal form only names the page. Nothing is left in `folder`
        when it fails. Raises SourceError (permanent), NetworkError and ResourceError (transient).
        """
        normal_url = parse_url(url)
        with (
            AddressGuard(self._is_allowed) as guard,
            tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch,
        ):
            fetch = _Fetch(url.partition("#")[0], guard, self._limits, on_progress)
            with fetch.session:
                return fetch.run(Path(scratch), folder, normal_url)


class _Fetch:
    """One fetch: its session, its clock and its count of bytes."""

    def __init__(self, url: str, guard: AddressGuard, limits: Limits, on_progress: Progress | None) -> None:
        self._url = url
        self._guard = guard
        self._limits = limits
        self._tell = on_progress
        self._ends_at = time.monotonic() + limits.max_seconds
        self._bytes_before = 0  # of the files that are complete
        self._most_pages = MAX_PAGES
        self._resolving = True  # until it is known which files make the video
        self._caller_error: Exception | None = None
        self.session = open_ytdlp(
            proxy_url=guard.proxy_url,
            timeout_s=limits.timeout_s,
            retries=limits.retries,
            retry_wait_s=limits.retry_wait_s,
            on_progress=self._count,
            check=self._check,
        )

    def run(self, scratch: Path, folder: Path, normal_url: str) -> Fetched | ListFound:
        with self._failures_of_ours():
            info = self._found()
        self._resolving = False
        if isinstance(info, ListFound):
            return info
        self._refuse_unfit(info)
        with self._failures_of_ours():
            paths = [self._save(track, scratch / name) for track, name in _tracks(info)]
        captions, note = self._captions(info, scratch)
        notes = tuple(filter(None, (note, *self.session.params["logger"].warnings)))
        kept = [path.replace(folder / path.name) for path in paths]
        return described(info, normal_url, kept, captions, notes)

    @contextmanager
    def _failures_of_ours(self) -> Iterator[None]:
        try:
            yield
        except MomentsError:
            raise
        except Exception as error:  # 1,750 extractors over hostile pages raise whatever Python can
            if error is self._caller_error:
                raise
            raise download_failure(
                error, url=self._url, refused=self._guard.refused, last_failure=self.session.last_failure
            ) from error

    def _found(self) -> Info | ListFound:
        """The one video of a page, or the list that it is; a list of one is that one."""
        info = self.session.extract_info(self._url, download=False) or {}
        for _ in range(3):  # a list in a list in a list is nobody's video page
            if info.get("_type", "video") == "video":
                return dict(info)
            self._most_pages = MAX_PAGES + self._limits.max_list // ENTRIES_A_PAGE
            # One more than is taken tells whether there are more: pages that nobody asks for are not fetched.
            raw = list(islice(entries_in(self.session, info), self._limits.max_list + 1))
            if len(raw) > 1:
                return self._list(raw, info)
            entry = self._only_entry(raw)
            info = self.session.process_ie_result(entry, download=False, extra_info=as_in(info)) or {}
        raise SourceError(f"{public_url(self._url)} is a list of lists: submit the address of one video.")

    def _list(self, raw: list[Info | None], info: Info) -> ListFound:
        found = list_found(self.session, raw, info, url=self._url, limit=self._limits.max_list)
        if not found.entries:
            raise SourceError(
                f"{public_url(self._url)} is a list, and none of its entries has a web address of its own: "
                "submit the videos themselves."
            )
        return found

    def _only_entry(self, raw: list[Info | None]) -> Info:
        if not any(raw):
            raise SourceError(f"{public_url(self._url)} is an empty list: submit the address of a video.")
        return dict(raw[0] or {})

    def _refuse_unfit(self, info: Info) -> None:
        shown = public_url(self._url)
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
            raise SourceError(f"{shown} is a live stream: submit it when it is over.")
        lasts_ms, longest_ms = duration_ms(info), self._limits.max_duration_ms
        if lasts_ms and longest_ms and lasts_ms > longest_ms:
            raise SourceError(
                f"{shown} lasts {lasts_ms // 60_000} minutes, more than the limit of {longest_ms // 60_000}: "
                "submit a shorter one.",
                duration_ms=lasts_ms,
            )
        for track, _ in _tracks(info):
            self._refuse_larger(int(track.get("filesize") or 0))

    def _refuse_larger(self, count: int) -> None:
        if count > self._limits.max_bytes:
            limit = f"{self._limits.max_bytes / 1e6:,.1f} MB"
            raise SourceError(f"{public_url(self._url)} is larger than the limit of {limit}: submit a smaller file.")

    def _save(self, track: Info, target: Path) -> Path:
        if not self.session.save(track, target) or not target.is_file() or not target.stat().st_size:
            raise NetworkError(f"{public_url(self._url)} ended without a file: try again later.")
        self._bytes_before += target.stat().st_size
        return target

    def _count(self, state: Info) -> None:
        """Called by yt-dlp for each 64 KiB: its own size limit trusts the Content-Length, and fails silently."""
        self._check()
        done = self._bytes_before + int(state.get("downloaded_bytes") or 0)
        total = state.get("total_bytes")
        self._refuse_larger(max(done, self._bytes_before + int(total or 0)))
        if self._tell is None:
            return
        try:
            self._tell(done, None if total is None else self._bytes_before + int(total))
        except Exception as error:
            self._caller_error = error  # theirs, to be raised as it is
            raise

    def _check(self) -> None:
        if self._resolving and self.session.requests > self._most_pages:
            raise SourceError(f"{public_url(self._url)} leads from page to page without end: submit the video's own.")
        if time.monotonic() > self._ends_at:
            seconds = round(self._limits.max_seconds)
            raise NetworkError(f"{public_url(self._url)} was not fetched within {seconds} seconds: try again later.")

    def _captions(self, info: Info, scratch: Path) -> tuple[Captions | None, str]:
        """The track and "", or None and why a track that is offered could not be had; the video is worth more."""
        choice = choose_captions(info)
        if choice is None:
            return None, ""
        language, kind, track = choice
        try:
            with self._failures_of_ours():
                text = self._caption_text(track, scratch / "captions.vtt")
        except (SourceError, NetworkError) as error:
            return None, plain(f"The {kind} captions ({language}) are missing: {error}")
        return Captions(language, kind, text), ""

    def _caption_text(self, track: Info, target: Path) -> str:
        if track.get("data"):
            return str(track["data"])[:MAX_CAPTION_BYTES]
        self._tell = None  # the caller counts the video's bytes
        self.session.save(track, target)
        if target.stat().st_size > MAX_CAPTION_BYTES:
            raise SourceError(f"the track is larger than {MAX_CAPTION_BYTES >> 20} MB.")
        return target.read_text("utf-8", errors="replace")


def _tracks(info: Info) -> list[tuple[Info, str]]:
    """What has to be fetched, and the file name for each: names are ours, never the page's."""
    formats = info.get("requested_formats") or [info]
    return [(track, f"{name}.{_extension(track)}") for track, name in zip(formats, ("video", "audio"), strict=False)]


def _extension(track: Info) -> str:
    extension = str(track.get("ext")).lower()
    return extension if _EXTENSION.fullmatch(extension) else "media"
