"""Which video a URL names, told offline: known sites have their own id, everything else its address."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

from moments_core.source import parse_url, video_id_for_site, video_id_for_url


@dataclass(frozen=True, slots=True)
class _Site:
    """A site whose id names one video on the whole site.

    Only such sites stand here. yt-dlp can read an id out of far more addresses, but many are unique only within a
    channel: `a.bandcamp.com/track/intro` and `b.bandcamp.com/track/intro` would be one video, and the second of them
    would never be processed.
    """

    module: str
    extractors: tuple[str, ...]
    ignored: frozenset[str] = frozenset()  # parameters that name a list around the video, not the video


_YOUTUBE = _Site("youtube", ("YoutubeIE",), frozenset({"list", "index", "start_radio"}))
_DAILYMOTION = _Site("dailymotion", ("DailymotionIE",))
_SITES = {
    "youtube.com": _YOUTUBE,
    "youtube-nocookie.com": _YOUTUBE,
    "youtu.be": _YOUTUBE,
    "vimeo.com": _Site("vimeo", ("VimeoIE",)),
    "ted.com": _Site("ted", ("TedTalkIE",)),
    "dailymotion.com": _DAILYMOTION,
    "dai.ly": _DAILYMOTION,
    "twitch.tv": _Site("twitch", ("TwitchVodIE", "TwitchClipsIE")),
    "loom.com": _Site("loom", ("LoomIE",)),
    "streamable.com": _Site("streamable", ("StreamableIE",)),
    "tiktok.com": _Site("tiktok", ("TikTokIE",)),
    "nicovideo.jp": _Site("niconico", ("NiconicoIE",)),
    "media.ccc.de": _Site("ccc", ("CCCIE",)),
}


def identify(url: str) -> str:
    """The video id of a URL, without a connection: `youtube-…` for a known site, else `web-…`.

    yt-dlp's own patterns read the id, so that all spellings that it takes for one video are one video here. Its
    extractors are imported one site at a time: 0.25 s of CPU for the first known site, nothing for other hosts,
    against 1 s for all 1,750 of them. Raises SourceError for what is no http(s) URL.
    """
    normal = parse_url(url)
    site = _site_of(normal)
    return (site and _site_video_id(site, normal)) or video_id_for_url(normal)


def _site_of(url: str) -> _Site | None:
    labels = (urlsplit(url).hostname or "").split(".")
    names = (".".join(labels[start:]) for start in range(len(labels)))
    return next((_SITES[name] for name in names if name in _SITES), None)


def _site_video_id(site: _Site, url: str) -> str | None:
    address = _without(url, site.ignored)
    if "playlist" in parse_qs(urlsplit(address).query):
        return None
    module = importlib.import_module(f"yt_dlp.extractor.{site.module}")
    for name in site.extractors:
        extractor = getattr(module, name)
        if extractor.suitable(address):
            return video_id_for_site(extractor.ie_key(), extractor.get_temp_id(address))
    return None


def _without(url: str, parameters: frozenset[str]) -> str:
    parts = urlsplit(url)
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in parameters]
    return urlunsplit(parts._replace(query=urlencode(kept)))
