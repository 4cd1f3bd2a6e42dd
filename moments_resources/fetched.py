"""What a fetch gives: files, captions, and what the page says about the video. All of it is hostile until read here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from moments_core.errors import SourceError
from moments_core.source import parse_url
from moments_resources.guarded_ytdlp import printable

Info: TypeAlias = Mapping[str, Any]  # yt-dlp's description of a video, a format or a caption track
CaptionKind: TypeAlias = Literal["human", "automatic"]


@dataclass(frozen=True, slots=True)
class Captions:
    """One caption track in the video's own language; `text` is WebVTT or SRT, as it was fetched."""

    language: str
    kind: CaptionKind
    text: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched video. Strings come from the page, stripped of control characters and cut to a length.

    `audio_path` is None where `path` holds everything. Sites that keep better qualities apart give two files; whoever
    owns ffmpeg joins them, with its checks: yt-dlp would run ffmpeg on hostile media without any.
    `notes` says what was done without: captions that could not be fetched, yt-dlp's warnings.
    """

    path: Path
    page_url: str
    extractor: str
    audio_path: Path | None = None
    title: str | None = None
    channel: str | None = None
    description: str | None = None
    language: str | None = None
    published_at: datetime | None = None
    duration_ms: int | None = None
    captions: Captions | None = None
    notes: tuple[str, ...] = ()


def described(
    info: Info, normal_url: str, paths: Sequence[Path], captions: Captions | None, notes: tuple[str, ...]
) -> Fetched:
    """`info` in our own words: nothing of it is passed on unread."""
    return Fetched(
        path=paths[0],
        audio_path=paths[1] if len(paths) > 1 else None,
        page_url=_page_url(info, normal_url),
        extractor=printable(str(info.get("extractor") or "generic").lower(), 80),
        title=_title(info),
        channel=_text(info.get("channel") or info.get("uploader"), 120),
        description=_paragraphs(info.get("description"), 5000),
        language=_language(info.get("language")),
        published_at=_published_at(info),
        duration_ms=duration_ms(info),
        captions=captions,
        notes=notes,
    )


def _page_url(info: Info, normal_url: str) -> str:
    try:
        return parse_url(str(info.get("webpage_url")))
    except SourceError:
        return normal_url


def _title(info: Info) -> str | None:
    title = _text(info.get("title"), 300)
    # yt-dlp numbers the <video> tags of a page, even a single one.
    return title.removesuffix(" (1)") if title and info.get("extractor") == "html5" else title


def _text(value: object, limit: int) -> str | None:
    return printable(value, limit) or None if isinstance(value, str) else None


def _paragraphs(value: object, limit: int) -> str | None:
    lines = value.splitlines() if isinstance(value, str) else []
    return "\n".join(printable(line, limit) for line in lines).strip()[:limit].rstrip() or None


def _language(value: object) -> str | None:
    known = isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8}){0,3}", value)
    return str(value) if known else None


def _published_at(info: Info) -> datetime | None:
    try:
        if info.get("timestamp") is not None:
            return datetime.fromtimestamp(float(info["timestamp"]), UTC)
        return datetime.strptime(str(info.get("upload_date")), "%Y%m%d").replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, OSError):  # the page's statement, and it is no date
        return None


def duration_ms(info: Info) -> int | None:
    """The page's statement, or None; the file may say otherwise."""
    try:
        return round(float(info["duration"]) * 1000)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def choose_captions(info: Info) -> tuple[str, CaptionKind, Info] | None:
    """The caption track in the video's language: people's before the recogniser's; never a translation."""
    human, automatic = info.get("subtitles") or {}, info.get("automatic_captions") or {}
    spoken = _language(info.get("language"))
    if name := _track_name(human, spoken, alone=True):
        return _tag(name), "human", _readable(human[name])[0]
    if name := _track_name(automatic, spoken, alone=False):
        return _tag(name), "automatic", _readable(automatic[name])[0]
    return None


def _track_name(tracks: Mapping[str, Any], spoken: str | None, *, alone: bool) -> str | None:
    """YouTube calls the recogniser's own output `en-orig` and offers 100 translations of it beside.

    `alone`: where the language is unknown, a track that is the only one is taken for it.
    """
    names = [name for name in tracks if name != "live_chat" and _readable(tracks[name])]
    originals = [name for name in names if name.endswith("-orig")]
    if spoken:
        exact = [name for name in (*originals, *names) if _tag(name).lower() == spoken.lower()]
        related = [name for name in (*originals, *names) if _primary(name) == _primary(spoken)]
        return next(iter(exact + related), None)
    return next(iter(originals or (names if alone and len(names) == 1 else [])), None)


def _readable(formats: Any) -> list[Info]:
    fitting = [track for track in formats or () if track.get("ext") in ("vtt", "srt")]
    return sorted(fitting, key=lambda track: track.get("ext") != "vtt")


def _tag(name: str) -> str:
    return printable(name.removesuffix("-orig"), 40)


def _primary(name: str) -> str:
    return re.split("[-_]", name.lower())[0]
