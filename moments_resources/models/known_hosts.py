"""Which keys an SSH host may show, as its known_hosts file says (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Read here and not by paramiko: its HostKeys knows neither wildcards nor @revoked, takes `!host` for a name, and ends
with an AssertionError at a broken line.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from moments_core.errors import SettingsError
from moments_core.model_entry import Ssh


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The keys that `name` may show. A key is the public key blob of RFC 4253, which begins with its type."""

    name: str
    file: Path
    trusted: tuple[bytes, ...]
    revoked: frozenset[bytes]

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the trusted keys (`ssh-ed25519`), each once, in the order of the file."""
        return tuple(dict.fromkeys(_type_of(key) for key in self.trusted))

    def judge(self, key: bytes) -> None:
        """Refuse a key that the host showed, unless it is trusted. Raises SettingsError."""
        if key not in self.revoked and any(hmac.compare_digest(key, trusted) for trusted in self.trusted):
            return
        shown = f"{_type_of(key)} {fingerprint(key)}"
        if key in self.revoked:
            raise SettingsError(f"{self.name} shows a host key that {self.file} revokes: don't connect.", shown=shown)
        if _type_of(key) not in self.types:
            raise SettingsError(
                f"{self.name} shows a host key of type {_type_of(key)}, and {self.file} names it with others alone "
                f"({', '.join(self.types)}): have its administrator confirm {fingerprint(key)}, then add it.",
                shown=shown,
            )
        raise SettingsError(
            f"{self.name} shows another host key than {self.file} holds: this may be an attack, or the host was set "
            f"up anew; replace the line only when its administrator has confirmed {fingerprint(key)}.",
            shown=shown,
        )


def read_host_keys(ssh: Ssh) -> HostKeys:
    """The keys that known_hosts holds for a host. Raises SettingsError where it holds none, or can't be read."""
    path = Path(ssh.known_hosts).expanduser()
    name = ssh.host.lower() if ssh.port == 22 else f"[{ssh.host.lower()}]:{ssh.port}"
    lines = _lines(path)
    if not lines:
        raise SettingsError(f"{path} is not there or is empty: {_how_to_know(ssh)}.")
    found = [(marker, key) for marker, hosts, key in map(_parsed, lines) if key and _names(hosts, name)]
    trusted = tuple(dict.fromkeys(key for marker, key in found if not marker))
    if not trusted:
        raise SettingsError(f"{path} does not name {name}: {_how_to_know(ssh)}.")
    return HostKeys(name, path, trusted, frozenset(key for marker, key in found if marker == "@revoked"))


def fingerprint(key: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _how_to_know(ssh: Ssh) -> str:
    return (
        f"compare the output of `ssh-keyscan -p {ssh.port} {ssh.host}` with the fingerprint that its "
        f"administrator gives you, and add it to {ssh.known_hosts}"
    )


def _lines(path: Path) -> list[str]:
    try:
        # Anything but a file would keep us waiting.
        return path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror}): check its permissions.") from error


def _parsed(line: str) -> tuple[str, str, bytes]:
    """A line's marker, or nothing; its hosts; its key, empty where there is none that ssh would read."""
    marker, rest = line.split(maxsplit=1) if line.lstrip().startswith("@") and len(line.split()) > 1 else ("", line)
    fields = rest.split()
    if len(fields) < 3 or fields[0].startswith("#"):
        return marker, "", b""
    return marker, fields[0], _key(fields[1], fields[2])


def _key(name: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        return b""
    return key if _type_of(key) == name else b""


def _type_of(key: bytes) -> str:
    return ascii(key[4 : 4 + min(64, int.from_bytes(key[:4]))].decode("ascii", errors="replace"))[1:-1]


def _names(hosts: str, name: str) -> bool:
    if hosts.startswith("|1|"):
        return _is_hash_of(name, hosts)
    patterns = hosts.lower().split(",")
    denied = any(_fits(name, pattern[1:]) for pattern in patterns if pattern.startswith("!"))
    return not denied and any(_fits(name, pattern) for pattern in patterns)


def _is_hash_of(name: str, hashed: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.split("|")[2:])
    except ValueError:  # not three parts, or no base64: no line that ssh would read
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), hashlib.sha1), digest)


def _fits(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), name) is not None
