"""CPU seconds that a video costs outside of ffmpeg and models: our engine against Dagster's default executor.

Both take the same few seconds of video through the same assets on the same PostgreSQL: ours as `moments process`
does (a process a run, steps one after the other), Dagster's as a job without an executor of its own would (a process
a step). What ffmpeg and the finder took is known from each asset's measures and left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import report
from moments.embedded_postgres import EmbeddedPostgres
from moments.services import Lakehouse, up
from moments.settings import Settings
from moments_core.options import Options

ROUNDS = 3
GOAL = 0.25
_MODELS = {"moments"}  # the finder; this video's words come with it, and refining is arithmetic

_DEFAULT_EXECUTOR = """
import sys
import dagster as dg
from benchmarks.orchestration import default_job
from moments.services import apply_pools, prepare_dagster
from moments.settings import load_settings
settings = load_settings()
prepare_dagster(settings)
with dg.DagsterInstance.get() as instance:
    apply_pools(instance, settings)
    instance.add_dynamic_partitions("videos", [sys.argv[1]])
    result = dg.execute_job(
        dg.reconstructable(default_job), instance,
        tags={"dagster/partition": sys.argv[1], "moments/intake_id": sys.argv[2]},
        run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
    )
    sys.exit(0 if result.success else 1)
"""


def default_job():  # type: ignore[no-untyped-def]
    """The same assets under the executor that Dagster takes by default."""
    import dagster as dg

    from moments.definitions import definitions
    from moments_assets.jobs import ASSETS

    bound = definitions()
    job = dg.define_asset_job("by_default", selection=list(ASSETS), executor_def=dg.multiprocess_executor)
    return dg.Definitions(assets=list(ASSETS), jobs=[job], resources=bound.resources).resolve_job_def("by_default")


def measure() -> dict[str, float]:
    """Medians over the rounds, in CPU seconds, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOMENTS_HOME"] = str(Path(folder) / "home")
        os.environ.pop("DAGSTER_HOME", None)
        settings = Settings()
        lakehouse = up(settings)
        try:
            rounds = [(_ours(lakehouse, folder, index), _default(lakehouse, folder, index)) for index in range(ROUNDS)]
        finally:
            EmbeddedPostgres(settings.state).remove()  # as root it lies outside of the folder
    ours, default = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {"cpu_s": ours, "default_cpu_s": default, "share_of_default": ours / default}


def _ours(lakehouse: Lakehouse, folder: str, index: int) -> float:
    row = lakehouse.intake.submit(str(_video(folder, f"ours-{index}")), Options(), submitted_by="benchmark")
    return _cost(lakehouse, row.intake_id, ["-m", "moments.worker", str(row.intake_id)])


def _default(lakehouse: Lakehouse, folder: str, index: int) -> float:
    row = lakehouse.intake.submit(str(_video(folder, f"default-{index}")), Options(), submitted_by="benchmark")
    return _cost(lakehouse, row.intake_id, ["-c", _DEFAULT_EXECUTOR, str(row.video_id), str(row.intake_id)])


def _cost(lakehouse: Lakehouse, intake_id: int, arguments: list[str]) -> float:
    before = _children_cpu()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    total = _children_cpu() - before
    measures = _measures(lakehouse, intake_id)
    if done.returncode != 0 or not measures:
        raise SystemExit(f"The run failed:\n{done.stderr[-3000:]}")
    tools = sum(float(item["ffmpeg_cpu_seconds"]) for item in measures.values())
    models = sum(float(item["cpu_seconds"]) for asset, item in measures.items() if asset in _MODELS)
    return total - tools - models


def _measures(lakehouse: Lakehouse, intake_id: int) -> dict[str, dict[str, float]]:
    from sqlalchemy import text

    query = (
        "select asset, measures from artifacts join pipeline_history h using (attempt_id, asset) where intake_id = :id"
    )
    with lakehouse.database.begin() as connection:
        return {row.asset: row.measures for row in connection.execute(text(query), {"id": intake_id})}


def _video(folder: str, name: str) -> Path:
    """Four seconds of moving picture and tone; each name gives another file, so that nothing is reused."""
    import imageio_ffmpeg

    target = Path(folder) / f"{name}.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=4", "-f", "lavfi", "-i", "sine=440:d=4"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sources, "-metadata", f"comment={name}", str(target)]
    subprocess.run(command, check=True)
    return target


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report("orchestration", measure(), {"share_of_default": GOAL}, as_json=parser.parse_args().json)


if __name__ == "__main__":
    main()
