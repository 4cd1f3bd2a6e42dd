"""The one daemon of an installation. Sets the limits of the pools, then works as long as it holds the daemon's lock.

Two daemons on one instance launched one run twice. The lock falls with its connection: when PostgreSQL restarts, the
daemon ends with it, and whatever supervises it starts it again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click
from dagster import DagsterInstance
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from moments.children import end_all
from moments.services import DAEMON_LOCK, Lakehouse, apply_pools, up
from moments.settings import load_settings
from moments_core.errors import MomentsError, ServiceError, SettingsError
from moments_resources.database import try_lock

WORKSPACE = Path(__file__).with_name("workspace.yaml")
LOOK_SECONDS = 5.0
STOP_SECONDS = 20.0  # docker gives 30


def main() -> int:
    """Exit status: 0 asked to stop, 1 the daemon ended or lost its lock, 2 another one is at work."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return run(up(load_settings()))
    except MomentsError as error:
        click.echo(f"moments: {error}", err=True)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 0


def run(lakehouse: Lakehouse) -> int:
    with lakehouse.database.own_connection() as connection:
        if not try_lock(connection, DAEMON_LOCK):
            raise SettingsError("A daemon runs on this lakehouse already: one is enough, stop it first.")
        with DagsterInstance.get() as instance:
            apply_pools(instance, lakehouse.settings)
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(WORKSPACE)]
        daemon = subprocess.Popen(command, process_group=0)  # noqa: S603 - a program and a file of ours
        try:
            return _watch(connection, daemon)
        finally:
            end_all([daemon], asking=signal.SIGINT, patience_seconds=STOP_SECONDS)


def _watch(connection: Connection, daemon: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return daemon.wait(LOOK_SECONDS) or 1
        except subprocess.TimeoutExpired:
            _check_lock(connection)


def _check_lock(connection: Connection) -> None:
    # Asked on its own connection, with which it falls: another daemon may hold the lock by now.
    try:
        connection.execute(text("select 1"))
    except DBAPIError:
        raise ServiceError("The daemon's lock is gone with its connection: start the daemon again.") from None


if __name__ == "__main__":
    sys.exit(main())
