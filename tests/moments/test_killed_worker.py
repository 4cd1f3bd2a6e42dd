"""A worker that is killed leaves nothing that the next one would wait for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import psutil
from dagster import DagsterInstance, DagsterRunStatus

from moments.results import Results
from moments.services import Lakehouse, prepare_dagster

PATIENCE_SECONDS = 120


def _long_video(folder: Path) -> Path:
    """Noise is slow to encode: its clip keeps ffmpeg busy for a while."""
    target = folder / "long.mp4"
    source = ["-f", "lavfi", "-i", "nullsrc=s=640x360:r=25:d=40,geq=random(1)*255:128:128"]
    options = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "40"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *options, str(target)], check=True)
    return target


def _until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_a_killed_worker_is_a_transient_failure_and_the_next_one_completes(
    lakehouse: Lakehouse, tmp_path: Path, moments_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    video = _long_video(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "moments.cli", "process", str(video), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    results = Results(lakehouse)
    at_work = "select pid from pipeline_history where asset = 'clips' and outcome = 'running'"
    ((worker,),) = [tuple(row.values()) for row in _until(lambda: results.rows(at_work))]
    ffmpeg = _until(lambda: psutil.Process(worker).children(recursive=True))
    os.kill(worker, 9)
    stdout, _ = process.communicate(timeout=PATIENCE_SECONDS)
    result = json.loads(stdout)
    assert process.returncode == 1
    assert (result["status"], result["failed_asset"], result["error"]["class"]) == ("failed", "clips", "transient")
    _, alive = psutil.wait_procs(ffmpeg, timeout=30)
    assert alive == []

    prepare_dagster(lakehouse.settings)
    with DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.FAILURE]
        assert instance.event_log_storage.get_concurrency_info("clips").active_slot_count == 0

    again = moments_command("process", str(video), "--json")
    assert again.returncode == 0, again.stderr
    assets = json.loads(again.stdout)["assets"]
    assert {name for name, asset in assets.items() if not asset["reused"]} == {"clips", "refined_moments"}
