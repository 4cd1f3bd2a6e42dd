"""Lock files that show whether their process lives: flock(2) falls with it, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def flocked(path: Path, kind: int) -> Iterator[int]:
    """Hold a lock (fcntl.LOCK_SH or LOCK_EX) on a file that is made where it is missing; yields its descriptor."""
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(file, kind)
        yield file
    finally:
        os.close(file)


@contextmanager
def passing_lock(path: Path) -> Iterator[Path]:
    """Hold a lock file that is removed at the end."""
    while True:
        with flocked(path, fcntl.LOCK_EX) as file:
            if _is_at(path, file):  # else whoever had it before removed it: what we hold is a lock on nothing
                try:
                    yield path
                finally:
                    path.unlink(missing_ok=True)
                return


def remove_unlocked(folder: Path, pattern: str = "*", remove: Callable[[Path], object] | None = None) -> None:
    """Remove the lock files of dead processes; `remove` is called for each before, with its lock still held."""
    for path in folder.glob(pattern):
        with _abandoned(path) as is_abandoned:
            if is_abandoned:
                if remove is not None:
                    remove(path)
                path.unlink()


def lock_of(path: Path) -> Path:
    """The lock file of a thing that lies beside it: made before the thing, removed after it."""
    return path.with_suffix(".lock")


def abandoned(folder: Path) -> list[Path]:
    """What dead processes left in a folder of things that each have their lock file, and their lock files."""
    return [path for path in _listed(folder) if not is_held(lock_of(path))]


def remove_abandoned(folder: Path) -> int:
    """Remove what `abandoned` lists; says how much of it there was. Nothing in use is touched."""
    found = abandoned(folder)
    if found:
        remove_unlocked(folder, "*.lock")
        for path in found:
            if not lock_of(path).exists():
                _remove(path)
    return len(found)


def unlocked(folder: Path) -> list[Path]:
    """Files that are nothing but locks, and that nobody holds."""
    return [path for path in _listed(folder) if not is_held(path)]


def is_held(path: Path) -> bool:
    """Whether a living process holds a lock file."""
    with _abandoned(path) as is_abandoned:
        return path.exists() and not is_abandoned


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether nobody holds a lock file; if so, we do inside of the context."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try_flock(file) and _is_at(path, file)
    finally:
        os.close(file)


def _try_flock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, file: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
