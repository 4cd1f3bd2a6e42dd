"""Short videos a minute, from a row of url_intake to its last asset: our settings against Dagster's own.

Both take the same small videos through the same assets on the same database and store, with models that answer at
once, through a real daemon with a real code server: sensor, queue, run. Ours is what `moments daemon` starts. Stock is
what Dagster does without a setting: a process a step, the queue looked at every 5 s, ten runs at once. They take turns,
stock, ours, stock, so that whatever else the machine does falls on both. A rate is that of a batch, from its submission
to its last end, under a daemon that has had a video before. Every part is bounded in time.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fresh_lakehouse import fresh_lakehouse
from benchmarks.report import Figure, report

if TYPE_CHECKING:
    from moments.services import Lakehouse

OURS, STOCK = 16, 5  # videos of one turn
LONGEST_S = {"ours": 150.0, "stock": 240.0}
GOAL = {"times_stock": ">= 4"}

_STOCK_WORKSPACE = """
load_from:
  - python_module: {module_name: benchmarks.stock_location, location_name: moments}
"""

#: Dagster's own settings; a storage is the one thing that has to be named, and the telemetry is not sent.
_STOCK_INSTANCE = """
storage:
  custom: {module: moments.dagster_storage, class: LakehouseStorage, config: {}}
run_coordinator: {module: dagster.core.run_coordinator, class: QueuedRunCoordinator}
telemetry: {enabled: false}
"""


def measure() -> dict[str, Figure]:
    """Videos a minute, and how many times as many as stock."""
    with tempfile.TemporaryDirectory() as folder, _model_server() as url:
        models = _models_file(Path(folder), url)
        chosen = {"asr_model": "ears", "generation_model": "talker", "refinement_model": "watcher"}
        with fresh_lakehouse(models=models, **chosen) as lakehouse:
            turns = [
                (way, _turn(lakehouse, Path(folder) / f"turn-{number}", way, count))
                for number, (way, count) in enumerate((("stock", STOCK), ("ours", OURS), ("stock", STOCK)))
            ]
    ours, stock = (statistics.mean(rate for way, rate in turns if way == wanted) for wanted in ("ours", "stock"))
    return {
        "videos_a_minute": ours,
        "stock_videos_a_minute": stock,
        "times_stock": ours / stock if stock else None,
        "times_stock_celery": None,  # there is no broker here
        "load_average": os.getloadavg()[0],
    }


def videos_a_minute(ended: Sequence[float], *, since: float, given_up: float | None = None) -> float:
    """The rate of these ends, in seconds of one clock on which they were submitted at `since`; 0 for none.

    `given_up`: until when those were waited for that have no end.
    """
    return 60.0 * len(ended) / ((given_up or max(ended)) - since) if ended else 0.0


def _turn(lakehouse: Lakehouse, folder: Path, way: str, count: int) -> float:
    """The rate of one way over `count` videos of its own, once a first one has shown that all is up and warm."""
    folder.mkdir()
    first, *paths = [_small_video(folder / f"{number}.mp4") for number in range(1 + count)]
    with _daemon(folder, way):
        if not _ends(lakehouse, [_submit(lakehouse, first)], LONGEST_S[way]):
            raise SystemExit(f"{way}: no video in {LONGEST_S[way]:.0f} s.\n{_last_words(folder)}")
        since = time.time()
        ended = _ends(lakehouse, [_submit(lakehouse, path) for path in paths], LONGEST_S[way])
        given_up = time.time()
    _end_what_is_left(lakehouse)
    rate = videos_a_minute(ended, since=since, given_up=None if len(ended) == count else given_up)
    print(f"{way}: {len(ended)} of {count}, {rate:.1f} a minute", file=sys.stderr)
    return rate


def _last_words(folder: Path) -> str:
    return (folder / "daemon.log").read_text(errors="replace")[-3000:]


def _submit(lakehouse: Lakehouse, path: Path) -> int:
    from moments_core.options import Options

    return lakehouse.intake.submit(str(path), Options(), submitted_by="benchmark").intake_id


def _ends(lakehouse: Lakehouse, numbers: Sequence[int], longest_s: float) -> list[float]:
    """When each submission was completed, in seconds; those that are not after `longest_s` are left out."""
    from moments.results import Results

    query = (
        "select state, cause, extract(epoch from (select max(ended_at) from pipeline_history h"
        " where h.intake_id = s.intake_id)) as ended from intake_state s where intake_id = any(:numbers)"
    )
    until = time.monotonic() + longest_s
    while True:
        rows = Results(lakehouse).rows(query, numbers=list(numbers))
        if failed := [row["cause"] for row in rows if row["state"] == "failed"]:
            raise SystemExit(f"A video failed: {failed[0]}")
        ended = [float(row["ended"]) for row in rows if row["state"] == "completed"]
        if len(ended) == len(numbers) or time.monotonic() > until:
            return ended
        time.sleep(0.5)


def _end_what_is_left(lakehouse: Lakehouse) -> None:
    """What a turn did not finish in its time must not be work of the next one."""
    import dagster as dg

    from moments_core.errors import CancelledError
    from moments_sensors.intake import UNFINISHED
    from moments_sensors.reaper import end_in_dagster, intake_of

    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
            end_in_dagster(instance, run)
            lakehouse.history.end_run(run.run_id, CancelledError("The turn is over."), intake_id=intake_of(run))


@contextmanager
def _daemon(folder: Path, way: str) -> Iterator[None]:
    """The daemon with its code server, all of whose processes are gone at the end."""
    command, environment = _command(folder, way)
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            yield
        finally:
            _end(process)


def _command(folder: Path, way: str) -> tuple[list[str], dict[str, str]]:
    if way == "ours":
        return _OUR_DAEMON, dict(os.environ)
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(_STOCK_INSTANCE)
    (folder / "workspace.yaml").write_text(_STOCK_WORKSPACE)
    command = ["dagster._daemon", "run", "-w", str(folder / "workspace.yaml")]
    return command, {**os.environ, "DAGSTER_HOME": str(home)}


_OUR_DAEMON = ["moments.cli", "daemon"]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then kill what is left below it: runs are sessions of their own."""
    import psutil

    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in below:
        if left.is_running():
            left.kill()
    psutil.wait_procs(below, 10)


@contextmanager
def _model_server() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.stand_ins.model_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _models_file(folder: Path, url: str) -> Path:
    import yaml

    common = {"remote_host": "127.0.0.1", "remote_port": int(url.rsplit(":", 1)[1]), "timeout_s": 60, "parallel": 8}
    chat = {**common, "served_name": "stand-in", "context_tokens": 32768, "defaults": {"max_tokens": 2000}}
    path = folder / "models.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "ears": {"kind": "asr", **common},
                "talker": {"kind": "chat", **chat},
                "watcher": {"kind": "vision", "supports_video": True, **chat},
            }
        )
    )
    return path


def _small_video(path: Path) -> Path:
    from tests.moments.production import small_video

    return small_video(path, title=str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then no daemon is left behind
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report("throughput", measure(), GOAL, as_json=parser.parse_args().json)


if __name__ == "__main__":
    main()
