"""An installation as deploy/compose.yaml starts it, container by container: processes here, their commands from there.

First start, code server, daemon, one video through; then a backup of database and store, and its restore.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import psutil
import pytest
import yaml
from dagster import AssetKey, DagsterInstance
from dagster._core.workspace.load import load_workspace_process_context_from_yaml_paths
from sqlalchemy import NullPool, create_engine, make_url, text

from moments.postgres_programs import installed_programs
from moments.process_group import kill_with_all_below
from moments.settings import DEFAULT_POOLS, PROJECT
from moments_assets.jobs import ASSETS
from moments_resources.pools import WAITING

DEPLOY = PROJECT / "deploy"
PATIENCE_SECONDS = 180  # a busy machine; an idle one needs a tenth of it


@dataclass(frozen=True)
class Installation:
    """Where it lies, how its processes are called, and which of them run."""

    folder: Path
    environment: Mapping[str, str]
    code: subprocess.Popen[bytes]
    daemon: subprocess.Popen[bytes]
    port: int

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def moments(self, *arguments: str) -> str:
        done = self.run("moments", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Looked up from this process: what is asked in a loop must not cost a start of Python."""
        engine = create_engine(self.environment["MOMENTS_DATABASE_URL"], poolclass=NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]


def commands() -> dict[str, list[str]]:
    """The command of each service, from the file that an operator uses."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return {name: service["command"] for name, service in services.items() if name != "postgres"}


@pytest.fixture(scope="module")
def installation(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, port = tmp_path_factory.mktemp("srv"), _free_port()
    with _empty_database(server) as url, ExitStack() as stack:
        environment = _environment(folder, url)
        _lay_out(folder, port)
        subprocess.run(commands()["migrate"], env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        code = [port if word == "4000" else "127.0.0.1" if word == "0.0.0.0" else word for word in commands()["code"]]  # noqa: S104
        yield Installation(
            folder,
            environment,
            code=stack.enter_context(_running([str(word) for word in code], folder, environment)),
            daemon=stack.enter_context(_running(_daemon_command(folder), folder, environment)),
            port=port,
        )


def _daemon_command(folder: Path) -> list[str]:
    return [word.replace("/srv/moments", str(folder)) for word in commands()["daemon"]]


def _environment(folder: Path, url: str) -> dict[str, str]:
    """As in the image and compose.yaml: the password is in a file that libpq reads."""
    parsed = make_url(url)
    (folder / "pgpass").write_text(f"*:*:*:*:{parsed.password}\n")
    (folder / "pgpass").chmod(0o400)
    shown = parsed.set(password=None).update_query_dict({"passfile": str(folder / "pgpass")})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOMENTS_", "DAGSTER_", "PG"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(folder / "dagster"),
        "COMPUTE_LOGS": str(folder / "logs"),
        "MOMENTS_HOME": str(folder / "state"),
        "MOMENTS_DATABASE_URL": shown.render_as_string(hide_password=False),
        "MOMENTS_STORE_URL": (folder / "store").as_uri(),
        "MOMENTS_POOLS": "asr=3",
    }


def _lay_out(folder: Path, port: int) -> None:
    """The folder /srv/moments of the image, with the code server's name and port on this machine."""
    (folder / "dagster").mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", folder / "dagster")
    workspace = (DEPLOY / "workspace.yaml").read_text()
    assert workspace.count("host: code\n") == workspace.count("port: 4000\n") == 1
    moved = workspace.replace("host: code\n", "host: 127.0.0.1\n").replace("port: 4000\n", f"port: {port}\n")
    (folder / "workspace.yaml").write_text(moved)


@contextmanager
def _running(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "output.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        kill_with_all_below(process)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _empty_database(server: str) -> Iterator[str]:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"deploy_{os.getpid()}_{time.time_ns()}"
    with engine.connect() as connection:
        connection.execute(text(f'create database "{name}"'))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f'drop database "{name}" with (force)'))
        engine.dispose()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


def _until(what: Callable[[], Any], installation: Installation) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError((installation.folder / "output.log").read_text()[-3000:])


@pytest.fixture(scope="module")
def video_id(installation: Installation) -> str:
    """A video that went through: submitted by the command line, taken up by sensor, daemon and code server."""
    clip = installation.folder / "tiny.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=10:d=3"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, str(clip)], check=True)
    submitted = json.loads(installation.moments("submit", str(clip), "--json"))
    states = "select state, cause from intake_state where state not in ('waiting', 'running')"
    assert _until(lambda: installation.rows(states), installation) == [("completed", None)]
    name: str = submitted["video_id"]
    return name


def test_the_code_server_of_compose_lists_our_assets(installation: Installation) -> None:
    health = ["dagster", "api", "grpc-health-check", "-p", str(installation.port)]
    _until(lambda: installation.run(*health).returncode == 0, installation)
    workspace = [str(installation.folder / "workspace.yaml")]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "COMPUTE_LOGS", "MOMENTS_HOME", "MOMENTS_DATABASE_URL"):
            patch.setenv(name, installation.environment[name])
        with (
            DagsterInstance.get() as instance,
            load_workspace_process_context_from_yaml_paths(instance, workspace) as context,
        ):
            (repository,) = context.create_request_context().get_code_location("moments").get_repositories().values()
            listed = {snap.asset_key for snap in repository.get_asset_node_snaps()}
    assert listed == {AssetKey("url_intake")} | {key for asset in ASSETS for key in asset.keys}


def test_a_video_goes_through_and_the_daemon_has_set_the_pools(installation: Installation, video_id: str) -> None:
    assert video_id.startswith("file-")
    limits = 'select concurrency_key, "limit" from dagster.concurrency_limits'
    wanted = DEFAULT_POOLS | {"asr": 3}
    assert dict(installation.rows(limits)) == {name: limit + WAITING for name, limit in wanted.items()}
    assert list((installation.folder / "logs").rglob("*.err"))


def test_a_second_daemon_is_refused(installation: Installation, video_id: str) -> None:
    second = installation.run(*_daemon_command(installation.folder))
    assert second.returncode == 2
    assert second.stderr.strip().endswith("A daemon runs on this lakehouse already: one is enough, stop it first.")


def test_a_backup_of_database_and_store_gives_the_same_back(
    installation: Installation, video_id: str, server: str
) -> None:
    """As docs/operations.md has it: the database first, then the store; back in the other order."""
    store, copy = installation.folder / "store", installation.folder / "copy"
    before = installation.moments("show", video_id, "--json")
    _postgres(installation, "pg_dump", "--format=custom", "--file=dump")
    shutil.copytree(store, copy)
    shutil.rmtree(store)
    with _empty_database(server) as url:
        environment = {**installation.environment, "MOMENTS_DATABASE_URL": url}
        restored = replace(installation, environment=environment)
        shutil.copytree(copy, store)
        _postgres(restored, "pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "dump")
        assert restored.moments("show", video_id, "--json") == before
        named = {key for (key,) in restored.rows(_comparing_query())}
        there = {str(path.relative_to(store)) for path in store.glob("[!.]*/**/*") if path.is_file()}
        assert named == there
        assert len(named) > 1


def _comparing_query() -> str:
    """The query by which docs/operations.md compares catalogue and bucket."""
    page = (PROJECT / "docs" / "operations.md").read_text()
    (query,) = re.findall(r"moments sql --csv \"(.*?)\"", page, flags=re.DOTALL)
    return str(query)


def _postgres(installation: Installation, program: str, *arguments: str) -> None:
    programs = installed_programs()
    url = make_url(installation.environment["MOMENTS_DATABASE_URL"]).set(drivername="postgresql")
    target = ["--dbname", url.render_as_string(hide_password=False)]
    done = installation.run(programs[max(programs)].path(program), *target, *arguments)
    assert done.returncode == 0, done.stderr


def test_without_the_password_file_nothing_gets_in(installation: Installation) -> None:
    url = make_url(installation.environment["MOMENTS_DATABASE_URL"]).set(query={}).render_as_string()
    without = replace(installation, environment={**installation.environment, "MOMENTS_DATABASE_URL": url})
    refused = without.run("moments", "status")
    assert refused.returncode == 1
    assert "PostgreSQL does not answer" in refused.stderr


def test_asked_to_stop_daemon_and_code_server_end_well(installation: Installation, video_id: str) -> None:
    family = _family(installation.daemon.pid) + _family(installation.code.pid)
    installation.daemon.send_signal(signal.SIGTERM)
    assert installation.daemon.wait(timeout=60) == 0
    installation.code.send_signal(signal.SIGTERM)
    installation.code.wait(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def test_a_daemon_whose_connection_was_ended_takes_its_lock_again(installation: Installation, video_id: str) -> None:
    """As when PostgreSQL is started anew."""
    holders = (
        "from pg_locks where locktype = 'advisory' and granted"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    log = installation.folder / "output.log"
    told = log.read_text().count("Dagster daemon ended")
    with _running(_daemon_command(installation.folder), installation.folder, installation.environment) as daemon:

        def dagster_daemons() -> list[psutil.Process]:
            return [one for one in _family(daemon.pid) if "dagster._daemon" in _words(one)]

        (first,) = _until(dagster_daemons, installation)
        # Its lock stays; those of its start (tables, pools) are held for a moment.
        installation.rows(f"select pg_terminate_backend(pid) {holders}")
        (second,) = _until(lambda: [one for one in dagster_daemons() if one != first], installation)
        assert not first.is_running()
        assert "the daemon's lock is held: the daemon starts again." in log.read_text()
        assert log.read_text().count("Dagster daemon ended") == told
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=60) == 0
        assert not second.is_running()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
