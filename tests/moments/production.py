"""The production path as tests have it: a bucket, an SSH host and models on loopback, and a lakehouse bound to them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import psutil
import pytest
import yaml
from dagster import AssetKey, DagsterInstance
from sqlalchemy import text

from moments.definitions import definitions
from moments.results import Results
from moments.services import Lakehouse, connect, prepare_dagster
from moments.settings import load_settings
from moments.worker import QUIET, run_submission
from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG
from moments_core.options import Options
from tests.stand_ins.gcs_server import GcsServer
from tests.stand_ins.leftovers import our_threads
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.ssh_server import SshServer

Json = dict[str, Any]

#: The kind of each model; all of them stand behind the SSH host, on one server.
MODELS = {"parakeet": "asr", "minimax": "chat", "qwen3_vl": "vision"}


@dataclass
class Production:
    """The servers, and the lakehouse that the environment names."""

    gcs: GcsServer
    ssh: SshServer
    models: ModelServer
    lakehouse: Lakehouse
    folder: Path

    def rows(self, query: str, **parameters: object) -> list[Json]:
        with self.lakehouse.database.begin() as connection:
            return [dict(row) for row in connection.execute(text(query), parameters).mappings()]

    @property
    def video(self) -> Path:
        """Half a minute in which somebody speaks three times: its speech goes to a model in three calls."""
        path = self.folder / "video.mp4"
        return path if path.exists() else small_video(path)

    def known_models(self, **entries: Json) -> None:
        """Add to the models file, which adds to the table."""
        path = self.folder / "models.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **entries}))
        self.lakehouse.models()

    def process(self, source: Path, **options: Any) -> Json:
        """Submit, run the job in this process, return the result as `process --json` has it."""
        row = self.lakehouse.intake.submit(str(source), Options(**options), submitted_by="test")
        if self.lakehouse.intake.refusal(row) is None:
            run_submission(self.lakehouse, row.intake_id)
        return {"intake_id": row.intake_id, **Results(self.lakehouse).submission(row, str(source))}

    def make(self, asset: str, source: Path, **options: Any) -> Json:
        """As `process`, of one asset alone, as a click on Materialize does it: what it reads has to be there."""
        row = self.lakehouse.intake.submit(str(source), Options(**options), submitted_by="test")
        assert row.video_id is not None
        with DagsterInstance.get() as instance:
            definitions().resolve_job_def(process_video.name).execute_in_process(
                instance=instance,
                asset_selection=[AssetKey(asset)],
                partition_key=row.video_id,
                run_config={**QUIET, "resources": {"run_options": {"config": options}}},
                tags={INTAKE_TAG: str(row.intake_id)},
                raise_on_error=False,
            )
        return {"intake_id": row.intake_id, **Results(self.lakehouse).submission(row, str(source))}


@contextmanager
def production_path(folder: Path, database_url: str, models: ModelServer) -> Iterator[Production]:
    """All of it, `models` behind the SSH host; the environment names it, for the processes that a test starts."""
    with ExitStack() as stack:
        gcs = stack.enter_context(GcsServer())
        ssh = stack.enter_context(SshServer(folder / "ssh"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        gcs.create_bucket("media")
        (folder / "models.yaml").write_text(yaml.safe_dump(entries(models.port, ssh.entry_fields())))
        _set_environment(patch, gcs, folder, database_url)
        settings = load_settings()
        prepare_dagster(settings)
        lakehouse = connect(settings)
        yield Production(gcs, ssh, models, lakehouse, folder)
        lakehouse.database.engine.dispose()


def small_video(path: Path, *, title: str = "") -> Path:
    """Speech, which here is noise, for 3 of every 14 seconds; `title` makes another file of it."""
    picture = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=10:d=31"]
    sound = ["-f", "lavfi", "-i", "anoisesrc=r=16000:a=0.5:d=31,volume='lt(mod(t,14),3)':eval=frame"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-metadata", f"title={title}"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *picture, *sound, *coded, str(path)], check=True)
    return path


def long_video(path: Path) -> Path:
    """Noise is slow to encode: its clip keeps ffmpeg busy for a while."""
    picture = ["-f", "lavfi", "-i", "nullsrc=s=640x360:r=25:d=60,geq=random(1)*255:128:128"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "40"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *picture, *coded, str(path)], check=True)
    return path


def entries(port: int, ssh: Json) -> dict[str, Json]:
    """The models file: one of each kind, at `port` as the SSH host sees it."""
    common = {"remote_host": "127.0.0.1", "remote_port": port, "ssh": ssh, "timeout_s": 60}
    chat = {**common, "served_name": "stand-in", "context_tokens": 32768, "defaults": {"max_tokens": 2000}}
    return {
        "parakeet": {"kind": "asr", **common},
        "minimax": {"kind": "chat", **chat, "price": {"input_per_million": 1.0}},
        "qwen3_vl": {"kind": "vision", "supports_video": True, "parallel": 2, **chat},
    }


def until(found: Callable[[], Any], *, seconds: float = 60) -> Any:
    """What `found` gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def threads_and_ports() -> tuple[set[str], set[int]]:
    """Threads and listening ports of this process, those of the stand-ins aside."""
    return our_threads(), listening_ports(psutil.Process())


def listening_ports(process: psutil.Process) -> set[int]:
    return {item.laddr.port for item in process.net_connections("tcp") if item.status == psutil.CONN_LISTEN}


def _set_environment(patch: pytest.MonkeyPatch, gcs: GcsServer, folder: Path, database_url: str) -> None:
    # Set and deleted by us, so that the value which `prepare_dagster` sets goes with this patch.
    patch.setenv("DAGSTER_HOME", "")
    patch.delenv("DAGSTER_HOME")
    values: Mapping[str, object] = {
        "MOMENTS_HOME": folder / "home",
        "MOMENTS_DATABASE_URL": database_url,
        "MOMENTS_STORE_URL": "gs://media/lakehouse",
        "MOMENTS_MODELS": folder / "models.yaml",
        "MOMENTS_ASR_MODEL": "parakeet",
        "MOMENTS_GENERATION_MODEL": "minimax",
        "MOMENTS_REFINEMENT_MODEL": "qwen3_vl",
        "STORAGE_EMULATOR_HOST": gcs.url,
        "GOOGLE_APPLICATION_CREDENTIALS": gcs.key_file(folder),
    }
    for name, value in values.items():
        patch.setenv(name, str(value))
