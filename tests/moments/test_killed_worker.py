"""A worker that is killed leaves nothing that the next one would wait for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from dagster import DagsterInstance, DagsterRunStatus

from moments.results import Results
from moments.services import Lakehouse, prepare_dagster
from tests.moments.production import long_video, until

PATIENCE_SECONDS = 120


def test_a_killed_worker_is_a_transient_failure_and_the_next_one_completes(
    lakehouse: Lakehouse, tmp_path: Path, moments_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    video = long_video(tmp_path / "long.mp4")
    process = subprocess.Popen(
        [sys.executable, "-m", "moments.cli", "process", str(video), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    results = Results(lakehouse)
    at_work = "select pid from pipeline_history where asset = 'clips' and outcome = 'running'"
    ((worker,),) = [tuple(row.values()) for row in until(lambda: results.rows(at_work), seconds=PATIENCE_SECONDS)]
    ffmpeg = until(lambda: psutil.Process(worker).children(recursive=True), seconds=PATIENCE_SECONDS)
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
