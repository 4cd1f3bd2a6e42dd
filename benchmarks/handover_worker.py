"""A process that makes moments of one video after the other, as a worker does; started by benchmarks.handover.

`python -m benchmarks.handover_worker ours|stock VIDEO…`: our asset with its queues, or a step that calls the model with
nothing but Dagster's pool between it and the others. Prints a line when it is ready, and begins when it reads one.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable

import dagster as dg

from moments.definitions import definitions
from moments.services import prepare_dagster
from moments.settings import load_settings
from moments.worker import QUIET

MODEL = "stand-in"
STOCK_POOL = "stock"


def main() -> None:
    way, *videos = sys.argv[1:]
    prepare_dagster(load_settings())
    with dg.DagsterInstance.get() as instance:
        run = {"ours": _ours, "stock": _stock}[way](instance)
        print("ready", flush=True)
        sys.stdin.readline()
        for video_id in videos:
            if not run(video_id):
                raise SystemExit(f"The run of {video_id} failed.")


def _ours(instance: dg.DagsterInstance) -> Callable[[str], bool]:
    job = definitions().resolve_job_def("process_video")
    config = {**QUIET, "resources": {"run_options": {"config": {"generation_model": MODEL}}}}

    def run(video_id: str) -> bool:
        result = job.execute_in_process(
            run_config=config,
            instance=instance,
            partition_key=video_id,
            asset_selection=[dg.AssetKey("moments")],
            raise_on_error=False,
        )
        return bool(result.success)

    return run


def _stock(instance: dg.DagsterInstance) -> Callable[[str], bool]:
    @dg.asset(pool=STOCK_POOL)
    def called() -> None:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "?"}]}).encode()
        request = urllib.request.Request(f"{os.environ['STAND_IN_URL']}/v1/chat/completions", body)  # noqa: S310
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=600).read()  # noqa: S310 - our own server on loopback

    job = dg.Definitions(
        assets=[called], jobs=[dg.define_asset_job("stock")], executor=dg.in_process_executor
    ).resolve_job_def("stock")
    return lambda _video: bool(job.execute_in_process(run_config=QUIET, instance=instance).success)


if __name__ == "__main__":
    main()
