"""A web site with pages and feeds that name several videos."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

Answer = tuple[str, bytes]  # content type and body

HTML, FEED, MP4 = "text/html", "application/rss+xml", "video/mp4"


class WebSite(ThreadingHTTPServer):
    """Answers GET and HEAD by `answers`, from paths; `asked` lists the paths of all requests."""

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: WebSite

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind, body = self.server.answers.get(self.path, (HTML, b""))
        self.send_response(200 if self.path in self.server.answers else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_site(host: str = "127.0.0.1") -> Iterator[WebSite]:
    with WebSite(host) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


def page(*videos: str) -> Answer:
    """A page that plays each of the addresses."""
    tags = "".join(f'<video src="{escape(url)}"></video>' for url in videos)
    return HTML, f"<html><head><title>Talks</title></head><body>{tags}</body></html>".encode()


def feed(*links: str) -> Answer:
    """A podcast's feed with an item for each of the addresses."""
    items = "".join(
        f"<item><title>Item {number}</title><link>{escape(url)}</link></item>" for number, url in enumerate(links, 1)
    )
    head = '<?xml version="1.0"?><rss version="2.0"><channel><title>Feed</title>'
    return FEED, f"{head}{items}</channel></rss>".encode()
