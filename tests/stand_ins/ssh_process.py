"""SSH servers in processes of their own, which can be frozen, thawed and killed in the middle of a call.

with SshProcess(asyncssh_command(folder)) as server: ...      # everywhere
with SshProcess(openssh_command(folder)) as server: ...       # OpenSSH's sshd; None where it is not installed
"""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.stand_ins.ssh_keys import HOST, USER, SshKeys

_WAIT_S = 30.0  # only a hang takes as long
_ROOT = Path(__file__).parents[2]

Command = Callable[[int], list[str]]


class SshProcess:
    """A server process on a port of its own, the same one after each `kill` and `start`."""

    def __init__(self, folder: Path, command: Command, user: str = USER) -> None:
        self.keys = SshKeys(folder)
        self.port = _free_port()
        self.keys.make_known(self.port)
        self._user = user
        self._command = command
        self._process: psutil.Popen | None = None

    def entry_fields(self) -> dict[str, Any]:
        """The block `ssh` of an entry that leads through this server."""
        return self.keys.entry_fields(self.port, self._user)

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = psutil.Popen(
            self._command(self.port),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
        )
        deadline = time.monotonic() + _WAIT_S
        while not _is_listening(self.port):
            assert self._process.poll() is None, "the SSH server ended at its start"
            assert time.monotonic() < deadline, "the SSH server does not listen"
            time.sleep(0.02)

    def freeze(self) -> None:
        """Stop it and the processes of its connections; the kernel goes on taking connections and bytes for it."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End it and the processes of its connections at once."""
        if self._process is None:
            return
        self._send(signal.SIGKILL)
        self._process.communicate()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:  # the process of a connection that has just ended
                continue


def asyncssh_process(folder: Path) -> SshProcess:
    """The server of ssh_server.py; it ends with this process."""
    program = [sys.executable, "-m", "tests.stand_ins.ssh_server", str(folder)]
    return SshProcess(folder, lambda port: [*program, str(port)])


def openssh_process(folder: Path) -> SshProcess | None:
    """OpenSSH's sshd, for the user who runs this; None where there is none, or it can't run here."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
    if sshd is None:
        return None
    with suppress(OSError):  # the folder that sshd wants is made at boot, and a container has no boot
        Path("/run/sshd").mkdir(exist_ok=True)
    made = SshProcess(folder, lambda port: _sshd_command(sshd, folder, port), user=getpass.getuser())
    can_run = subprocess.run([*_sshd_command(sshd, folder, made.port), "-t"], check=False, capture_output=True)
    return made if can_run.returncode == 0 else None


def _sshd_command(sshd: str, folder: Path, port: int) -> list[str]:
    options = {
        "ListenAddress": HOST,
        "Port": port,
        "HostKey": folder / "host_ssh-ed25519",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",  # the folder may lie below one that others may write to
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [sshd, "-D", "-e", "-f", "/dev/null", *given]


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
