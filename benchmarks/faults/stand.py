"""What a fault run stands on: PostgreSQL, bucket, SSH host, models and a web site, and the daemon, all to be broken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.faults.clock import create_clock
from benchmarks.faults.processes import MARKER, marked, send, standing_in, with_role
from benchmarks.faults.site import Site
from moments.embedded_postgres import EmbeddedPostgres
from moments.services import Lakehouse, up
from moments.settings import load_settings
from moments_core.errors import MomentsError
from tests.moments.production import entries, small_video
from tests.stand_ins.faults import Fault
from tests.stand_ins.gcs_server import GcsServer
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.ssh_server import SshServer

Row = dict[str, Any]

MODEL_OF = {"transcript": "parakeet", "moments": "minimax", "refined_moments": "qwen3_vl"}
CALL_S = 0.4  # of a model's reply: long enough to be hit in the middle
DEADLINE_S = 6.0  # of a model's reply: a call that hangs is given up
SCRATCH_MB = 64
CACHE_GIGABYTES = 0.002  # the videos of three submissions: another try has to download
_RESTART_S = 2.0  # after which systemd or docker starts the supervisor again
_STOP_S = 40.0
BUCKET = "media"
PREFIX = "lakehouse/"  # of all names in it


@dataclass
class Stand:
    """The parts, and what can be done to them as a whole."""

    folder: Path
    postgres: EmbeddedPostgres
    data_dir: Path  # PostgreSQL's
    gcs: GcsServer
    ssh: SshServer
    site: Site
    models: ModelServer
    lakehouse: Lakehouse
    has_own_disk: bool
    marker: str
    model_faults: deque[Fault] = field(default_factory=deque)
    keeping: threading.Event = field(default_factory=threading.Event)  # while set, the supervisor is kept alive
    is_closing: bool = False
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)  # supervisors, dead ones too

    def rows(self, query: str, **parameters: object) -> list[Row]:
        """Raises as Database.begin, and SQLAlchemyError, while PostgreSQL is broken."""
        with self.lakehouse.database.begin() as connection:
            return [dict(row) for row in connection.execute(text(query), parameters).mappings()]

    def patient_rows(self, query: str, *, seconds: float = 90.0, **parameters: object) -> list[Row]:
        """As `rows`, tried until PostgreSQL is back."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.rows(query, **parameters)
            except (MomentsError, SQLAlchemyError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def processes(self, role: str) -> list[psutil.Process]:
        return with_role(self.marker, role)

    def postgres_processes(self) -> list[psutil.Process]:
        return standing_in(self.data_dir)

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """`moments daemon`, as an operator starts it."""
        log = (self.folder / "daemon.log").open("ab")
        with log:
            child = subprocess.Popen(
                [sys.executable, "-m", "moments.cli", "daemon"],
                env={**os.environ, MARKER: self.marker},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def restart_daemon(self, **environment: str) -> None:
        """Stop it in order, and start it with other settings."""
        self.keeping.clear()
        self._stop_children()
        os.environ.update(environment)
        self.start_daemon()
        self.keeping.set()

    def keep_daemon(self) -> None:
        """Start the supervisor again whenever it has ended, as systemd or docker does; until the stand is closed."""
        while True:
            if not self.keeping.wait(1):
                if self.is_closing:
                    return
                continue
            running = [child for child in self.children if child.poll() is None]
            if not running:
                time.sleep(_RESTART_S)
                if self.keeping.is_set():
                    self.start_daemon()
            time.sleep(0.5)

    def stop_daemon(self) -> None:
        """As an operator stops it; what does not end is left for the invariants to find."""
        self.keeping.clear()
        self.is_closing = True
        self._stop_children()

    def _stop_children(self) -> None:
        running = [child for child in self.children if child.poll() is None]
        for child in running:
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for child in running:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))

    def sweep(self) -> None:
        """End everything of this run that still lives."""
        send(marked(self.marker), signal.SIGKILL)
        for child in self.children:
            child.wait()

    def model_fault(self, _asked: Asked) -> Fault | None:
        """The fault that the next call of a model gets."""
        with suppress(IndexError):
            return self.model_faults.popleft()
        return None

    def restart_models(self, away_s: float) -> None:
        """The model server is gone for so long: its port refuses connections."""
        port = self.models.port
        self.models.close()
        time.sleep(away_s)
        self.models = self._new_models(port)

    def close_models(self) -> None:
        self.models.close()

    def _new_models(self, port: int = 0) -> ModelServer:
        models = ModelServer(served=("stand-in",), service_s=CALL_S, port=port)
        models.fault_for = self.model_fault
        return models


@contextmanager
def built_stand(folder: Path) -> Iterator[Stand]:
    """All of it, in an empty folder; everything that was started or mounted is gone at the end."""
    with ExitStack() as stack:
        _forget_settings(stack)
        postgres = EmbeddedPostgres(folder / "cluster")
        address = postgres.ensure_running()
        url = address.url
        stack.callback(postgres.remove)
        create_clock(postgres.superuser_url(), url)
        gcs = stack.enter_context(GcsServer())
        gcs.create_bucket(BUCKET)
        ssh = stack.enter_context(SshServer(folder / "ssh"))
        site = stack.enter_context(Site(small_video(folder / "video.mp4").read_bytes()))
        models = ModelServer(served=("stand-in",), service_s=CALL_S)
        (folder / "models.yaml").write_text(yaml.safe_dump(_entries(models.port, ssh.entry_fields())))
        _set_environment(gcs, folder, url)
        has_own_disk = _mount_scratch(folder / "home" / "scratch", stack)
        lakehouse = up(load_settings())
        lakehouse.models()
        stand = Stand(
            folder=folder,
            postgres=postgres,
            data_dir=address.data_dir,
            gcs=gcs,
            ssh=ssh,
            site=site,
            models=models,
            lakehouse=lakehouse,
            has_own_disk=has_own_disk,
            marker=uuid.uuid4().hex,
        )
        models.fault_for = stand.model_fault
        stack.callback(stand.close_models)
        stack.callback(lakehouse.database.engine.dispose)
        stack.callback(stand.sweep)
        yield stand


def _entries(port: int, ssh: Row) -> Mapping[str, Row]:
    return {key: {**entry, "timeout_s": DEADLINE_S} for key, entry in entries(port, ssh).items()}


def _mount_scratch(path: Path, stack: ExitStack) -> bool:
    """A small disk of its own for scratch, where this user may mount one."""
    path.mkdir(parents=True)
    options = f"size={SCRATCH_MB}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "moments-faults", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        return False
    stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=False)
    return True


def _forget_settings(stack: ExitStack) -> None:
    before = dict(os.environ)
    stack.callback(os.environ.update, before)
    stack.callback(os.environ.clear)
    for name in [name for name in os.environ if name.startswith(("MOMENTS_", "DAGSTER_"))]:
        del os.environ[name]


def _set_environment(gcs: GcsServer, folder: Path, database_url: str) -> None:
    root = str(Path(__file__).parents[2])
    temporary = folder / "tmp"
    temporary.mkdir()
    values: dict[str, object] = {
        "MOMENTS_HOME": folder / "home",
        "MOMENTS_DATABASE_URL": database_url,
        "MOMENTS_STORE_URL": f"gs://{BUCKET}/{PREFIX}".rstrip("/"),
        "MOMENTS_MODELS": folder / "models.yaml",
        "MOMENTS_ASR_MODEL": "parakeet",
        "MOMENTS_GENERATION_MODEL": "minimax",
        "MOMENTS_REFINEMENT_MODEL": "qwen3_vl",
        "MOMENTS_ALLOW_PRIVATE_HOSTS": "1",
        "MOMENTS_CACHE_GIGABYTES": CACHE_GIGABYTES,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "GOOGLE_APPLICATION_CREDENTIALS": gcs.key_file(folder),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "TMPDIR": temporary,  # so that what is left there is known to be ours
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
    }
    os.environ.update({name: str(value) for name, value in values.items()})
