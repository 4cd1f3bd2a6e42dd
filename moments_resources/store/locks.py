"""Lock files that show whether their process lives: flock(2) falls with it, however it ends."""

from __future__ import annotations

import fcntl
import os
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
