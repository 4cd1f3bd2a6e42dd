"""What an object store does. Keys are immutable: an object is written once and never overwritten."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moments_core.errors import PermanentError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MAX_KEY_LENGTH = 512
_MAX_STEM_LENGTH = 70
_SUFFIX = re.compile(r"[A-Za-z0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its key, size in bytes and SHA-256 as hex."""

    key: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        return {"key": self.key, "bytes": self.bytes, "sha256": self.sha256}


class ObjectStore(Protocol):
    """Files under immutable keys."""

    def copy_in(self, path: Path, key: str) -> StoredObject:
        """Store a copy of somebody else's file. Storing the same content again under its key does nothing."""
        ...

    def adopt(self, path: Path, key: str) -> StoredObject:
        """Store a file that we made and that nobody will write to again; may share its bytes instead of copying."""
        ...

    def local(self, key: str, sha256: str | None = None) -> Path:
        """A local file with the object's content, read only. Raises ServiceError where the object is gone."""
        ...

    def uri(self, key: str) -> str:
        """Where the object lies, for people and other programs."""
        ...

    def signed_url(self, key: str, *, lifetime_s: int = 900) -> str | None:
        """An address at which anybody may read the object for `lifetime_s` seconds, 900 at most.

        None where the store has no address that another machine could open. It is a secret as long as it lives: made
        when it is needed, never stored, never logged. Raises SettingsError where our credentials can't sign.
        """
        ...

    def delete(self, key: str) -> bool:
        """Remove the object; says whether there was one."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        ...

    def leftovers(self) -> list[Path]:
        """What processes that died left half done on this machine."""
        ...

    def tidy(self) -> int:
        """Remove the leftovers; says how many there were. What is in use stays."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with `prefix`, in order. What is no object of ours is not among them."""
        ...

    def check(self) -> str:
        """Write, read and remove a small object; a sentence on how the store is. Raises what went wrong."""
        ...


class StoredFile(os.PathLike[str]):
    """An object as a file, fetched when it is first opened."""

    def __init__(self, store: ObjectStore, key: str, sha256: str) -> None:
        self._store = store
        self.key = key
        self.sha256 = sha256

    def __fspath__(self) -> str:
        return str(self._store.local(self.key, self.sha256))

    def __repr__(self) -> str:
        return f"StoredFile({self.key!r})"

    @property
    def path(self) -> Path:
        return Path(self)

    @property
    def uri(self) -> str:
        return self._store.uri(self.key)


def is_key(key: str) -> bool:
    """Whether `key` stays inside the store and is portable."""
    return len(key) <= _MAX_KEY_LENGTH and _KEY.fullmatch(key) is not None


def checked_key(key: str) -> str:
    """`key`, or PermanentError when it could leave the store or is not portable."""
    if not is_key(key):
        raise PermanentError("An object key may hold letters, digits, '.', '_', '-' and '/' alone.", key=key[:200])
    return key


def safe_name(name: str) -> str:
    """A file name from anywhere as the last part of a key: portable, never hidden, its suffix kept."""
    stem, _, suffix = name.rpartition(".")
    if not _SUFFIX.fullmatch(suffix) or "." not in name:
        stem, suffix = name, ""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:_MAX_STEM_LENGTH].strip("._-") or "file"
    return f"{stem}.{suffix}" if suffix else stem
