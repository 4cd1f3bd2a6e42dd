"""What an address that leads to several videos gives: their addresses, up to a limit, and no visit to any of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import SourceError
from moments_resources.downloader import Downloader, Fetched, Limits, ListFound
from moments_resources.guarded_ytdlp import open_ytdlp
from moments_resources.sites import identify
from moments_resources.video_lists import entries_in, list_found
from tests.stand_ins.web_site import MP4, WebSite, feed, page, web_site

Read = Callable[..., ListFound | Fetched]


@pytest.fixture
def site() -> Iterator[WebSite]:
    with web_site() as site:
        yield site


@pytest.fixture
def read(site: WebSite, tmp_path: Path) -> Read:
    """`read(path, max_list=100)`: what the downloader says of an address of the site."""

    def read(path: str, **limits: int) -> ListFound | Fetched:
        downloader = Downloader(Limits(allow_private_hosts=True, retries=0, **limits))
        found = downloader.fetch(site.url(path), tmp_path)
        assert isinstance(found, Fetched) or list(tmp_path.iterdir()) == []
        return found

    return read


@pytest.fixture
def session() -> Iterator[Any]:
    """yt-dlp as we open it; nothing of it reaches a network here."""
    with open_ytdlp(
        proxy_url="socks5://127.0.0.1:9",
        timeout_s=1,
        retries=0,
        retry_wait_s=0,
        on_progress=lambda _: None,
        check=lambda: None,
    ) as session:
        yield session


def urls(found: ListFound | Fetched) -> list[str]:
    assert isinstance(found, ListFound)
    return [entry.url for entry in found.entries]


def test_the_videos_of_a_page_are_named_in_its_order_and_not_visited(site: WebSite, read: Read) -> None:
    site.answers["/talks"] = page("/b.mp4?x=1&y=%2f", "/a.mp4", "/c.mp4")
    found = read("/talks")
    assert urls(found) == [site.url("/b.mp4?x=1&y=%2f"), site.url("/a.mp4"), site.url("/c.mp4")]
    assert isinstance(found, ListFound)
    assert [entry.video_id for entry in found.entries] == [identify(url) for url in urls(found)]
    assert found.entries[1].title == "Talks (2)"
    assert (found.skipped, found.has_more, found.note) == (0, False, None)
    assert site.asked == ["/talks"]


def test_the_items_of_a_feed_are_named_and_not_visited(site: WebSite, read: Read) -> None:
    site.answers["/feed"] = feed("https://example.org/one?b=2&a=1#t=3", "https://youtu.be/dQw4w9WgXcQ")
    found = read("/feed")
    assert urls(found) == ["https://example.org/one?b=2&a=1", "https://youtu.be/dQw4w9WgXcQ"]
    assert isinstance(found, ListFound)
    assert [entry.title for entry in found.entries] == ["Item 1", "Item 2"]
    assert site.asked == ["/feed"] * len(site.asked)


def test_a_list_is_read_up_to_its_limit_and_that_is_told(site: WebSite, read: Read) -> None:
    site.answers["/feed"] = feed(*(f"https://example.org/{number}" for number in range(5)))
    found = read("/feed", max_list=3)
    assert urls(found) == [f"https://example.org/{number}" for number in range(3)]
    assert isinstance(found, ListFound)
    assert found.has_more
    assert str(found.note).startswith("These are the first 3 of more")
    assert read("/feed", max_list=5) == ListFound(read("/feed", max_list=100).entries)  # type: ignore[union-attr]


def test_of_a_list_without_end_no_page_is_asked_for_beyond_the_limit(session: Any) -> None:
    asked: list[int] = []

    def pages() -> Iterator[dict[str, str]]:
        for number in count():
            asked.append(number)
            yield from ({"_type": "url", "url": f"https://example.org/{number}-{item}"} for item in range(30))

    raw = list(islice(entries_in(session, {"_type": "playlist", "entries": pages()}), 101))
    found = list_found(session, raw, {}, url="https://example.org/", limit=100)
    assert (len(found.entries), found.has_more) == (100, True)
    assert asked == [0, 1, 2, 3]


def test_a_list_in_a_list_comes_in_its_place(session: Any) -> None:
    def video(name: str) -> dict[str, str]:
        return {"_type": "url", "url": f"https://example.org/{name}"}

    deeper = {"_type": "playlist", "webpage_url": "https://example.org/deeper", "entries": [video("x")]}
    inner = {"_type": "playlist", "entries": iter([video("b"), deeper])}
    info = {"_type": "playlist", "entries": [video("a"), inner, None, video("c")]}
    found = list_found(session, list(entries_in(session, info)), info, url="https://example.org/", limit=10)
    assert [entry.url.rpartition("/")[2] for entry in found.entries] == ["a", "b", "deeper", "c"]
    assert found.skipped == 1


def test_a_video_that_is_named_twice_comes_once_and_the_list_itself_never(site: WebSite, read: Read) -> None:
    one = "https://example.org/one"
    tube = "https://youtu.be/dQw4w9WgXcQ"
    site.answers["/feed"] = feed(
        one, tube, f"{one}?utm_source=x", site.url("/feed"), "https://youtube.com/watch?v=dQw4w9WgXcQ&t=9"
    )
    found = read("/feed")
    assert urls(found) == [one, tube]
    assert isinstance(found, ListFound)
    assert found.skipped == 0


@pytest.mark.parametrize("hostile", ["file:///etc/passwd", "ftp://example.org/a.mp4", "https://u:p@example.org/a.mp4"])
def test_what_is_no_web_address_is_left_out_and_counted(hostile: str, site: WebSite, read: Read) -> None:
    site.answers["/feed"] = feed("https://example.org/one", hostile, "https://example.org/two")
    found = read("/feed")
    assert urls(found) == ["https://example.org/one", "https://example.org/two"]
    assert isinstance(found, ListFound)
    assert (found.skipped, found.note) == (1, "Left out, for they are no web addresses: 1.")


def test_a_file_of_this_machine_on_a_page_of_videos_is_left_out(site: WebSite, read: Read) -> None:
    site.answers["/talks"] = page("/a.mp4", "file:///etc/passwd", "rtmp://example.org/x", "/b.mp4")
    found = read("/talks")
    assert urls(found) == [site.url("/a.mp4"), site.url("/b.mp4")]
    assert isinstance(found, ListFound)
    assert found.skipped == 2


def test_a_list_without_a_web_address_says_so(site: WebSite, read: Read) -> None:
    site.answers["/feed"] = feed("file:///etc/passwd", "file:///etc/group")
    with pytest.raises(SourceError, match="none of its entries has a web address of its own: submit"):
        read("/feed")


def test_a_list_of_one_is_that_video(site: WebSite, read: Read) -> None:
    site.answers |= {"/feed": feed(site.url("/a.mp4")), "/a.mp4": (MP4, b"x" * 5000)}
    found = read("/feed")
    assert isinstance(found, Fetched)
    assert found.path.read_bytes() == b"x" * 5000


def test_an_address_inside_that_a_public_list_names_is_not_fetched(site: WebSite, tmp_path: Path) -> None:
    with web_site("127.0.0.2") as public:
        public.answers["/feed"] = feed(site.url("/secret.mp4"), public.url("/a.mp4"))
        downloader = Downloader(is_allowed=lambda address: address == ipaddress.ip_address("127.0.0.2"))
        found = downloader.fetch(public.url("/feed"), tmp_path)
        with pytest.raises(SourceError, match="a private address, which is not fetched"):
            downloader.fetch(urls(found)[0], tmp_path)
    assert site.asked == []
