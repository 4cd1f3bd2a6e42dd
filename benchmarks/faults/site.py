"""A web site with short videos, each under an address of its own; it can be told to fail."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_SLOW_S = 0.5  # a fetch from loopback would be over before anything could hit it


class Site:
    """`failures`: what the next requests for a video get: a status, or "cut" (half of it, then the end)."""

    def __init__(self, video: bytes) -> None:
        self.video = video
        self.failures: list[int | str] = []
        self.struck: list[tuple[float, str]] = []  # (time.monotonic(), address) of each failure that was played
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.site = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, name="stand-in site", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def address(self, name: str) -> str:
        """Of a video; names that begin with `poison` lead to something that is none."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}.mp4"

    def next_failure(self, path: str) -> int | str | None:
        with self._lock:
            if not self.failures:
                return None
            self.struck.append((time.monotonic(), self.address(path.strip("/").removesuffix(".mp4"))))
            return self.failures.pop(0)


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._head(200, len(self._body()))

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        failure, body = site.next_failure(self.path), self._body()
        if isinstance(failure, int):
            self._head(failure, 0)
            return
        self._head(200, len(body))
        self.wfile.write(body[: len(body) // 2])
        if failure is None:
            time.sleep(_SLOW_S)
            self.wfile.write(body[len(body) // 2 :])
        self.close_connection = True

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _body(self) -> bytes:
        site: Site = self.server.site  # type: ignore[attr-defined]
        return b"This is no video." * 100 if self.path.startswith("/poison") else site.video

    def log_message(self, *_: Any) -> None:
        """Quiet."""
