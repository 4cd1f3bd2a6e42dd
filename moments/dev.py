"""`moments dev`: the Dagster UI beside the daemon, both on one code server of our own."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import click

from moments.daemon import (
    code_server,
    code_socket,
    dagster_daemon,
    group_folder,
    own_workspace,
    set_pools,
    supervisor_of,
)
from moments.services import Lakehouse, up
from moments.settings import load_settings
from moments.supervisor import Program, answer_signals
from moments_core.errors import SettingsError


def run(port: int) -> None:
    """Work until asked to stop. Raises as `moments.daemon.run`, and SettingsError where the UI's port is taken."""
    answer_signals()
    with suppress(KeyboardInterrupt):
        lakehouse = up(load_settings())
        with group_folder() as name:
            folder = Path(name)
            workspace, ready = own_workspace(folder), code_socket(folder)
            ui = webserver(port, workspace, after=ready)
            supervisor = supervisor_of(
                lakehouse, folder, daemon=dagster_daemon(workspace, after=ready), others=[code_server(folder), ui]
            )
            supervisor.run(lambda: _prepare(lakehouse, port))


def webserver(port: int, workspace: Path, *, after: Path) -> Program:
    arguments = ["-h", "127.0.0.1", "-p", str(port), "-w", str(workspace)]
    return Program("Dagster UI", "dagster_webserver", arguments, after=after)


def _prepare(lakehouse: Lakehouse, port: int) -> None:
    # Tried here, where it is a sentence: the UI's own process would be started again and again.
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        raise SettingsError(
            f"Port {port} can't be used ({os.strerror(error.errno or 0)}): name another one by --port."
        ) from error
    set_pools(lakehouse)
    click.echo(f"Dagster UI: http://127.0.0.1:{port}  (Ctrl-C stops it)", err=True)
