"""The same video asked for twice: worked on once, and nobody waits for work that nobody does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from moments.process import process
from moments.results import Results
from moments.services import Lakehouse
from moments_core.options import Options
from moments_resources.media.container import ffmpeg_exe

Json = dict[str, Any]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("twice") / "talk.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=6", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    subprocess.run([ffmpeg_exe(), "-nostdin", "-v", "error", *picture, str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def site(video: Path) -> Iterator[ThreadingHTTPServer]:
    """A server of one video; `whole` counts how often somebody took all of it."""
    content, taken = video.read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            taken.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.taken = taken  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_two_calls_at_once_for_one_address_do_its_work_once(
    site: ThreadingHTTPServer, shared_lakehouse: Lakehouse
) -> None:
    url = f"http://127.0.0.1:{site.server_address[1]}/talk.mp4"
    command = [sys.executable, "-m", "moments.cli", "process", "--json", url]
    calls = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [call.communicate() for call in calls]
    assert [call.returncode for call in calls] == [0, 0], answers
    first, second = (json.loads(out) for out, _ in answers)
    assert first["status"] == second["status"] == "completed"
    assert first["moments"] == second["moments"]
    rows = Results(shared_lakehouse).rows
    versions = rows("select distinct version from public.artifacts where video_id = :id", id=first["video_id"])
    assert versions == [{"version": 1}]
    downloads = "select count(*) as n from public.pipeline_history where video_id = :id and asset = 'raw_video'"
    assert rows(downloads, id=first["video_id"]) == [{"n": 1}]
    submitted = rows("select intake_id from public.url_intake where video_id = :id", id=first["video_id"])
    assert len(submitted) == 2


@pytest.fixture
def run(shared_lakehouse: Lakehouse) -> Callable[..., list[Json]]:
    """`moments process` in this process; its workers are processes of their own."""
    return lambda *sources: list(process(shared_lakehouse, list(map(str, sources)), Options(), watch=lambda *_: None))


def test_a_failing_file_twice_in_one_call_fails_twice_and_ends(run: Callable[..., list[Json]], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video\n")
    results = run(bad, bad)
    assert [(result["status"], result["failed_asset"]) for result in results] == [("failed", "raw_video")] * 2
    assert results[0]["error"] == results[1]["error"]


def test_what_was_only_submitted_is_worked_on_when_it_is_processed(
    run: Callable[..., list[Json]], shared_lakehouse: Lakehouse, tmp_path: Path
) -> None:
    bad = tmp_path / "later.mp4"
    bad.write_text("this is no video either\n")
    first = shared_lakehouse.intake.submit(str(bad), Options(), submitted_by="moments submit")
    assert [result["status"] for result in run(bad)] == ["failed"]
    assert Results(shared_lakehouse).standing(first.intake_id).has_ended


def test_work_that_a_dead_machine_left_behind_is_taken_up(
    run: Callable[..., list[Json]], shared_lakehouse: Lakehouse, video: Path, tmp_path: Path
) -> None:
    left = tmp_path / "left.mp4"
    left.write_bytes(video.read_bytes() + b"\0\0\0\x0cfreeleft")  # another video: another content
    row = shared_lakehouse.intake.submit(str(left), Options(), submitted_by="test")
    # As a power cut leaves it: an attempt that is open, and no process.
    shared_lakehouse.history.open_attempt(str(row.video_id), "raw_video", run_id="gone", intake_id=row.intake_id)
    [result] = run(left)
    assert result["status"] == "completed", result["error"]
    history = "select outcome, class from public.pipeline_history where run_id = 'gone'"
    assert Results(shared_lakehouse).rows(history) == [{"outcome": "failed", "class": "transient"}]


def test_no_worker_outlives_a_call(shared_lakehouse: Lakehouse, left_running: Callable[[], list[str]]) -> None:
    assert left_running() == []
    assert list((shared_lakehouse.settings.state / "scratch").iterdir()) == []
