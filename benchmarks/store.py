"""How often the raw video travels between this installation and its bucket, in one run of the whole job.

Real runs against the Google Cloud Storage emulator, behind a proxy that counts the bytes of each object. Once as
`moments process` does on one machine, which uploads the file and runs; and once on two: one uploads the file and makes
raw_video, the other, whose cache is empty, makes all the rest. Four of its assets open the video.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import report
from moments.embedded_postgres import EmbeddedPostgres
from moments.results import Results
from moments.services import Lakehouse, connect, up
from moments.settings import Settings
from moments_core.options import Options
from tests.stand_ins.gcs_server import GcsServer

GOAL = 1.0

_RAW_VIDEO_ALONE = """
import sys
import dagster as dg
from moments.definitions import definitions
from moments.services import apply_pools, connect, prepare_dagster
from moments.settings import load_settings
from moments_sensors.intake import take_in
settings = load_settings()
prepare_dagster(settings)
lakehouse = connect(settings)
accepted = take_in(lakehouse.intake, [lakehouse.intake.row(int(sys.argv[1]))])[0]
with dg.DagsterInstance.get() as instance:
    apply_pools(instance, settings)
    instance.add_dynamic_partitions("videos", [accepted.video_id])
    result = definitions().resolve_job_def("process_video").execute_in_process(
        instance=instance, partition_key=accepted.video_id, asset_selection=[dg.AssetKey("raw_video")],
        run_config={**accepted.run_config, "loggers": {"console": {"config": {"log_level": "WARNING"}}}},
    )
    sys.exit(0 if result.success else 1)
"""


def measure() -> dict[str, float]:
    """Bytes of the video over the store's wire / its size, each way, for one machine and for two."""
    with tempfile.TemporaryDirectory() as folder, GcsServer() as gcs:
        gcs.create_bucket("benchmark")
        os.environ.update(STORAGE_EMULATOR_HOST=gcs.url, MOMENTS_STORE_URL="gs://benchmark/moments")
        _move_to(f"{folder}/first")
        first = Settings()
        try:
            os.environ["MOMENTS_DATABASE_URL"] = up(first).database.url
            one = _ratios(gcs, _on_one_machine, folder)
            two = _ratios(gcs, _on_two_machines, folder)
        finally:
            EmbeddedPostgres(first.state).remove()  # as root it lies outside of the folder
    return {
        "raw_bytes_ratio": max(two),
        "up_ratio": two[0],
        "down_ratio": two[1],
        "same_machine_up_ratio": one[0],
        "same_machine_down_ratio": one[1],
    }


def _ratios(gcs: GcsServer, run: Callable[[str], int], folder: str) -> tuple[float, float]:
    """(up, down); `run` gives the size of its video."""
    gcs.forget()
    size = run(folder)
    return _raw(gcs.uploaded) / size, _raw(gcs.downloaded) / size


def _raw(moved: Counter[str]) -> int:
    """Bytes of the video itself, under either of its keys."""
    return sum(size for name, size in moved.items() if "/uploads/" in name or "/raw_video/" in name)


def _on_one_machine(folder: str) -> int:
    lakehouse = _move_to(f"{folder}/first")
    video = _video(folder, "one")
    intake_id = _submit(lakehouse, video)
    _run(lakehouse, intake_id)
    return video.stat().st_size


def _on_two_machines(folder: str) -> int:
    lakehouse = _move_to(f"{folder}/first")
    video = _video(folder, "two")
    intake_id = _submit(lakehouse, video)
    _python(["-c", _RAW_VIDEO_ALONE, str(intake_id)])
    _run(_move_to(f"{folder}/second"), intake_id)
    return video.stat().st_size


def _move_to(home: str) -> Lakehouse:
    """Another state folder is another machine to the store: nothing else is shared but the database and the bucket."""
    os.environ["MOMENTS_HOME"] = home
    os.environ.pop("DAGSTER_HOME", None)
    return connect(Settings())


def _submit(lakehouse: Lakehouse, video: Path) -> int:
    return lakehouse.intake.submit(str(video), Options(), submitted_by="benchmark").intake_id


def _run(lakehouse: Lakehouse, intake_id: int) -> None:
    told = _python(["-m", "moments.worker", str(intake_id)])
    state = Results(lakehouse).rows("select state from public.intake_state where intake_id = :id", id=intake_id)
    if state != [{"state": "completed"}]:
        raise SystemExit(f"The run did not end well, but {state}:\n{told}")


def _python(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"A run failed:\n{done.stderr[-3000:]}")
    return done.stderr[-3000:]


def _video(folder: str, name: str) -> Path:
    """Ten seconds, some 20 MB: more than goes up in one request, or comes down in one."""
    import imageio_ffmpeg

    target = Path(folder) / f"{name}.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=10,noise=alls=30:allf=t"]
    sources += ["-f", "lavfi", "-i", "sine=440:d=10"]
    coded = ["-preset", "ultrafast", "-crf", "25", "-metadata", f"comment={name}"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sources, *coded, str(target)], check=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    report("store", measure(), {"raw_bytes_ratio": GOAL}, as_json=as_json)


if __name__ == "__main__":
    main()
