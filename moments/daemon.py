"""`moments daemon`: Dagster's daemon, one an installation, with all that watches over the work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from moments.code_server import LOCATION
from moments.liveness import ANSWER_SILENCE_S, HEARTBEAT_SILENCE_S, Answering, Heartbeats
from moments.process_group import ProcessGroup
from moments.services import Lakehouse, apply_pools, up
from moments.settings import load_settings
from moments.supervisor import Hook, Program, Pulse, Supervisor, answer_signals, tell
from moments_resources.store.locks import passing_lock, remove_unlocked

# A socket's address may have 107 bytes, of which ours take 53; TMPDIR is the user's and may be long.
_LONGEST_FOLDER = 50
_SHORT_FOLDER = "/tmp"  # noqa: S108 - the folder inside is made for us alone, under a name that nobody can foresee


def run(workspace: Path | None) -> None:
    """Work until asked to stop. Raises as `Supervisor.run`, and SettingsError for wrong settings.

    With `workspace` the code server is somebody else's; without it, one of our own is started.
    """
    answer_signals()
    with suppress(KeyboardInterrupt):
        lakehouse = up(load_settings())
        with group_folder() as name:
            folder = Path(name)
            if workspace:
                supervisor = supervisor_of(lakehouse, folder, daemon=dagster_daemon(workspace))
            else:
                daemon = dagster_daemon(own_workspace(folder), after=code_socket(folder))
                supervisor = supervisor_of(lakehouse, folder, daemon=daemon, others=[code_server(folder)])
            supervisor.run(lambda: set_pools(lakehouse))


def supervisor_of(lakehouse: Lakehouse, folder: Path, *, daemon: Program, others: Sequence[Program] = ()) -> Supervisor:
    return Supervisor(lakehouse, ProcessGroup(folder), daemon=daemon, others=others, hooks=daemon_hooks(lakehouse))


def daemon_hooks(lakehouse: Lakehouse) -> tuple[Hook, ...]:
    """What the one daemon does every five seconds beside Dagster's own: short, and right to do twice."""
    return (reaping(lakehouse),)


def reaping(lakehouse: Lakehouse) -> Hook:
    """Ends what died: runs, attempts, slots, and the scratch folders of this machine's dead processes."""
    from dagster import DagsterInstance

    from moments_resources.store.locks import remove_abandoned
    from moments_resources.workers import Workers
    from moments_sensors.reaper import Reaper

    reaper = Reaper(lakehouse.history, Workers(lakehouse.database))

    def reap() -> None:
        with DagsterInstance.get() as instance:
            ended = reaper.reap(instance)
        for run_id in ended:
            tell(f"Run {run_id} was dead or had lost its end: its work is free for another.")
        remove_abandoned(lakehouse.settings.state / "scratch")

    return reap


def dagster_daemon(workspace: Path, *, after: Path | None = None) -> Program:
    pulse = Pulse(Heartbeats().silent_s, HEARTBEAT_SILENCE_S)
    return Program("Dagster daemon", "dagster._daemon", ["run", "-w", str(workspace)], after=after, pulse=pulse)


def code_server(folder: Path) -> Program:
    """The process that evaluates sensors and starts runs, for daemon and UI alike.

    On a socket in a private folder: it starts any code that it is asked for, and a port would let any user ask. Asked
    by SIGTERM, it takes no new run and ends with its last one.
    """
    # Lazily: definitions that can't be loaded are an error to read in the UI, not the end of the server.
    how = ["--lazy-load-user-code", "--log-level", "warning"]
    return Program(
        "code server",
        "moments.code_server",
        ["--socket", str(code_socket(folder)), *how],
        asking=signal.SIGTERM,
        pulse=Pulse(Answering(code_socket(folder)).silent_s, ANSWER_SILENCE_S),
    )


def own_workspace(folder: Path) -> Path:
    """The workspace file that leads to our own code server."""
    server = {"socket": str(code_socket(folder)), "location_name": LOCATION}
    file = folder / "workspace.yaml"
    file.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))  # JSON is YAML
    return file


@contextmanager
def group_folder() -> Iterator[str]:
    """A private folder with a short name, gone at the end of its block; those that a power cut left go, too."""
    base = tempfile.gettempdir()
    short = Path(base if len(base) <= _LONGEST_FOLDER else _SHORT_FOLDER)
    _remove_abandoned(short)
    folder = short / f"moments-{uuid.uuid4().hex[:12]}"
    with passing_lock(folder.with_suffix(".lock")):  # before there is a folder: none is without it
        folder.mkdir(mode=0o700)
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(base: Path) -> None:
    for lock in base.glob("moments-*.lock"):
        # In everybody's folder: another user's is theirs to remove.
        with suppress(OSError):
            if lock.stat().st_uid == os.geteuid():
                remove_unlocked(base, lock.name, lambda own: shutil.rmtree(own.with_suffix(""), ignore_errors=True))


def set_pools(lakehouse: Lakehouse) -> None:
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        apply_pools(instance, lakehouse.settings)


def code_socket(folder: Path) -> Path:
    """Where our own code server listens; there once it has loaded the definitions."""
    return folder / "code.sock"
