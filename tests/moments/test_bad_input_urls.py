"""Addresses that lead to no video, or where they must not, through the whole job."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from moments.results import Results
from moments.services import Lakehouse
from moments_resources.media.container import ffmpeg_exe

Json = dict[str, Any]

HTML, MP4 = "text/html", "video/mp4"
PAGE = b"<!DOCTYPE html><html><head><title>A talk</title></head><body><p>Nothing to see.</p></body></html>"
ENDLESS = 1 << 30  # bytes; the server gives what it promised for as long as somebody takes it

#: path -> status, content type, body, promised length (None: that of the body)
ROUTES: dict[str, tuple[int, str, bytes, int | None]] = {
    "/absent.mp4": (404, HTML, b"", None),
    "/forbidden.mp4": (403, HTML, b"", None),
    "/members": (401, HTML, b"", None),
    "/broken": (500, HTML, b"", None),
    "/page": (200, HTML, PAGE, None),
    "/page.mp4": (200, MP4, PAGE, None),
    "/page-that-says-so.mp4": (200, HTML, PAGE, None),
    "/list.mp4": (200, MP4, b"#EXTM3U\n#EXTINF:6,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", None),
    "/concat.mp4": (200, MP4, b"ffconcat version 1.0\nfile '/etc/passwd'\n", None),
    "/empty.mp4": (200, MP4, b"", None),
    "/endless.mp4": (200, MP4, bytes(65536), ENDLESS),
}

#: name -> (class, words); those that are repeated come first, for they wait most of the time
FAILURES = {
    "/cut.mp4": ("transient", "broke off"),
    "nobody listens": ("transient", "can't be reached (it refuses the connection): try again later."),
    "/broken": ("transient", "answers HTTP 500 Internal Server Error: try again later."),
    "unknown host": ("permanent", "The host of http://no-such-host.invalid/talk.mp4 is unknown: check its spelling."),
    "/absent.mp4": ("permanent", "is not there: check the address (HTTP 404 Not Found)."),
    "/forbidden.mp4": ("permanent", "or is forbidden: submit a public address, or the file itself (HTTP 403"),
    "/members": ("permanent", "can't be fetched without signing in"),
    "/page": ("permanent", "holds no video that can be fetched"),
    "/page.mp4": ("permanent", "is a web page, not a video"),
    "/page-that-says-so.mp4": ("permanent", "holds no video that can be fetched"),
    "/list.mp4": ("permanent", ""),
    "/concat.mp4": ("permanent", ""),
    "/sound.m4a": ("permanent", "has sound but no picture: submit a video."),
    "/endless.mp4": ("permanent", "is larger than the limit of 1.0 MB: submit a smaller file."),
}

REFUSED_AT_ONCE = {
    "file:///etc/passwd": "Addresses that start with file: are not fetched, only http: and https:.",
    "file:talk.mp4": "Addresses that start with file: are not fetched",
    "ftp://example.org/talk.mp4": "Addresses that start with ftp: are not fetched",
    "javascript:alert(1)": "Addresses that start with javascript: are not fetched",
    "data:video/mp4;base64,AAAA": "Addresses that start with data: are not fetched",
    "C:\\Users\\me\\talk.mp4": "neither a web address nor a file that exists",
    "\\\\server\\share\\talk.mp4": "neither a web address nor a file that exists",
    "--exec=touch /tmp/x": "reads as an option",
    "https://": "The address has no host",
    "https://[::1/x": "The host of the address can't be read",
    "http://exa mple.org/": "The address holds a space",
    "http://example.org:99999/": "The port of the address",
    "": "The address is empty",
    "\0": "neither a web address nor a file that exists",
    "https://example.org/" + "x" * 3000: "more than 2048: give a shorter one.",
}

SPELLINGS = (
    "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
)  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        status, kind, body, promised = self.server.routes.get(self.path, ROUTES["/absent.mp4"])  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        try:
            self.wfile.write(body)
            while promised == ENDLESS:
                self.wfile.write(body)
        except OSError:
            pass  # the downloader had enough
        self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class _Site(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.routes = dict(ROUTES)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that break off are what this is about

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    folder = tmp_path_factory.mktemp("site")
    picture = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=6", "-c:v", "libx264", "-preset", "ultrafast")
    _ffmpeg(folder / "talk.mp4", *picture, "-pix_fmt", "yuv420p")
    _ffmpeg(folder / "sound.m4a", "-f", "lavfi", "-i", "sine=d=2", "-c:a", "aac")
    talk, sound = (folder / "talk.mp4").read_bytes(), (folder / "sound.m4a").read_bytes()
    with _Site() as site:
        site.routes |= {
            "/talk.mp4": (200, MP4, talk, None),
            "/cut.mp4": (200, MP4, talk[: len(talk) // 2], len(talk)),
            "/sound.m4a": (200, "audio/mp4", sound, None),
        }
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def _ffmpeg(target: Path, *arguments: str) -> None:
    subprocess.run([ffmpeg_exe(), "-nostdin", "-v", "error", *arguments, f"file:{target}"], check=True)


@pytest.fixture(scope="module")
def taken(site: _Site, take_all: Callable[..., dict[str, Json]]) -> dict[str, Json]:
    """All of them in one go, and a good one among them."""
    addresses = {name: site.url(name) for name in (*FAILURES, "/talk.mp4")}
    addresses["unknown host"] = "http://no-such-host.invalid/talk.mp4"
    with pytest.MonkeyPatch.context() as patch, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # bound, and nobody listens
        addresses["nobody listens"] = f"http://127.0.0.1:{deaf.getsockname()[1]}/talk.mp4"
        patch.setenv("MOMENTS_MAX_GIGABYTES", "0.001")
        return take_all(addresses, at_once=5)


@pytest.mark.parametrize("name", FAILURES)
def test_an_address_without_a_video_fails_with_one_clear_sentence(
    name: str, taken: dict[str, Json], shared_lakehouse: Lakehouse, clear_failure: Callable[..., str]
) -> None:
    failure_class, words = FAILURES[name]
    clear_failure(shared_lakehouse, taken[name], failure_class=failure_class, words=words)


@pytest.mark.parametrize(("name", "attempts"), [("/broken", 3), ("nobody listens", 3), ("/absent.mp4", 1)])
def test_what_may_go_well_the_next_time_is_tried_three_times_and_the_rest_once(
    name: str, attempts: int, taken: dict[str, Json], shared_lakehouse: Lakehouse
) -> None:
    query = "select outcome from public.pipeline_history where intake_id = :id order by attempt_id"
    outcomes = [row["outcome"] for row in Results(shared_lakehouse).rows(query, id=taken[name]["intake_id"])]
    assert outcomes == ["retrying"] * (attempts - 1) + ["failed"]


def test_a_good_video_among_bad_ones_completes(taken: dict[str, Json]) -> None:
    assert taken["/talk.mp4"]["status"] == "completed", taken["/talk.mp4"]["error"]
    assert taken["/talk.mp4"]["moments"]


def test_bad_addresses_leave_nothing_behind(
    taken: dict[str, Json], shared_lakehouse: Lakehouse, left_running: Callable[[], list[str]]
) -> None:
    assert list((shared_lakehouse.settings.state / "scratch").glob("*")) == []
    assert left_running() == []
    videos = Results(shared_lakehouse).rows("select distinct video_id from public.artifacts")
    assert [row["video_id"] for row in videos] == [taken["/talk.mp4"]["video_id"]]


@pytest.mark.parametrize("source", REFUSED_AT_ONCE)
def test_what_is_no_web_address_is_refused_at_once_and_kept(
    source: str,
    take_all: Callable[..., dict[str, Json]],
    shared_lakehouse: Lakehouse,
    clear_failure: Callable[..., str],
) -> None:
    result = take_all({"it": source})["it"]
    clear_failure(shared_lakehouse, result, failure_class="permanent", words=REFUSED_AT_ONCE[source])
    assert result["video_id"] is None


def test_a_password_in_an_address_is_neither_stored_nor_repeated(
    site: _Site,
    take_all: Callable[..., dict[str, Json]],
    shared_lakehouse: Lakehouse,
    clear_failure: Callable[..., str],
) -> None:
    result = take_all({"it": f"http://me:hunter2@127.0.0.1:{site.server_address[1]}/talk.mp4"})["it"]
    reason = clear_failure(shared_lakehouse, result, failure_class="permanent", words="user name or password")
    kept = Results(shared_lakehouse).rows(
        "select i::text, h::text from url_intake i join pipeline_history h using (intake_id)"
    )
    assert "hunter2" not in f"{reason}{kept}"


@pytest.fixture(scope="module")
def refused(site: _Site, taken: dict[str, Json], take_all: Callable[..., dict[str, Json]]) -> dict[str, Json]:
    """The good video by addresses of this machine, where they are not allowed. Comes after `taken`."""
    site.asked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MOMENTS_ALLOW_PRIVATE_HOSTS")
        return take_all({host: site.url("/secret.mp4", host) for host in SPELLINGS})


@pytest.mark.parametrize("host", SPELLINGS)
def test_this_machine_is_not_fetched_from_in_any_spelling(
    host: str,
    refused: dict[str, Json],
    site: _Site,
    shared_lakehouse: Lakehouse,
    clear_failure: Callable[..., str],
) -> None:
    reason = clear_failure(shared_lakehouse, refused[host], failure_class="permanent", words="")
    assert "a private address, which is not fetched: set MOMENTS_ALLOW_PRIVATE_HOSTS=1" in reason
    assert site.asked == []
