"""The files of an SSH host and of one who may log in there: made once in a folder, found there from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncssh

HOST = "127.0.0.1"
USER = "moments"


class SshKeys:
    """`key_file`: the user's private key; `known_hosts`: what that user knows; `host`: the private keys of the host."""

    def __init__(self, folder: Path, host_key_types: tuple[str, ...] = ("ssh-ed25519",)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.key_file = folder / "id"
        self.known_hosts = folder / "known_hosts"
        self.authorized_keys = folder / "authorized_keys"
        self.host = [self._key(folder / f"host_{kind}", kind) for kind in host_key_types]
        self.user = self._key(self.key_file, "ssh-ed25519")
        self.authorized_keys.write_bytes(self.user.export_public_key())
        self.authorized_keys.chmod(0o600)

    @property
    def host_files(self) -> list[Path]:
        return sorted(self._folder.glob("host_*"))

    def make_known(self, port: int) -> None:
        """Write known_hosts anew, with every key that the host has."""
        self.known_hosts.write_text("".join(known_line(key, port) for key in self.host))

    def replace_host_keys(self) -> None:
        """Other keys of the same types; known_hosts keeps the old ones."""
        kinds = [path.name.removeprefix("host_") for path in self.host_files]
        for path in self.host_files:
            path.unlink()
        self.host = [self._key(self._folder / f"host_{kind}", kind) for kind in kinds]

    def entry_fields(self, port: int, user: str = USER) -> dict[str, Any]:
        """The block `ssh` of a model's entry."""
        files = {"key_file": str(self.key_file), "known_hosts": str(self.known_hosts)}
        return {"host": HOST, "port": port, "user": user, **files}

    @staticmethod
    def _key(path: Path, kind: str) -> asyncssh.SSHKey:
        if not path.exists():
            made = asyncssh.generate_private_key(kind, **({"key_size": 2048} if kind == "ssh-rsa" else {}))
            path.write_bytes(made.export_private_key())
            path.chmod(0o600)
        return asyncssh.read_private_key(path)


def known_line(key: asyncssh.SSHKey, port: int, host: str = HOST) -> str:
    """A line of known_hosts."""
    return f"[{host}]:{port} {key.export_public_key().decode().strip()}\n"
