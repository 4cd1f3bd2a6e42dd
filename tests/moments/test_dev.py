"""`moments dev`: a row that comes in by SQL is taken through by sensor, daemon and run; then everything stops.

And what happens when its code server and its supervisor are killed while runs are at work.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import psutil
import pytest
from sqlalchemy import text

from moments.process_group import kill_with_all_below
from moments.results import Results
from moments.services import Lakehouse
from moments_core.options import Options

PATIENCE_SECONDS = 180  # a busy machine; an idle one needs a fifth of it


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


@pytest.fixture
def dev(lakehouse: Lakehouse, port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moments.cli", "dev", "--port", str(port)], stdout=log, stderr=log
        )
        yield process
    kill_with_all_below(process)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError("it did not happen in time")


def _answers(port: int) -> bool:
    query = json.dumps({"query": "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", query.encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            return "LOADED" in reply.read().decode()
    except OSError:
        return False


def _tiny_video(folder: Path) -> Path:
    target = folder / "tiny.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=10:d=3"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, str(target)], check=True)
    return target


class _SlowSite(ThreadingHTTPServer):
    """One video, as /first.mp4 and /second.mp4; a fetch does not end before its name is `released`."""

    daemon_threads = True

    def __init__(self, video: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.video = video
        self.released = {"/first.mp4": threading.Event(), "/second.mp4": threading.Event()}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}.mp4"


class _Handler(BaseHTTPRequestHandler):
    server: _SlowSite

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(self.server.video)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        video, at = self.server.video, len(self.server.video) // 2
        with suppress(ConnectionError):
            self.wfile.write(video[:at])
            while not self.server.released[self.path].wait(0.5):
                self.wfile.write(video[at : at + 1])
                at += 1
            self.wfile.write(video[at:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(lakehouse: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_SlowSite]:
    monkeypatch.setenv("MOMENTS_ALLOW_PRIVATE_HOSTS", "1")
    with _SlowSite(_tiny_video(tmp_path).read_bytes()) as site:
        threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield site
        for released in site.released.values():
            released.set()
        site.shutdown()


def _code_server(dev: subprocess.Popen[bytes]) -> psutil.Process | None:
    for one in _family(dev.pid):
        with suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if {"moments.code_server", "--socket"} <= set(one.cmdline()):
                return one
    return None


def test_a_row_by_sql_is_processed_and_ctrl_c_leaves_nothing_running(
    lakehouse: Lakehouse, dev: subprocess.Popen[bytes], port: int, tmp_path: Path, run_moments: Callable[..., Any]
) -> None:
    uploaded = lakehouse.intake.submit(str(_tiny_video(tmp_path)), Options(), submitted_by="test")
    with lakehouse.database.begin() as connection:  # the same video again, as an analyst would ask for it
        connection.execute(text("delete from url_intake"))
        insert = text("insert into url_intake (url, options) values (:url, '{\"max_moments\": 1}') returning intake_id")
        intake_id = connection.scalar(insert, {"url": uploaded.url})
    results = Results(lakehouse)

    def states() -> list[Any]:
        return results.rows("select state, cause from intake_state where intake_id = :id", id=intake_id)

    assert _until(lambda: _answers(port))
    assert _until(lambda: states()[0]["state"] not in {"waiting", "running"} and states()) == [
        {"state": "completed", "cause": None}
    ]
    second = run_moments("dev", "--port", "1")
    assert second.returncode == 2
    assert "runs on this lakehouse already" in second.stderr

    family = _family(dev.pid)
    assert family
    dev.send_signal(signal.SIGINT)
    assert dev.wait(timeout=60) == 0
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def test_runs_outlive_their_code_server_and_nothing_outlives_the_supervisor(
    lakehouse: Lakehouse, site: _SlowSite, dev: subprocess.Popen[bytes]
) -> None:
    results = Results(lakehouse)

    def attempt(intake_id: int, outcome: str) -> Any:
        query = "select pid from pipeline_history where intake_id = :id and outcome = :outcome order by started_at"
        rows = results.rows(query, id=intake_id, outcome=outcome)
        return rows and rows[0]["pid"]

    first = lakehouse.intake.submit(site.url("first"), Options(), submitted_by="test").intake_id
    worker = _until(lambda: attempt(first, "running"))
    killed = _until(lambda: _code_server(dev))
    forks = psutil.Process(worker).parent()
    assert forks in killed.children()  # the run is forked from what had imported everything
    killed.kill()
    _until(lambda: not forks.is_running())
    # Another one is there, daemon and UI have found it, and the sensor starts runs again.
    second = lakehouse.intake.submit(site.url("second"), Options(), submitted_by="test").intake_id
    other = _until(lambda: attempt(second, "running"))
    site.released["/first.mp4"].set()
    assert _until(lambda: attempt(first, "completed")) == worker

    family = [*_family(dev.pid), psutil.Process(other)]
    _until(lambda: _code_server(dev)).kill()
    dev.kill()
    dev.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def test_a_port_that_is_taken_is_said_in_a_sentence(
    lakehouse: Lakehouse, moments_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = moments_command("dev", "--port", str(port))
    assert refused.returncode == 2
    reason = "Address already in use"
    assert refused.stderr == f"moments: Port {port} can't be used ({reason}): name another one by --port.\n"
