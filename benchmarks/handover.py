"""How busy the bottleneck is: a model that takes one call at a time, with 50 videos waiting for it.

Eight worker processes take real runs of the asset `moments` through to its commit; each makes one call, of a fixed
time, to a stand-in server that notes when it was at work. Calls of 5 s and of 60 s are scaled down, which only makes it
harder: what a step costs besides its call stays. Beside it, with calls of 5 s and 8 waiting, what Dagster's pools alone
make of it. A share is busy time over the time from the first call to the end of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.handover_worker import MODEL, STOCK_POOL
from benchmarks.report import report

VIDEOS = 50
WORKERS = 8
SCALED = {"5s": 3.0, "60s": 4.0}  # seconds of a call that stands for one of 5 and of 60 s
STOCK_RUNS, STOCK_S = 14, 5.0  # not scaled: Dagster's pauses are not either
GOAL = {"busy_share": 0.98, "over_limit": 0}

_SAID = "The launch of the rocket was late because the valve froze and nobody had looked at the cold."


def measure() -> dict[str, float]:
    """Shares of 0..1; `over_limit`: the most calls at one time beyond the limit of one, in all parts."""
    with tempfile.TemporaryDirectory() as folder, _lakehouse(folder) as lakehouse:
        ours = {name: _ours(lakehouse, name, service_s) for name, service_s in SCALED.items()}
        stock = _stock()
    return {
        "busy_share": min(busy_share(record) for record in ours.values()),
        **{f"busy_share_{name}": busy_share(record) for name, record in ours.items()},
        "stock_busy_share": busy_share(stock),
        "over_limit": max(record["most_at_once"] - 1 for record in ours.values()),
    }


def busy_share(record: Mapping[str, Any]) -> float:
    """The part of the time between the first call and the end of the last in which a call was at work."""
    intervals = sorted(map(tuple, record["busy_intervals"]))
    busy, reached = 0.0, intervals[0][0]
    for start, end in intervals:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / (reached - intervals[0][0])


def _ours(lakehouse: Any, name: str, service_s: float) -> dict[str, Any]:
    videos = [f"web-{name}-{number}" for number in range(VIDEOS)]
    for video_id in videos:
        _seed(lakehouse, video_id)
    with _server(service_s) as url:
        _point_model_at(lakehouse, url)
        _work("ours", videos)
        return _record(url)


def _stock() -> dict[str, Any]:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots(STOCK_POOL, 1)
    with _server(STOCK_S) as url:
        os.environ["STAND_IN_URL"] = url
        _work("stock", [f"web-{number}" for number in range(STOCK_RUNS)])
        return _record(url)


def _work(way: str, videos: Sequence[str]) -> None:
    """All videos through the worker processes, which begin together."""
    command = [sys.executable, "-m", "benchmarks.handover_worker", way]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, *videos[number::WORKERS]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for number in range(WORKERS)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline(), "a worker ended before it was ready"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        if any(worker.wait() for worker in workers):
            raise SystemExit("A worker failed; see above.")


@contextmanager
def _lakehouse(folder: str) -> Iterator[Any]:
    from moments.embedded_postgres import EmbeddedPostgres
    from moments.services import apply_pools, up
    from moments.settings import Settings
    from moments_assets.partitions import videos

    os.environ["MOMENTS_HOME"] = str(Path(folder) / "home")
    os.environ.pop("DAGSTER_HOME", None)
    settings = Settings()
    lakehouse = up(settings)
    try:
        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            apply_pools(instance, settings)
            names = [f"web-{name}-{number}" for name in SCALED for number in range(VIDEOS)]
            instance.add_dynamic_partitions(str(videos.name), names)
        yield lakehouse
    finally:
        EmbeddedPostgres(settings.state).remove()  # as root it lies outside of the folder


def _seed(lakehouse: Any, video_id: str) -> None:
    """What `moments` reads, as the assets before it would have committed it: two minutes in which somebody speaks."""
    sentences = [
        {"start_ms": at * 4000, "end_ms": at * 4000 + 3800, "text": _SAID, "speaker": None} for at in range(30)
    ]
    rows: dict[str, list[dict[str, Any]]] = {
        "raw_video": [_VIDEO],
        "audio": [{"state": "sound", "duration_ms": 120_000, "silences": [], "rms_db": []}],
        "transcript": [_TRANSCRIPT | {"segment_timestamps": [{**item, "turn_start": False} for item in sentences]}],
        "scene_cuts": [],
    }
    for asset, table in rows.items():
        _commit(lakehouse, video_id, asset, table)


_VIDEO: dict[str, Any] = {
    "url": "https://example.org/talk",
    "site": "web",
    "duration_ms": 120_000,
    "width": 320,
    "height": 180,
    "fps": 25.0,
    "variable_frame_rate": False,
    "container": "mp4",
    "video_codec": "h264",
    "has_audio": True,
    "streams": [],
    "object_key": "none",
    "bytes": 0,
    "sha256": "none",
}
_TRANSCRIPT: dict[str, Any] = {
    "has_speech": True,
    "language": "en",
    "source": "human_captions",
    "model": "human_captions",
    "word_timing": "none",
    "full_text": "",
    "word_timestamps": [],
}


def _commit(lakehouse: Any, video_id: str, asset: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from moments_resources.catalogue import Recipe
    from moments_resources.step import Step, StepRequest

    with Step(lakehouse.catalogue, lakehouse.settings.state, StepRequest(video_id, asset, "seeded")) as step:
        step.recipe = Recipe("1", {})
        step.commit(rows)


def _point_model_at(lakehouse: Any, url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    fields = {"kind": "chat", "served_name": "stand-in", "remote_host": "127.0.0.1", "remote_port": port, "parallel": 1}
    models = lakehouse.models()
    from moments_core.model_entry import parse_entry

    if not models.seed([parse_entry(MODEL, fields)], seeded_by="benchmark"):
        models.edit(MODEL, {"remote_port": str(port)})


@contextmanager
def _server(service_s: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.stand_ins.model_server", "--service-s", str(service_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _record(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/record", timeout=30) as response:  # noqa: S310 - our own server on loopback
        record: dict[str, Any] = json.load(response)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report("handover", measure(), GOAL, as_json=parser.parse_args().json)


if __name__ == "__main__":
    main()
