from __future__ import annotations

import gzip
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from moments_core.errors import MomentsError, NetworkError, ResourceError, SourceError
from moments_core.source import parse_url, video_id_for_site, video_id_for_url
from moments_resources.address_guard import AddressGuard, Policy, policy
from moments_resources.download_failures import download_failure
from moments_resources.downloader import MAX_PAGES, Downloader, Limits, identify
from moments_resources.fetched import choose_captions
from moments_resources.guarded_ytdlp import open_ytdlp, plain
from moments_resources.sites import _SITES

_M3U8 = {"Content_Type": "application/x-mpegurl"}
VTT = "WEBVTT\n\n00:00.000 --> 00:02.000\nHello there.\n"

Route = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        route = self.server.routes.get(self.path.partition("?")[0], _answer(404))  # type: ignore[attr-defined]
        try:
            route(self)
        except OSError:
            self.close_connection = True  # the downloader had enough

    def log_message(self, *_: object) -> None:
        pass


class _Site(ThreadingHTTPServer):
    """Answers by `routes`; `asked` lists the paths of all requests, `met` the clients of all connections."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.asked: list[str] = []
        self.met: list[object] = []
        self.routes: dict[str, Route] = {}
        self.closing = threading.Event()

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002
        self.met.append(client_address)
        return True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that breaks off is what half of the tests are about

    def url(self, path: str = "/", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server_address[1]}{path}"


@pytest.fixture
def start() -> Iterator[Callable[[str], _Site]]:
    with ExitStack() as stack:

        def start_site(host: str) -> _Site:
            site = stack.enter_context(_Site(host))
            thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(site.shutdown)
            stack.callback(site.closing.set)
            return site

        yield start_site


@pytest.fixture
def site(start: Callable[[str], _Site]) -> _Site:
    return start("127.0.0.1")


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with talk.mp4, its two tracks alone, and the same as HLS."""
    folder = tmp_path_factory.mktemp("talk")
    picture = (
        "-f lavfi -i testsrc2=s=160x90:r=10:d=3 -f lavfi -i sine=d=3 -c:v libx264 -preset ultrafast -g 10 -c:a aac"
    )
    for arguments in (
        f"{picture} -pix_fmt yuv420p -movflags +faststart talk.mp4",
        "-i talk.mp4 -c copy -f hls -hls_time 1 -hls_list_size 0 -hls_segment_filename part%d.ts talk.m3u8",
        "-i talk.mp4 -c copy -an picture.ts -c copy -vn sound.ts",
    ):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y", *arguments.split()]
        subprocess.run(command, cwd=folder, check=True)
    return folder


def _answer(status: int = 200, body: bytes | str = b"", **headers: str) -> Route:
    data = body.encode() if isinstance(body, str) else body

    def answer(handler: _Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(data)

    return answer


def _file(path: Path, content_type: str = "video/mp4") -> Route:
    return _answer(200, path.read_bytes(), Content_Type=content_type)


def _html(body: str) -> Route:
    return _answer(200, f"<html><head><title>A talk</title></head><body>{body}</body></html>", Content_Type="text/html")


def _endless(content_type: str, chunk: bytes, *, pause_s: float = 0.0) -> Route:
    """A body without a Content-Length and without an end."""

    def answer(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", content_type)
        handler.end_headers()
        while not handler.server.closing.wait(pause_s):  # type: ignore[attr-defined]
            handler.wfile.write(chunk)

    return answer


def _broken(body: bytes, *, promised: int, stall: bool = False) -> Route:
    """A body that ends, or stalls, before what its Content-Length promised."""

    def answer(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp4")
        handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        if stall:
            handler.server.closing.wait()  # type: ignore[attr-defined]
        handler.close_connection = True

    return answer


def _limits(**changes: object) -> Limits:
    return Limits(**{"allow_private_hosts": True, "retry_wait_s": 0.0, "retries": 1, **changes})  # type: ignore[arg-type]


def _only(allowed: str) -> Policy:
    return lambda address: address == ipaddress.ip_address(allowed)


@contextmanager
def _session(is_allowed: Policy) -> Iterator[Any]:
    with (
        AddressGuard(is_allowed) as guard,
        open_ytdlp(
            proxy_url=guard.proxy_url,
            timeout_s=5,
            retries=0,
            retry_wait_s=0,
            on_progress=lambda _: None,
            check=lambda: None,
        ) as session,
    ):
        yield session


def _failure(url: str, folder: Path, kind: type[MomentsError], *, is_allowed: Policy | None = None, **limits: object):
    """The error of a fetch that must fail and leave nothing behind."""
    with pytest.raises(MomentsError) as caught:
        Downloader(_limits(**limits), is_allowed=is_allowed).fetch(url, folder)
    assert type(caught.value) is kind
    assert list(folder.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "address-guard"]
    return caught.value


def _visitors(site: _Site) -> int:
    """Connections that the server got. One more, after them, shows that it has seen them all."""
    with socket.create_connection(("127.0.0.1", site.server_address[1]), timeout=10) as last:
        last.sendall(b"GET /last HTTP/1.0\r\n\r\n")
        assert last.recv(4) == b"HTTP"
    return len(site.met) - 1


# What is fetched


def test_a_file_is_fetched_under_a_name_of_ours(site: _Site, talk: Path, tmp_path: Path) -> None:
    site.routes["/..%2F..%2F$(id).mp4"] = _file(talk / "talk.mp4")
    seen: list[tuple[int, int | None]] = []
    url = site.url("/..%2F..%2F$(id).mp4")
    fetched = Downloader(_limits()).fetch(url, tmp_path, on_progress=lambda *now: seen.append(now))
    size = (talk / "talk.mp4").stat().st_size
    assert fetched.path == tmp_path / "video.mp4"
    assert fetched.path.read_bytes() == (talk / "talk.mp4").read_bytes()
    assert list(tmp_path.iterdir()) == [fetched.path]
    assert seen[-1] == (size, size)
    assert (fetched.extractor, fetched.audio_path, fetched.captions) == ("generic", None, None)


def test_the_query_reaches_the_server_as_it_was_written(site: _Site, talk: Path, tmp_path: Path) -> None:
    site.routes["/talk.mp4"] = _file(talk / "talk.mp4")
    Downloader(_limits()).fetch(site.url("/talk.mp4?z=1&a=%2f&signature=b+c#t=30"), tmp_path)
    assert set(site.asked) == {"/talk.mp4?z=1&a=%2f&signature=b+c"}


def test_a_redirect_is_followed(site: _Site, talk: Path, tmp_path: Path) -> None:
    site.routes |= {"/old": _answer(302, Location="/talk.mp4"), "/talk.mp4": _file(talk / "talk.mp4")}
    assert Downloader(_limits()).fetch(site.url("/old"), tmp_path).path.stat().st_size


def test_a_page_with_a_video_tag_gives_its_video_title_and_captions(site: _Site, talk: Path, tmp_path: Path) -> None:
    track = '<track kind="captions" srclang="en" src="/talk.vtt">'
    site.routes |= {
        "/talk": _html(f'<video src="/media/talk.mp4">{track}</video>'),
        "/media/talk.mp4": _file(talk / "talk.mp4"),
        "/talk.vtt": _answer(200, VTT, Content_Type="text/vtt"),
    }
    fetched = Downloader(_limits()).fetch(site.url("/talk"), tmp_path)
    assert fetched.path.read_bytes() == (talk / "talk.mp4").read_bytes()
    assert (fetched.title, fetched.page_url) == ("A talk", site.url("/talk"))
    assert fetched.captions is not None
    assert (fetched.captions.language, fetched.captions.kind, fetched.captions.text) == ("en", "human", VTT)
    assert list(tmp_path.iterdir()) == [fetched.path]


def test_captions_that_can_not_be_had_do_not_cost_the_video(site: _Site, talk: Path, tmp_path: Path) -> None:
    site.routes |= {
        "/talk": _html('<video src="/talk.mp4"><track kind="captions" srclang="en" src="/gone.vtt"></video>'),
        "/talk.mp4": _file(talk / "talk.mp4"),
    }
    fetched = Downloader(_limits()).fetch(site.url("/talk"), tmp_path)
    assert fetched.path.exists()
    assert fetched.captions is None
    assert "human captions (en) are missing" in fetched.notes[0]


def test_an_hls_playlist_is_fetched_segment_by_segment(site: _Site, talk: Path, tmp_path: Path) -> None:
    for part in talk.glob("part*.ts"):
        site.routes[f"/{part.name}"] = _file(part, "video/mp2t")
    site.routes["/talk.m3u8"] = _file(talk / "talk.m3u8", "application/vnd.apple.mpegurl")
    fetched = Downloader(_limits()).fetch(site.url("/talk.m3u8"), tmp_path)
    parts = sorted(talk.glob("part*.ts"))
    assert fetched.path.read_bytes() == b"".join(part.read_bytes() for part in parts)


def test_picture_and_sound_that_are_apart_come_as_two_files(site: _Site, talk: Path, tmp_path: Path) -> None:
    master = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="en",DEFAULT=YES,URI="/sound.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=90000,RESOLUTION=160x90,CODECS="avc1.4d400a,mp4a.40.2",AUDIO="a"
/picture.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=900000,RESOLUTION=3840x2160,CODECS="avc1.640033,mp4a.40.2",AUDIO="a"
/picture-of-4k.m3u8
"""
    site.routes["/talk.m3u8"] = _answer(200, master, **_M3U8)
    for name in ("picture", "sound"):
        site.routes[f"/{name}.m3u8"] = _playlist("#EXTINF:3,", f"/{name}.ts")
        site.routes[f"/{name}.ts"] = _file(talk / f"{name}.ts", "video/mp2t")
    seen: list[int] = []
    url = site.url("/talk.m3u8")
    fetched = Downloader(_limits()).fetch(url, tmp_path, on_progress=lambda done, _: seen.append(done))
    assert fetched.path.read_bytes() == (talk / "picture.ts").read_bytes()
    assert fetched.audio_path is not None
    assert fetched.audio_path.stem == "audio"
    assert fetched.audio_path.read_bytes() == (talk / "sound.ts").read_bytes()
    assert seen == sorted(seen)
    assert seen[-1] == fetched.path.stat().st_size + fetched.audio_path.stat().st_size
    assert "/picture-of-4k.m3u8" not in site.asked


def test_a_title_loses_its_control_characters_and_its_length(site: _Site, talk: Path, tmp_path: Path) -> None:
    title = "A\x1b[31m\u202e\ttalk&#0;\n" + "x" * 1000
    page = f'<html><head><title>{title}</title></head><body><video src="/talk.mp4"></video></body></html>'
    site.routes |= {"/talk": _answer(200, page, Content_Type="text/html"), "/talk.mp4": _file(talk / "talk.mp4")}
    fetched = Downloader(_limits()).fetch(site.url("/talk"), tmp_path)
    assert fetched.title is not None
    assert fetched.title.startswith("A[31m talk")
    assert fetched.title.isprintable()
    assert len(fetched.title) <= 300


def test_the_date_is_the_servers(site: _Site, talk: Path, tmp_path: Path) -> None:
    data = (talk / "talk.mp4").read_bytes()
    dated = {"Content_Type": "video/mp4", "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    site.routes["/talk.mp4"] = _answer(200, data, **dated)
    fetched = Downloader(_limits()).fetch(site.url("/talk.mp4"), tmp_path)
    assert fetched.published_at == datetime(2015, 10, 21, 7, 28, tzinfo=UTC)


def test_a_download_that_broke_off_is_resumed(site: _Site, talk: Path, tmp_path: Path) -> None:
    data = (talk / "talk.mp4").read_bytes()
    whole = _file(talk / "talk.mp4")
    first = [_broken(data[:9999], promised=len(data))]

    def answer(handler: _Handler) -> None:
        start = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        if start != "0":
            part = f"bytes {start}-{len(data) - 1}/{len(data)}"
            _answer(206, data[int(start) :], Content_Range=part, Content_Type="video/mp4")(handler)
        elif len(site.asked) > 1 and first:  # the first request of all only looks at the headers
            first.pop()(handler)
        else:
            whole(handler)

    site.routes["/talk.mp4"] = answer
    assert Downloader(_limits()).fetch(site.url("/talk.mp4"), tmp_path).path.read_bytes() == data
    assert first == []


# What is refused, and how


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        (401, SourceError, "signing in"),
        (403, SourceError, "signing in, or is forbidden"),
        (404, SourceError, "check the address"),
        (410, SourceError, "check the address"),
        (418, SourceError, "check the address"),
        (451, SourceError, "region"),
        (429, NetworkError, "try again later"),
        (500, NetworkError, "try again later"),
        (503, NetworkError, "try again later"),
    ],
)
def test_a_status_decides_whether_to_try_again(
    status: int, kind: type[MomentsError], why: str, site: _Site, tmp_path: Path
) -> None:
    site.routes["/talk.mp4"] = _answer(status)
    error = _failure(site.url("/talk.mp4?token=hunter2"), tmp_path, kind)
    assert why in str(error)
    assert site.url("/talk.mp4") in str(error)
    assert "hunter2" not in f"{error} {error.evidence}"
    assert error.evidence["http_status"] == status
    assert error.evidence["extractor"] == "generic"


@pytest.mark.parametrize(("status", "kind"), [(404, SourceError), (500, NetworkError)])
def test_a_status_of_the_media_file_counts_as_well(
    status: int, kind: type[MomentsError], site: _Site, tmp_path: Path
) -> None:
    site.routes |= {"/talk": _html('<video src="/talk.mp4"></video>'), "/talk.mp4": _answer(status)}
    assert _failure(site.url("/talk"), tmp_path, kind).evidence["http_status"] == status


def test_a_page_without_a_video_says_so(site: _Site, tmp_path: Path) -> None:
    site.routes["/sign-in-private-drm"] = _html("Only words.")
    assert "holds no video" in str(_failure(site.url("/sign-in-private-drm"), tmp_path, SourceError))


def test_a_redirect_in_a_circle_ends(site: _Site, tmp_path: Path) -> None:
    site.routes["/a"] = _answer(302, Location="/a")
    assert "circle" in str(_failure(site.url("/a"), tmp_path, SourceError))


def test_a_page_that_refers_to_itself_ends(site: _Site, tmp_path: Path) -> None:
    def answer(handler: _Handler) -> None:
        _refresh(f"/a?{len(site.asked)}")(handler)

    site.routes["/a"] = answer
    assert "without end" in str(_failure(site.url("/a"), tmp_path, SourceError))
    assert len(site.asked) == MAX_PAGES


def _refresh(target: str) -> Route:
    page = f'<html><head><meta http-equiv="refresh" content="0; url={target}"></head></html>'
    return _answer(200, page, Content_Type="text/html")


def test_a_body_shorter_than_promised_is_a_broken_connection(site: _Site, talk: Path, tmp_path: Path) -> None:
    data = (talk / "talk.mp4").read_bytes()
    site.routes["/talk.mp4"] = _broken(data[:5000], promised=len(data))
    assert "try again later" in str(_failure(site.url("/talk.mp4"), tmp_path, NetworkError))


def test_a_body_that_stalls_is_a_broken_connection(site: _Site, talk: Path, tmp_path: Path) -> None:
    data = (talk / "talk.mp4").read_bytes()
    site.routes["/talk.mp4"] = _broken(data[:5000], promised=len(data), stall=True)
    _failure(site.url("/talk.mp4"), tmp_path, NetworkError, timeout_s=0.2)


def test_a_server_that_never_answers_is_a_broken_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        _failure(f"http://127.0.0.1:{mute.getsockname()[1]}/", tmp_path, NetworkError, timeout_s=0.2)


@pytest.mark.parametrize("route", [_endless("video/mp4", b"x" * 65536), _endless("text/html", b"<p>x</p>" * 8192)])
def test_a_server_that_drips_or_floods_is_left_after_the_time_limit(route: Route, site: _Site, tmp_path: Path) -> None:
    site.routes["/talk"] = route
    error = _failure(site.url("/talk"), tmp_path, NetworkError, max_seconds=0.0)
    assert "within 0 seconds" in str(error)


def test_a_dripping_body_is_left_after_the_time_limit(site: _Site, tmp_path: Path) -> None:
    site.routes["/talk.mp4"] = _endless("video/mp4", b"x" * 1000, pause_s=0.01)
    _failure(site.url("/talk.mp4"), tmp_path, NetworkError, max_seconds=1.0)


def test_a_file_over_the_limit_is_refused_at_its_first_bytes(site: _Site, tmp_path: Path) -> None:
    site.routes["/talk.mp4"] = _broken(b"x" * 200_000, promised=10**9, stall=True)
    error = _failure(site.url("/talk.mp4"), tmp_path, SourceError, max_bytes=10**6, timeout_s=5.0)
    assert "limit of 1.0 MB" in str(error)


def test_an_endless_file_without_a_length_is_stopped_at_the_limit(site: _Site, tmp_path: Path) -> None:
    site.routes["/talk.mp4"] = _endless("video/mp4", b"x" * 65536)
    seen: list[int] = []
    with pytest.raises(SourceError, match="limit of"):
        Downloader(_limits(max_bytes=10**6)).fetch(
            site.url("/talk.mp4"), tmp_path, on_progress=lambda done, _: seen.append(done)
        )
    assert 900_000 < max(seen) <= 10**6
    assert list(tmp_path.iterdir()) == []


def test_hls_segments_count_together(site: _Site, tmp_path: Path) -> None:
    segments = "\n".join(f"#EXTINF:1,\n/part.ts?{number}" for number in range(50))
    site.routes |= {
        "/talk.m3u8": _answer(
            200, f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n{segments}\n#EXT-X-ENDLIST\n", Content_Type="application/x-mpegurl"
        ),
        "/part.ts": _answer(200, b"x" * 50_000, Content_Type="video/mp2t"),
    }
    _failure(site.url("/talk.m3u8"), tmp_path, SourceError, max_bytes=400_000)
    assert site.asked.count("/part.ts?7") == 1
    assert "/part.ts?12" not in site.asked


def test_a_hole_in_a_stream_fails_the_download(site: _Site, talk: Path, tmp_path: Path) -> None:
    site.routes |= {
        "/talk.m3u8": _file(talk / "talk.m3u8", "application/x-mpegurl"),
        "/part0.ts": _file(talk / "part0.ts"),
        "/part2.ts": _file(talk / "part2.ts"),
    }
    assert _failure(site.url("/talk.m3u8"), tmp_path, SourceError).evidence["http_status"] == 404


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_an_endless_page_does_not_fill_the_memory(kind: str, site: _Site, tmp_path: Path) -> None:
    bomb = gzip.compress(b"<html>" + b" " * (40 << 20))
    packed = _answer(200, bomb, Content_Type="text/html", Content_Encoding="gzip")
    site.routes["/"] = packed if kind == "gzip" else _endless("text/html", b"<p>word</p>" * 8192)
    assert "larger than 16 MB" in str(_failure(site.url("/"), tmp_path, SourceError))


def test_a_video_longer_than_the_limit_is_refused_before_it_is_fetched(site: _Site, tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:7200,\n/part.ts\n#EXT-X-ENDLIST\n"
    site.routes["/talk.m3u8"] = _answer(200, playlist, Content_Type="application/x-mpegurl")
    error = _failure(site.url("/talk.m3u8"), tmp_path, SourceError, max_duration_ms=3_600_000)
    assert "lasts 120 minutes, more than the limit of 60" in str(error)
    assert "/part.ts" not in site.asked


def test_a_live_stream_is_refused(site: _Site, tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\n/part.ts\n"
    site.routes["/live.m3u8"] = _answer(200, playlist, Content_Type="application/x-mpegurl")
    assert "live stream" in str(_failure(site.url("/live.m3u8"), tmp_path, SourceError))


@pytest.mark.parametrize("key", ['METHOD=SAMPLE-AES,URI="skd://key"', 'METHOD=SAMPLE-AES,URI="/key"'])
def test_a_protected_stream_is_refused(key: str, site: _Site, tmp_path: Path) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:{key}\n#EXTINF:2,\n/part.ts\n#EXT-X-ENDLIST\n"
    site.routes["/talk.m3u8"] = _answer(200, playlist, Content_Type="application/x-mpegurl")
    assert "DRM" in str(error := _failure(site.url("/talk.m3u8"), tmp_path, SourceError)) or "encrypted" in str(error)


def test_a_certificate_that_nobody_signed_is_refused(
    start: Callable[[str], _Site], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = start("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path_factory.mktemp("tls")))
    site.socket = context.wrap_socket(site.socket, server_side=True)
    assert "certificate" in str(_failure(site.url("/", scheme="https"), tmp_path, SourceError))
    assert site.asked == []


def _self_signed(folder: Path) -> Path:
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem = dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain_key = serialization.NoEncryption()
    pem += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain_key)
    (folder / "both.pem").write_bytes(pem)
    return folder / "both.pem"


def test_a_host_that_does_not_exist_is_told_from_a_resolver_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(socket.gaierror) as caught:
        socket.getaddrinfo("no-such-host.invalid", 80)
    away = caught.value.errno == socket.EAI_AGAIN
    error = _failure("http://no-such-host.invalid/talk", tmp_path, NetworkError if away else SourceError)
    assert away or "check its spelling" in str(error)


def test_a_port_that_is_closed_may_open_later(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refuses the connection" in str(_failure(f"http://127.0.0.1:{port}/", tmp_path, NetworkError))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ytsearch:cats", "--exec", "https://a:b@example.org/", "talk"])
def test_what_is_no_web_address_never_reaches_the_network(url: str, tmp_path: Path) -> None:
    _failure(url, tmp_path, SourceError)


def test_a_full_disk_is_a_shortage_of_this_machine(site: _Site, talk: Path) -> None:
    site.routes["/talk.mp4"] = _file(talk / "talk.mp4")
    track = {"url": site.url("/talk.mp4"), "ext": "mp4", "protocol": "http"}
    with (
        _session(policy(allow_private=True)) as session,
        pytest.raises(Exception, match="No space left") as caught,
    ):
        session.save(track, Path("/dev/full"))
    error = download_failure(caught.value, url=site.url("/talk.mp4"), refused=(), last_failure=None)
    assert type(error) is ResourceError


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("[youtube] abc: Private video. Sign in if you've been granted access", SourceError, "signing in"),
        ("[youtube] abc: Sign in to confirm you’re not a bot. Use --cookies", NetworkError, "turns this machine away"),
        ("[youtube] abc: Join this channel to get access to members-only content", SourceError, "signing in"),
        ("[youtube] abc: This live event will begin in 3 hours.", SourceError, "live stream"),
        ("[youtube] abc: Video unavailable. This video has been removed by the uploader", SourceError, "not there"),
        ("[vimeo] 1: This video is DRM protected", SourceError, "DRM"),
        ("[x] 1: This video is not available from your location due to geo restriction", SourceError, "region"),
        ("[x] 1: Unable to extract title; please report this issue on https://x", SourceError, "newer yt-dlp"),
    ],
)
def test_what_only_the_text_of_an_error_says_is_understood(text: str, kind: type[MomentsError], why: str) -> None:
    from yt_dlp.utils import DownloadError

    url = "https://www.youtube.com/watch?v=abc&token=geheim"
    error = download_failure(DownloadError(text), url=url, refused=(), last_failure=None)
    assert type(error) is kind
    assert why in str(error)
    assert str(error).endswith(".")
    assert "https://www.youtube.com/watch?v=abc&token=***" in str(error)
    assert "geheim" not in f"{error} {error.evidence}"


def test_a_message_of_ytdlp_is_kept_without_tokens() -> None:
    assert plain("ERROR: bad https://u:p@h.org/a?token=1 (caused by 'http://x/y?z')\n\x00!") == (
        "bad https://h.org/a (caused by 'http://x/y') !"
    )


# Who else is not reached


LOOPBACK_SPELLINGS = [
    "localhost", "127.0.0.1", "127.0.0.2", "127.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0",
    "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
def test_no_spelling_of_loopback_is_fetched(host: str, start: Callable[[str], _Site], tmp_path: Path) -> None:
    site = start("0.0.0.0")  # noqa: S104 - so that each spelling would reach it
    error = _failure(site.url("/talk.mp4", host=host), tmp_path, SourceError, allow_private_hosts=False)
    assert "MOMENTS_ALLOW_PRIVATE_HOSTS" in str(error)
    assert error.evidence["address"] in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::ffff:127.0.0.1", "::")  # noqa: S104
    assert _visitors(site) == 0


def _playlist(*lines: str) -> Route:
    text = "\n".join(("#EXTM3U", "#EXT-X-TARGETDURATION:9", *lines, "#EXT-X-ENDLIST"))
    return _answer(200, text, Content_Type="application/x-mpegurl")


_INSIDE = "http://127.0.0.1:PORT/secret.mp4"
_SMUGGLED = '#__youtubedl_smuggle={"http_headers":{"Ytdl-Request-Proxy":"http://127.0.0.1:PORT"}}'

# What a page can answer to be taken to a private address; PORT becomes that of a server there.
WAYS_INSIDE: dict[str, Callable[[Callable[[str], str]], Route]] = {
    "redirect": lambda at: _answer(302, Location=at(_INSIDE)),
    "redirect to a number": lambda at: _answer(302, Location=at("http://2130706433:PORT/secret.mp4")),
    "video tag": lambda at: _html(at(f'<video src="{_INSIDE}"></video>')),
    "meta refresh": lambda at: _refresh(at(_INSIDE)),
    "segment": lambda at: _playlist("#EXTINF:1,", at(_INSIDE)),
    "key": lambda at: _playlist(at(f'#EXT-X-KEY:METHOD=AES-128,URI="{_INSIDE}"'), "#EXTINF:1,", "/part.ts"),
    "variant": lambda at: _answer(200, at(f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{_INSIDE}\n"), **_M3U8),
}
# Doors that are shut whatever the policy says.
SHUT_DOORS: dict[str, Callable[[Callable[[str], str]], Route]] = {
    "refresh to ftp": lambda at: _refresh(at("ftp://127.0.0.1:PORT/secret.mp4")),
    "refresh to a file": lambda at: _refresh(at("file:///etc/passwd")),
    "refresh to a websocket": lambda at: _refresh(at("ws://127.0.0.1:PORT/secret")),
    "video by ftp": lambda at: _html(at('<video src="ftp://127.0.0.1:PORT/secret.mp4"></video>')),
    "video by rtmp": lambda at: _html(at('<video src="rtmp://127.0.0.1:PORT/secret"></video>')),
    "video of a file": lambda at: _html(at('<video src="file:///etc/passwd"></video>')),
    "smuggled proxy": lambda at: _refresh(at(f"/elsewhere.mp4{_SMUGGLED}")),
    "a stream for ffmpeg": lambda at: _playlist(
        at(f'#EXT-X-KEY:METHOD=SAMPLE-AES,URI="{_INSIDE}"'), "#EXTINF:1,", at(_INSIDE)
    ),
}


@pytest.mark.parametrize("way", [*WAYS_INSIDE, *SHUT_DOORS])
def test_a_public_page_leads_to_no_private_address(
    way: str, start: Callable[[str], _Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{_ffmpeg_on_path(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "folder"
    folder.mkdir()
    inside, outside = start("127.0.0.1"), start("127.0.0.2")
    _hostile(outside, inside, (WAYS_INSIDE | SHUT_DOORS)[way])
    _failure(outside.url("/", host="127.0.0.2"), folder, SourceError, is_allowed=_only("127.0.0.2"), retries=0)
    assert outside.asked[0] == "/"
    assert _visitors(inside) == 0


@pytest.mark.parametrize("way", WAYS_INSIDE)
def test_the_ways_do_lead_inside_where_that_is_allowed(way: str, start: Callable[[str], _Site], tmp_path: Path) -> None:
    inside, outside = start("127.0.0.1"), start("127.0.0.2")
    _hostile(outside, inside, WAYS_INSIDE[way])
    _failure(outside.url("/", host="127.0.0.2"), tmp_path, SourceError, retries=0)
    assert inside.asked


def _hostile(outside: _Site, inside: _Site, way: Callable[[Callable[[str], str]], Route]) -> None:
    outside.routes["/"] = way(lambda text: text.replace("PORT", str(inside.server_address[1])))
    outside.routes["/part.ts"] = _answer(200, b"x" * 1024, Content_Type="video/mp2t")


def _ffmpeg_on_path(folder: Path) -> Path:
    """A real ffmpeg where yt-dlp would look for one: it would open the address itself."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return programs


@pytest.mark.parametrize("bypass", ["", "*", "127.0.0.1,127.0.0.2,localhost"])
def test_proxies_of_the_environment_neither_help_nor_hinder(
    bypass: str, start: Callable[[str], _Site], talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, inside, outside = start("127.0.0.1"), start("127.0.0.1"), start("127.0.0.2")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url(""))
    monkeypatch.setenv("no_proxy", bypass)
    monkeypatch.setenv("NO_PROXY", bypass)
    outside.routes |= {"/talk.mp4": _file(talk / "talk.mp4"), "/in": _answer(302, Location=inside.url("/talk.mp4"))}
    downloader = Downloader(_limits(), is_allowed=_only("127.0.0.2"))
    assert downloader.fetch(outside.url("/talk.mp4", host="127.0.0.2"), tmp_path).path.exists()
    with pytest.raises(SourceError, match="private"):
        downloader.fetch(outside.url("/in", host="127.0.0.2"), tmp_path)
    assert (_visitors(inside), _visitors(proxy)) == (0, 0)


def test_ipv6_is_fetched_where_allowed(talk: Path, tmp_path: Path) -> None:
    class _Site6(_Site):
        address_family = socket.AF_INET6

    try:
        site = _Site6("::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    site.routes["/talk.mp4"] = _file(talk / "talk.mp4")
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        assert Downloader(_limits()).fetch(site.url("/talk.mp4", host="[::1]"), tmp_path).path.exists()
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


def test_no_request_handler_speaks_anything_but_http() -> None:
    with _session(policy(allow_private=False)) as session:
        schemes = [handler._SUPPORTED_URL_SCHEMES for handler in session._request_director.handlers.values()]
    assert schemes
    assert {scheme for group in schemes for scheme in group} == {"http", "https"}


@pytest.mark.parametrize(
    "way", [{"proxies": {"all": "__noproxy__"}}, {"headers": {"Ytdl-Request-Proxy": "__noproxy__"}}]
)
def test_a_request_can_not_choose_its_own_proxy(way: dict[str, dict[str, str]], site: _Site) -> None:
    from yt_dlp.networking import Request
    from yt_dlp.networking.exceptions import RequestError

    with _session(policy(allow_private=False)) as session, pytest.raises(RequestError, match="not allowed by ruleset"):
        session.urlopen(Request(site.url("/talk.mp4"), **way))
    assert _visitors(site) == 0


@pytest.mark.parametrize("protocol", ["rtmp", "ism", "f4m", "mhtml", "websocket_frag", "rtmp_ffmpeg"])
def test_a_protocol_whose_downloader_goes_its_own_ways_is_refused(protocol: str, site: _Site, tmp_path: Path) -> None:
    track = {"url": site.url("/talk"), "protocol": protocol, "ext": "mp4"}
    with _session(policy(allow_private=True)) as session, pytest.raises(SourceError, match=protocol):
        session.save(track, tmp_path / "video.mp4")
    assert _visitors(site) == 0


def test_plugins_and_configuration_of_the_user_are_not_read(site: _Site, talk: Path, tmp_path: Path) -> None:
    site.routes["/talk.mp4"] = _file(talk / "talk.mp4")
    plugins = tmp_path / "lib" / "yt_dlp_plugins" / "extractor"
    plugins.mkdir(parents=True)
    (plugins / "mine.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    home = tmp_path / "home" / ".config" / "yt-dlp"
    home.mkdir(parents=True)
    (home / "config").write_text(f"--exec 'touch {tmp_path / 'executed'}'")
    (tmp_path / "out").mkdir()
    program = textwrap.dedent(f"""
        from pathlib import Path
        from moments_resources.downloader import Downloader, Limits
        Downloader(Limits(allow_private_hosts=True)).fetch({site.url("/talk.mp4")!r}, Path({str(tmp_path / "out")!r}))
    """)
    root = Path(__file__).parents[2]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": f"{root}{os.pathsep}{tmp_path / 'lib'}",
    }
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
    assert (tmp_path / "out" / "video.mp4").exists()
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "executed").exists()
    assert sorted(path.name for path in (tmp_path / "home").rglob("*")) == [".config", "config", "yt-dlp"]


# How it ends early


class _CallerError(Exception):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, _CallerError])
def test_what_the_caller_raises_passes_through(
    kind: type[BaseException], site: _Site, talk: Path, tmp_path: Path
) -> None:
    site.routes["/talk.mp4"] = _file(talk / "talk.mp4")

    def stop(*_: object) -> None:
        raise kind

    with pytest.raises(kind):
        Downloader(_limits()).fetch(site.url("/talk.mp4"), tmp_path, on_progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "address-guard"]


# Which captions


def _offer(*names: str, ext: str = "vtt") -> dict[str, list[dict[str, str]]]:
    return {name: [{"url": f"https://x/{name}", "ext": ext}] for name in names}


@pytest.mark.parametrize(
    ("info", "choice"),
    [
        ({"language": "en", "subtitles": _offer("de", "en"), "automatic_captions": _offer("en")}, ("en", "human")),
        (
            {"language": "en", "subtitles": _offer("de", "en-GB"), "automatic_captions": _offer("en")},
            ("en-GB", "human"),
        ),
        ({"language": "en-US", "subtitles": _offer("en-GB", "en-US")}, ("en-US", "human")),
        ({"language": "en", "subtitles": _offer("de"), "automatic_captions": _offer("de", "en")}, ("en", "automatic")),
        ({"language": "en", "automatic_captions": _offer("aa", "en-orig", "en")}, ("en", "automatic")),
        ({"automatic_captions": _offer("aa", "fr-orig", "fr", "en")}, ("fr", "automatic")),
        ({"automatic_captions": _offer("aa", "fr", "en")}, None),
        ({"subtitles": _offer("pt")}, ("pt", "human")),
        ({"subtitles": _offer("pt", "en")}, None),
        ({"language": "en", "subtitles": _offer("de")}, None),
        ({"language": "en", "subtitles": _offer("en", ext="json3")}, None),
        ({"language": "en", "subtitles": _offer("live_chat")}, None),
        ({}, None),
    ],
)
def test_captions_are_the_originals_and_peoples_first(info: dict, choice: tuple[str, str] | None) -> None:
    chosen = choose_captions(info)
    assert (chosen and chosen[:2]) == choice


def test_webvtt_is_preferred_to_srt() -> None:
    tracks = [{"ext": "ttml", "url": "1"}, {"ext": "srt", "url": "2"}, {"ext": "vtt", "url": "3"}]
    chosen = choose_captions({"language": "en", "subtitles": {"en": tracks}})
    assert chosen is not None
    assert chosen[2]["url"] == "3"


# Which video a URL names


@pytest.mark.parametrize(
    "url",
    [
        "https://youtu.be/dQw4w9WgXcQ",
        "https://youtu.be/dQw4w9WgXcQ?si=x&t=3",
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=3",
        "http://youtube.com/watch?feature=share&v=dQw4w9WgXcQ",
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ&list=PL123&index=4",
        "https://youtu.be/dQw4w9WgXcQ?list=PL123",
        "https://www.youtube.com/shorts/dQw4w9WgXcQ",
        "https://www.youtube.com/embed/dQw4w9WgXcQ?autoplay=1",
        "https://www.youtube.com/live/dQw4w9WgXcQ",
        "https://m.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://music.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ",
        "HTTPS://WWW.YouTube.com:443/watch?v=dQw4w9WgXcQ#x",
    ],
)
def test_all_addresses_of_a_youtube_video_are_one_video(url: str) -> None:
    assert identify(url) == "youtube-dQw4w9WgXcQ"


@pytest.mark.parametrize(
    ("url", "video_id"),
    [
        ("https://vimeo.com/76979871", "vimeo-76979871"),
        ("https://player.vimeo.com/video/76979871?h=abc", "vimeo-76979871"),
        ("https://www.ted.com/talks/some_talk?language=fr", "tedtalk-some_talk"),
        ("https://www.ted.com/talks/lang/fr/some_talk", "tedtalk-some_talk"),
        ("https://dai.ly/x8abcd", "dailymotion-x8abcd"),
        ("https://www.dailymotion.com/video/x8abcd_a-title", "dailymotion-x8abcd"),
        ("https://www.twitch.tv/videos/6528877", "twitchvod-6528877"),
        ("https://clips.twitch.tv/FaintLight", "twitchclips-FaintLight"),
    ],
)
def test_a_known_site_gives_its_own_id(url: str, video_id: str) -> None:
    assert identify(url) == video_id


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/talk.mp4",
        "https://www.youtube.com/playlist?list=PL123",
        "https://www.youtube.com/@someone",
        "https://www.youtube.com/embed/videoseries?list=PL123",
        "https://www.youtube.com/",
        "https://vimeo.com/channels/staffpicks",
        "https://geo.dailymotion.com/player.html?playlist=x8abcd",
        "https://notyoutube.com/watch?v=dQw4w9WgXcQ",
        "https://youtube.com.evil.example/watch?v=dQw4w9WgXcQ",
        "https://a.bandcamp.com/track/intro",
    ],
)
def test_any_other_address_is_its_own_name(url: str) -> None:
    assert identify(url) == video_id_for_url(parse_url(url))


def test_two_addresses_that_differ_are_two_videos() -> None:
    assert identify("https://a.bandcamp.com/track/intro") != identify("https://b.bandcamp.com/track/intro")


def test_our_ids_are_those_that_ytdlp_itself_reads() -> None:
    """On the addresses that yt-dlp tests its own extractors with."""
    from yt_dlp.extractor import gen_extractor_classes

    names = {name.removesuffix("IE") for site in set(_SITES.values()) for name in site.extractors}
    checked = 0
    for extractor in gen_extractor_classes():
        if extractor.ie_key() not in names:
            continue
        for case in extractor.get_testcases(include_onlymatching=True):
            checked += _agrees(extractor, case["url"])
    assert checked > 100


def _agrees(extractor: type, url: str) -> bool:
    try:
        normal = parse_url(url)
    except SourceError:
        return False  # shorthands such as youtube:ID, which are no web addresses
    if not extractor.suitable(normal):
        return False
    ours = identify(url)
    assert ours in (
        video_id_for_site(extractor.ie_key(), extractor.get_temp_id(normal)),
        video_id_for_url(normal),
    ), url
    return not ours.startswith("web-")


def test_an_unknown_host_costs_no_import_of_ytdlp() -> None:
    program = "import sys; from moments_resources.downloader import identify; identify('https://example.org/a.mp4')\n"
    program += "sys.exit('yt_dlp' in sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, env={"PATH": os.environ["PATH"]})
