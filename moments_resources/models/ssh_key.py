"""The private key that an SSH host is asked to accept. Imported lazily: paramiko takes a third of a second."""

from __future__ import annotations

import io
import os
from pathlib import Path

import paramiko  # noqa: TID253 - this module is imported where a key is needed
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from moments_core.errors import SettingsError

_KINDS = {"Ed25519PublicKey": paramiko.Ed25519Key, "RSAPublicKey": paramiko.RSAKey, "ECPublicKey": paramiko.ECDSAKey}

_MAX_BYTES = 100_000  # an RSA key of 16,384 bits has 13,000


def read_key(path: Path) -> paramiko.PKey:
    """The private key in a file that its owner alone can read. Raises SettingsError; no word of the file is in it."""
    _check_file(path)
    try:
        return _loaded(path)
    except TypeError:  # so cryptography says that a passphrase is missing
        raise SettingsError(
            f"{path} is protected by a passphrase, which nobody is there to type: "
            f"set ssh.key_file to a key of its own without one (`ssh-keygen -t ed25519 -N ''`)."
        ) from None
    except (paramiko.SSHException, UnsupportedAlgorithm, KeyError, ValueError):
        # Not chained: the parser's error may quote the file.
        raise SettingsError(
            f"{path} is damaged or of a kind that can't be used: set ssh.key_file to an Ed25519, ECDSA or RSA key."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _loaded(path: Path) -> paramiko.PKey:
    """By cryptography, which reads every form that ssh reads; paramiko's own parser knows no PKCS #8."""
    data = path.read_bytes()
    try:
        private = serialization.load_ssh_private_key(data, password=None)
    except ValueError:
        private = serialization.load_pem_private_key(data, password=None)  # type: ignore[assignment]
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    key = _KINDS[type(private.public_key()).__name__].from_private_key(io.StringIO(plain.decode()))
    certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.is_file():  # ssh takes it too
        key.load_certificate(str(certificate))
    return key


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        start = _start(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if start.startswith(b"PuTTY-User-Key-File"):
        raise SettingsError(f"{path} is a key of PuTTY: export it as an OpenSSH key (`puttygen -O private-openssh`).")
    if b"PRIVATE KEY" not in start.partition(b"\n")[0] or status.st_size > _MAX_BYTES:
        raise SettingsError(f"{path} is no private key: set ssh.key_file to the file without .pub.")
    # As ssh does: a key that another account owns, such as a mounted secret, is that account's to guard.
    if status.st_mode & 0o077 and status.st_uid == os.getuid():
        raise SettingsError(f"{path} is open to other users: run `chmod 600 {path}`.")


def _start(path: Path) -> bytes:
    if not path.is_file():  # a pipe or a device would keep us waiting
        return b""
    with path.open("rb") as file:
        return file.read(200)


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"{path} can't be read ({error.strerror}): set ssh.key_file to the private key.")
