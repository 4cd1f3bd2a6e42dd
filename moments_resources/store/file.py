"""The object store as a folder: the embedded default."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moments_core.errors import PermanentError, ResourceError, ServiceError, SettingsError
from moments_resources.store.interface import StoredObject, checked_key, is_key
from moments_resources.store.locks import abandoned, lock_of, passing_lock, remove_abandoned

_PRUNE_RACES = 100  # each takes a delete in the same folder within microseconds
_INCOMING = ".incoming"  # keys never start with a dot, so nothing in here is an object


class FileStore:
    """Objects as read-only files below `root`.

    A file appears under its key by `link`, which is atomic and refuses to overwrite. It is on the disk (fsync)
    before its key is: a row that names it after a power cut finds its bytes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def copy_in(self, path: Path, key: str) -> StoredObject:
        return self._store(path, key, shutil.copyfile)

    def adopt(self, path: Path, key: str) -> StoredObject:
        return self._store(path, key, link_or_copy)

    def local(self, key: str, sha256: str | None = None) -> Path:  # noqa: ARG002 - a folder's file is the object itself
        path = self._path(key)
        if not path.is_file():
            raise ServiceError("An object is missing from the store: was its folder moved or cleaned?", key=key)
        return path

    def uri(self, key: str) -> str:
        return self._path(key).resolve().as_uri()

    def signed_url(self, key: str, *, lifetime_s: int = 900) -> str | None:  # noqa: ARG002 - nothing to sign
        checked_key(key)
        return None

    def delete(self, key: str) -> bool:
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        self._prune(path.parent)
        return True

    def size(self, key: str) -> int | None:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def leftovers(self) -> list[Path]:
        return abandoned(self.root / _INCOMING)

    def tidy(self) -> int:
        with disk_faults_named(self.root):
            return remove_abandoned(self.root / _INCOMING)

    def keys(self, prefix: str = "") -> Iterator[str]:
        inner = prefix.rpartition("/")[0]
        start = self._path(inner) if inner else self.root  # one video's objects, without a walk through all others
        with disk_faults_named(self.root):
            for folder, folders, names in os.walk(start, onerror=_raise_unless_gone):
                folders.sort()
                for name in sorted(names):
                    key = (Path(folder) / name).relative_to(self.root).as_posix()
                    if key.startswith(prefix) and is_key(key):
                        yield key

    def check(self) -> str:
        with disk_faults_named(self.root), self._incoming() as probe:
            probe.write_bytes(b"moments")
            free = shutil.disk_usage(self.root).free
        return f"{self.root.resolve()} can be written; {free / 1e9:.1f} GB free."

    def _store(self, path: Path, key: str, bring: Callable[[Path, Path], object]) -> StoredObject:
        target = self._path(key)
        with disk_faults_named(self.root), self._incoming() as incoming:
            bring(path, incoming)
            stored = StoredObject(key, incoming.stat().st_size, _settled_sha256(incoming))
            incoming.chmod(0o444)
            self._publish(incoming, target, stored)
        return stored

    def _publish(self, incoming: Path, target: Path, stored: StoredObject) -> None:
        try:
            _link_below(incoming, target)
        except FileExistsError:
            if file_sha256(target) != stored.sha256:
                raise PermanentError("The store has this key with other content.", key=stored.key) from None
        sync_folder(target.parent)

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A path for a file on its way in. It is gone at the end; after a kill, its lock file shows that it may go."""
        folder = self.root / _INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid.uuid4().hex
        with passing_lock(lock_of(path)):
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _prune(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # not empty: somebody else's objects
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settled_sha256(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link_below(source: Path, target: Path) -> None:
    """Link a file into folders that are made on the way."""
    for _ in range(_PRUNE_RACES):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process's `delete` may prune the folder, empty as it still is, before the link is in it.
        with contextlib.suppress(FileNotFoundError):
            os.link(source, target)
            return
    os.link(source, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name where the disk allows it; else copy it."""
    try:
        os.link(source.resolve(), target)  # link(2) would store a symbolic link itself
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
            raise
        shutil.copyfile(source, target)


def _raise_unless_gone(error: OSError) -> None:
    """A folder that can't be read is not an empty one; one that was pruned meanwhile is."""
    if not isinstance(error, FileNotFoundError):
        raise error


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_faults_named(folder: Path, name: str = "object store", setting: str = "MOMENTS_STORE_URL") -> Iterator[None]:
    """Raises ResourceError for a full disk, SettingsError for a folder that can't be used."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ResourceError(f"The disk of the {name} is full: free some space, then try again.") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
            raise SettingsError(f"The {name} {folder} can't be used ({error.strerror}): check {setting}.") from error
        raise
