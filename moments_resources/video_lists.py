"""The list of videos behind one address: which it names. It is read up to a limit, and none of them is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moments_core.errors import SourceError
from moments_resources.fetched import Info
from moments_resources.guarded_ytdlp import LISTS, printable
from moments_resources.sites import identify


@dataclass(frozen=True, slots=True)
class Entry:
    """One video of a list: its address as the list gives it, its fragment aside, its id and what it is called."""

    url: str
    video_id: str
    title: str | None = None


@dataclass(frozen=True, slots=True)
class ListFound:
    """An address led to several videos. `entries` keep the list's order, each video once.

    `skipped` counts entries that are no http(s) address; `has_more`: the list goes on after the limit.
    """

    entries: tuple[Entry, ...]
    skipped: int = 0
    has_more: bool = False

    @property
    def note(self) -> str | None:
        """What was left out, for the user."""
        more = f"These are the first {len(self.entries)} of more: raise MOMENTS_MAX_LIST to take them in."
        gone = f"Left out, for they are no web addresses: {self.skipped}."
        return " ".join([more] * self.has_more + [gone] * bool(self.skipped)) or None


def entries_in(session: Any, info: Info) -> Iterator[Info | None]:
    """The entries of a list as its extractor gives them, fetched page by page; those of a list in it in its place.

    None stands for an entry that the site did not give. A list in a list in the list is one entry.
    """
    for entry in _entries(session, info):
        if entry and entry.get("_type") in LISTS:
            yield from _entries(session, entry)
        else:
            yield entry


def _entries(session: Any, info: Info) -> Iterator[Info | None]:
    from yt_dlp.utils import PlaylistEntries

    if info.get("entries") is not None:
        yield from (entry for _, entry in PlaylistEntries(session, info)[:])


def list_found(session: Any, raw: Sequence[Info | None], page: Info, *, url: str, limit: int) -> ListFound:
    """The videos that the first `limit` entries of the list at `url` name."""
    own_id = identify(url)
    named = [_named(session, entry, page, own_id) if entry else None for entry in raw[:limit]]
    known: dict[str, Entry] = {}
    for entry in filter(None, named):
        known.setdefault(entry.video_id, entry)
    known.pop(own_id, None)  # a list that names itself
    return ListFound(tuple(known.values()), skipped=named.count(None), has_more=len(raw) > limit)


def as_in(page: Info) -> Info:
    """What yt-dlp wants to know of the page beside an entry that is to be opened."""
    known = ("extractor", "extractor_key", "webpage_url", "original_url")
    return {name: page[name] for name in known if page.get(name)}


def _named(session: Any, entry: Info, page: Info, own_id: str) -> Entry | None:
    """The entry by its own page or, where the list is its page, as in a carousel, by the address of its media."""
    kind = str(entry.get("_type") or "video")
    title = printable(str(entry.get("title") or ""), 300) or None
    named = _identified(entry.get("url" if kind.startswith("url") else "webpage_url"), title)
    if kind == "video" and (named is None or named.video_id == own_id):
        return _identified(_media_address(session, entry, page), title)
    return named


def _identified(address: object, title: str | None) -> Entry | None:
    url = str(address or "").partition("#")[0]  # yt-dlp's extractors pass notes to each other behind the #
    try:
        return Entry(url, identify(url), title)
    except SourceError:
        return None


def _media_address(session: Any, entry: Info, page: Info) -> object:
    """Of the format that would be fetched; a stream's list where picture and sound are apart. None: there is none."""
    from yt_dlp.utils import YoutubeDLError

    try:
        video = session.process_ie_result(dict(entry), download=False, extra_info=as_in(page))
    except YoutubeDLError:  # no format that is fetched, no title: one entry must not cost the others
        return None
    parts = video.get("requested_formats")
    return parts[0].get("manifest_url") if parts else video.get("url")
