"""Files of a remote store kept on this machine, shared by all its processes.

    lock              held exclusively to change what is below, shared to hand a file out
    used              bytes in `objects`, as last counted
    objects/ID/NAME   the files, complete and read only; the time of the last use is their mtime
    turns/ID.part     a file on its way in; ID.lock is held by the process that brings it
    leases/UUID       IDs that a process was handed; locked as long as it lives

Every lock is flock(2): the kernel drops it with its process, so that whatever a killed process left behind is known by
its lock being free.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from moments_resources.store.file import disk_faults_named, file_sha256
from moments_resources.store.locks import (
    abandoned,
    flocked,
    passing_lock,
    remove_unlocked,
    unlocked,
)

# A scan of all files costs about 10 us each; freeing a tenth at a time makes it rare.
_ROOM_LEFT = 0.1
# A worker process lives for weeks, a run at most 12 hours (run_monitoring in dagster.yaml): what it was handed longer
# ago than that is in nobody's hands, and would fill the disk.
_LONGEST_HOLD_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """What a cached file is: the address of its object, and the name that the file has on disk."""

    uri: str

    @property
    def id(self) -> str:
        return hashlib.sha256(self.uri.encode()).hexdigest()[:40]

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]


class LocalCache:
    """At most `max_bytes` of files, least recently used out first. Touches nothing before it is used.

    All methods raise ResourceError where the disk is full, and SettingsError where the folder can't be used.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._lease: _Lease | None = None
        self._leasing = threading.Lock()
        self._sound: set[str] = set()  # what this process has checked: reading a large file takes seconds

    def held(self, entry: Entry, sha256: str | None) -> Path | None:
        """The entry's file, which now stays as long as this process lives (12 hours at most); None if there is none.

        A file whose content is not what `sha256` says is dropped.
        """
        with disk_faults_named(self.folder, "download cache", "MOMENTS_HOME"):
            path = self._hold(entry)
            if path is None or sha256 is None or entry.id in self._sound:
                return path
            if file_sha256(path) != sha256:
                self.drop(entry)
                return None
            self._sound.add(entry.id)
            return path

    @contextmanager
    def turn(self, entry: Entry) -> Iterator[Path]:
        """Yields the path at which to make the entry's file, to one thread of the whole machine at a time.

        What was not published at the end is removed, also after a kill: by the next turn.
        """
        turns = self._folder("turns")
        with disk_faults_named(self.folder, "download cache", "MOMENTS_HOME"):
            self._remove_parts(turns)
            with passing_lock(turns / f"{entry.id}.lock") as lock:
                part = _part_of(lock)
                part.unlink(missing_ok=True)  # of a process that was killed while we waited for it
                try:
                    yield part
                finally:
                    part.unlink(missing_ok=True)

    def publish(self, entry: Entry, part: Path) -> Path:
        """Make a finished, verified file the entry's, and hold it."""
        _settle(part)
        size = part.stat().st_size
        path, lease = self._path(entry), self._leased()
        with self._exclusively():
            self._make_room(size)
            path.parent.mkdir(parents=True, exist_ok=True)
            used = self._used() - (path.stat().st_size if path.exists() else 0)
            part.replace(path)
            self._note_used(used + size)
            lease.add(entry.id)
        self._sound.add(entry.id)
        return path

    def make_room(self, size: int) -> None:
        """Remove what was not used for longest until `size` bytes more fit, as far as nobody holds it."""
        with self._exclusively():
            self._make_room(size)

    def drop(self, entry: Entry) -> None:
        """Forget the entry, whoever holds it: its object is gone, or its file is damaged."""
        self._sound.discard(entry.id)
        if not self.folder.exists():
            return
        with self._exclusively():
            path = self._path(entry)
            if path.exists():
                self._note_used(self._used() - _remove(path))

    def leftovers(self) -> list[Path]:
        """What processes that died left behind: files half brought in, and their leases."""
        return [*abandoned(self.folder / "turns"), *unlocked(self.folder / "leases")]

    def tidy(self) -> int:
        """Remove the leftovers; says how many there were."""
        if not self.folder.exists():
            return 0
        with self._exclusively():  # or a lease that is just being made would be taken for abandoned
            leases = unlocked(self.folder / "leases")
            remove_unlocked(self.folder / "leases")
        parts = abandoned(self.folder / "turns")
        self._remove_parts(self.folder / "turns")
        return len(leases) + len(parts)

    def _remove_parts(self, turns: Path) -> None:
        # With their locks held: a turn at the same file may begin meanwhile.
        remove_unlocked(turns, "*.lock", lambda lock: _part_of(lock).unlink(missing_ok=True))

    def _hold(self, entry: Entry) -> Path | None:
        path = self._path(entry)
        if not path.exists():  # the common miss, without a lock; that it is there is only true below
            return None
        lease = self._leased()
        # Shared is enough: it keeps out whoever removes files, between our look at the file and our note of it.
        with flocked(self._folder() / "lock", fcntl.LOCK_SH):
            if not path.is_file():
                return None
            os.utime(path)
            lease.add(entry.id)
            return path

    def _leased(self) -> _Lease:
        """This process's lease; a fork shares it, and with it the lock, which falls with the last of them."""
        with self._leasing:  # of two that two threads made, the second closed the first, and its holds fell
            if self._lease is None:
                self._lease = _Lease(self._folder("leases"))
            return self._lease

    def _make_room(self, size: int) -> None:
        if self._used() + size <= self._max_bytes:
            return
        files = sorted(_files(self.folder / "objects"))
        held = _Lease.all_ids(self.folder / "leases")
        used = sum(file.size for file in files)
        goal = min(self._max_bytes - size, (1 - _ROOM_LEFT) * self._max_bytes)
        long_ago = time.time_ns() - _LONGEST_HOLD_S * 10**9
        for file in files:
            if used <= goal:
                break
            if file.used_ns < long_ago or file.path.parent.name not in held:
                used -= _remove(file.path)
        self._note_used(used)

    def _used(self) -> int:
        """Bytes in all files. Counted anew where the note of it can't be read."""
        try:
            return int((self.folder / "used").read_text())
        except (OSError, ValueError):
            return sum(file.size for file in _files(self.folder / "objects"))

    def _note_used(self, size: int) -> None:
        (self.folder / "used").write_text(str(max(size, 0)))

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with (
            disk_faults_named(self.folder, "download cache", "MOMENTS_HOME"),
            flocked(self._folder() / "lock", fcntl.LOCK_EX),
        ):
            yield

    def _folder(self, name: str = "") -> Path:
        folder = self.folder / name
        with disk_faults_named(self.folder, "download cache", "MOMENTS_HOME"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _path(self, entry: Entry) -> Path:
        return self.folder / "objects" / entry.id / entry.name


class _Lease:
    """The IDs that this process was handed, in a file that is locked as long as the process lives.

    One descriptor a process: one a file would run out at the first video with a thousand thumbnails.
    """

    def __init__(self, folder: Path) -> None:
        self._ids: set[str] = set()
        with flocked(folder.parent / "lock", fcntl.LOCK_EX):  # or another would take ours for abandoned
            remove_unlocked(folder)
            self._file = os.open(folder / uuid.uuid4().hex, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            weakref.finalize(self, os.close, self._file)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def add(self, id_: str) -> None:
        if id_ not in self._ids:
            os.write(self._file, f"{id_}\n".encode())
            self._ids.add(id_)

    @staticmethod
    def all_ids(folder: Path) -> set[str]:
        """What living processes hold."""
        remove_unlocked(folder)
        return {id_ for lease in folder.glob("*") for id_ in lease.read_text().split()}


class _File(NamedTuple):
    """A cached file; files sort by their last use, oldest first."""

    used_ns: int
    size: int
    path: Path


def _files(objects: Path) -> Iterator[_File]:
    for path in objects.glob("*/*"):
        status = path.stat()
        yield _File(status.st_mtime_ns, status.st_size, path)


def _remove(path: Path) -> int:
    """Remove a cached file and its folder; its size in bytes."""
    size = path.stat().st_size
    path.unlink()
    with contextlib.suppress(OSError):  # something else lies in it; its files are counted and removed like any
        path.parent.rmdir()
    return size


def _part_of(lock: Path) -> Path:
    return lock.with_suffix(".part")


def _settle(part: Path) -> None:
    """On the disk before it has its name: after a power cut a named file has its content."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.chmod(0o444)
    os.utime(part)
