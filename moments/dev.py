"""`moments dev`: the Dagster UI and daemon over the services, one daemon an instance."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import click

from moments.children import end_all
from moments.services import DAEMON_LOCK, Lakehouse, apply_pools
from moments.settings import PROJECT
from moments_core.errors import SettingsError

_STOP_SECONDS = 20.0


def run(lakehouse: Lakehouse, port: int) -> int:
    """Run UI and daemon until one of them ends or Ctrl-C; returns the exit status."""
    from dagster import DagsterInstance

    # Two daemons on one instance launched one run twice; the lock falls with this process.
    with lakehouse.database.try_lock(DAEMON_LOCK) as ours:
        if not ours:
            raise SettingsError("A daemon runs on this lakehouse already: stop it first, or use its UI.")
        with DagsterInstance.get() as instance:
            apply_pools(instance, lakehouse.settings)
        workspace = ["-w", str(PROJECT / "workspace.yaml")]
        commands = [
            ["dagster_webserver", "-h", "127.0.0.1", "-p", str(port), *workspace],
            ["dagster._daemon", "run", *workspace],
        ]
        click.echo(f"Dagster UI: http://127.0.0.1:{port}  (Ctrl-C stops it)", err=True)
        return _supervise([_start(command) for command in commands])


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    module, *arguments = command
    # In the folder that the user stands in: `.env` and relative settings mean the same to them as to us.
    return subprocess.Popen([sys.executable, "-m", module, *arguments], process_group=0)  # noqa: S603


def _supervise(children: Sequence[subprocess.Popen[bytes]]) -> int:
    # Also SIGINT: a shell script starts its background jobs with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        return next(child.returncode or 1 for child in children if child.poll() is not None)
    except KeyboardInterrupt:
        return 0
    finally:
        end_all(children, asking=signal.SIGINT, patience_seconds=_STOP_SECONDS)
