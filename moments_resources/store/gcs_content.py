"""What an object holds: as we measure it, and as a bucket describes it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from moments_core.errors import ServiceError

if TYPE_CHECKING:
    from google.cloud.storage import Blob

SHA256 = "sha256"  # the name of our custom metadata
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Digest:
    """Size in bytes, SHA-256 as hex, and CRC32C as GCS writes it (base64 of 4 bytes, big-endian)."""

    bytes: int
    sha256: str
    crc32c: str


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as the bucket describes it; `sha256` is None where somebody else stored it."""

    name: str
    bytes: int
    crc32c: str
    sha256: str | None
    generation: int

    def holds(self, content: Digest) -> bool:
        same = (self.bytes, self.crc32c) == (content.bytes, content.crc32c)
        return same and self.sha256 in {None, content.sha256}


def digest_of(stream: BinaryIO) -> Digest:
    """Of all that the stream holds, in one pass; leaves it at its beginning."""
    import google_crc32c

    size, sha256, crc32c = 0, hashlib.sha256(), 0
    while piece := stream.read(_PIECE):
        size += len(piece)
        sha256.update(piece)
        crc32c = google_crc32c.extend(crc32c, piece)
    stream.seek(0)
    return Digest(size, sha256.hexdigest(), base64.b64encode(crc32c.to_bytes(4, "big")).decode())


def described(blob: Blob) -> Remote:
    """Raises ServiceError for a description that holds no size, checksum or generation."""
    try:
        given = (blob.metadata or {}).get(SHA256)
        sha256 = None if given is None else str(given)
        return Remote(str(blob.name), int(blob.size), str(blob.crc32c), sha256, int(blob.generation))
    except (TypeError, ValueError, AttributeError):
        raise ServiceError("Google Cloud Storage described an object in a way that we can't read.") from None
