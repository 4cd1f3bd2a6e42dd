"""Faults of the machine and of its operator: a full disk, folders, settings, a database that is away, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from moments.results import Results
from moments.services import Lakehouse
from moments_resources.media.container import ffmpeg_exe

Json = dict[str, Any]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("machine") / "talk.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=6", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    subprocess.run([ffmpeg_exe(), "-nostdin", "-v", "error", *picture, str(target)], check=True)
    return target


@pytest.fixture
def command(shared_lakehouse: Lakehouse, run_moments: Command) -> Command:
    """The real command on the shared lakehouse, whose settings `environment` overrides."""
    return lambda *arguments, environment=None, **more: run_moments(
        *arguments, environment={**os.environ, **(environment or {})}, **more
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system may be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def only_videos(video: Path) -> Iterator[str]:
    """URL of a server that gives the video at any path."""
    content = video.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that is killed breaks off

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _fill(folder: Path) -> Path:
    """Fill its file system to the last block."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return ballast
    return ballast


def test_a_full_disk_fails_clearly_and_the_same_command_goes_well_once_there_is_space(
    small_disk: Path,
    video: Path,
    only_videos: str,
    shared_lakehouse: Lakehouse,
    take_all: Callable[..., dict[str, Json]],
    clear_failure: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch, on_disk = shared_lakehouse.settings.state / "scratch", small_disk / "scratch"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    on_disk.mkdir()
    scratch.symlink_to(on_disk)
    ballast = _fill(small_disk)
    try:
        result = take_all({"it": f"{only_videos}/full.mp4"})["it"]
        clear_failure(
            shared_lakehouse, result, failure_class="transient", words="free some space, then run this again."
        )
        assert list(on_disk.iterdir()) == []
        ballast.unlink()
        again = take_all({"it": f"{only_videos}/full.mp4"})["it"]
        assert again["status"] == "completed", again["error"]
        assert list(on_disk.iterdir()) == []
    finally:
        scratch.unlink()
        on_disk.rmdir()


def test_a_file_that_does_not_fit_into_the_store_is_kept_as_a_failed_submission_and_others_go_on(
    small_disk: Path, video: Path, shared_lakehouse: Lakehouse, command: Command, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video\n")
    ballast, store = _fill(small_disk), {"MOMENTS_STORE_URL": (small_disk / "store").as_uri()}
    ballast.write_bytes(
        bytes(ballast.stat().st_size - 24 * 1024)
    )  # room for folders and the small file, not for the video
    done = command("submit", "--json", str(video), str(bad), environment=store)
    assert done.returncode == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["error"]["class"] == "transient"
    assert first["error"]["reason"] == "The disk of the object store is full: free some space, then try again."
    assert (second["error"], second["video_id"] is not None) == (None, True)
    states = "select state, class from public.intake_state where intake_id = :id"
    assert Results(shared_lakehouse).rows(states, id=first["intake_id"]) == [{"state": "failed", "class": "transient"}]
    ballast.unlink()
    assert command("submit", str(video), environment=store).returncode == 0


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [
        ({"MOMENTS_HOME": "/proc/nowhere"}, 2, "The folder /proc/nowhere can't be made"),
        ({"MOMENTS_HOME": "/dev/null/x"}, 2, "The folder /dev/null/x can't be made"),
        ({"MOMENTS_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:9/x"}, 1, "PostgreSQL does not answer"),
        ({"MOMENTS_DATABASE_URL": "mysql://localhost/x"}, 2, "MOMENTS_DATABASE_URL must be a PostgreSQL URL"),
        ({"MOMENTS_DATABASE_URL": "me:hunter2@nowhere"}, 2, "MOMENTS_DATABASE_URL is not a URL"),
        ({"MOMENTS_STORE_URL": "s3://bucket"}, 2, "must be file:///path or gs://bucket/prefix, not s3"),
        ({"MOMENTS_POOLS": "asr=0"}, 2, "MOMENTS_POOLS: 'asr=0' is no limit"),
        ({"MOMENTS_MAX_HOURS": "six"}, 2, "MOMENTS_MAX_HOURS: "),
        ({"MOMENTS_ALLOW_PRIVATE_HOSTS": "perhaps"}, 2, "MOMENTS_ALLOW_PRIVATE_HOSTS: "),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_sentence(
    environment: dict[str, str], status: int, words: str, shared_lakehouse: Lakehouse, command: Command, video: Path
) -> None:
    done = command("process", str(video), environment=environment)
    _assert_one_sentence(done, status, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [("MOMENTS_MAX_HOURS=many\n", "MOMENTS_MAX_HOURS: "), ("\xff\xfe", ".env")],
    ids=["word", "bytes"],
)
def test_a_broken_env_file_is_one_sentence(
    text: str, words: str, shared_lakehouse: Lakehouse, command: Command, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(text.encode("latin-1"))
    _assert_one_sentence(command("status", cwd=tmp_path), 2, words)


def _assert_one_sentence(done: subprocess.CompletedProcess[str], status: int, words: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("moments: ")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert "hunter2" not in done.stderr


class _Dripping(BaseHTTPRequestHandler):
    """A video of which a byte comes every tenth of a second; `begun` says that somebody takes it."""

    begun = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", "100000000")
        self.end_headers()
        self.wfile.write(bytes.fromhex("00000018667479706d703432"))
        self.begun.set()
        try:
            while not threading.Event().wait(0.1):
                self.wfile.write(b"\0")
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_work_and_keeps_what_was_submitted(
    number: signal.Signals, shared_lakehouse: Lakehouse, left_running: Callable[[], list[str]]
) -> None:
    _Dripping.begun.clear()
    with _serving(_Dripping) as url:
        source = f"{url}/{number.name}.mp4"
        command = [sys.executable, "-m", "moments.cli", "process", source]
        call = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert _Dripping.begun.wait(60), call.poll()
        below = psutil.Process(call.pid).children(recursive=True)
        call.send_signal(number)
        _, err = call.communicate(timeout=60)
        assert call.returncode == 130, err
        assert "Traceback" not in err
        assert err.endswith("moments: stopped; what was submitted stays submitted.\n")
        assert below
        assert not any(process.is_running() for process in below)
    state = "select state, failed_asset, class from public.intake_state where url = :url"
    assert Results(shared_lakehouse).rows(state, url=source) == [
        {"state": "cancelled", "failed_asset": "raw_video", "class": "cancelled"}
    ]
    assert list((shared_lakehouse.settings.state / "scratch").glob("*")) == []
    assert left_running() == []
