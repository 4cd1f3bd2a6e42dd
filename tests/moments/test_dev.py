"""`moments dev`: a row that comes in by SQL is taken through by sensor, daemon and run; then everything stops."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import psutil
import pytest
from sqlalchemy import text

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
    for one in [*_family(process.pid), process]:
        one.kill()
    process.wait()


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
