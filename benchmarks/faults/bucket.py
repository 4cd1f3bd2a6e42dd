"""What a bucket and its cache on this machine may hold after any faults: nothing half, nothing that never goes.

An upload on its way leaves no object: what arrives is visible as a whole (gcs_bucket.py), and Google forgets the rest.
An object whose attempt died before its commit stays for the time being; retention finds it by its key (objects.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from moments_core.retention import owner_of
from moments_resources.store.cache import Entry


def stray_objects(names: Sequence[str], prefix: str) -> list[tuple[str, int]]:
    """(name, 0) of objects that retention would never remove: temporary ones, and keys of no form of ours."""
    return [(name, 0) for name in names if not name.startswith(prefix) or owner_of(name.removeprefix(prefix)) is None]


def stray_files(cache: Path, objects: Sequence[str], read: Callable[[str], bytes | None]) -> list[tuple[str, int]]:
    """(path, bytes) of cached files that are half, damaged, or of no object: nobody asks for them any more.

    `objects`: addresses of all that the bucket holds, of which `read` gives the content.
    """
    by_id = {Entry(uri).id: uri for uri in objects}
    found = []
    for path in sorted((cache / "objects").glob("*/*")):
        uri = by_id.get(path.parent.name)
        if uri is None or path.name != Entry(uri).name or _sum(path.read_bytes()) != _sum(read(uri) or b""):
            found.append((str(path), path.stat().st_size))
    return found


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
