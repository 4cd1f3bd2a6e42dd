"""The object store in a bucket of Google Cloud Storage, with a cache on this machine."""

from __future__ import annotations

import io
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import urlsplit

from moments_core.errors import MomentsError, ServiceError, SettingsError
from moments_resources.store.cache import Entry, LocalCache
from moments_resources.store.file import link_or_copy
from moments_resources.store.gcs_bucket import Bucket, Transfer
from moments_resources.store.gcs_content import Digest, Remote, digest_of
from moments_resources.store.gcs_signing import Signer
from moments_resources.store.interface import StoredObject, checked_key, is_key

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_LONGEST_PREFIX = 256
_CHECKS = ".checks"  # keys never start with a dot, so nothing in here is an object of ours
_WORTH_ASKING = 2**18  # bytes; a smaller object is sent in about the time of a question
# `moments doctor` waits this long for a store that nobody answers for; a try can begin just before the end.
_CHECK_PATIENCE_S, _CHECK_READ_S = 8, 5


@dataclass(frozen=True, slots=True)
class GcsPlace:
    """Where objects lie: a bucket, and a prefix that ends with a slash or is empty."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `gs://bucket/prefix`. Raises SettingsError for anything else."""
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        if parts.scheme != "gs" or not _BUCKET.fullmatch(parts.netloc):
            raise SettingsError("MOMENTS_STORE_URL must be gs://bucket/prefix with the name of a bucket.")
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise SettingsError("MOMENTS_STORE_URL must be gs://bucket/prefix without '?' and '#'.")
        if prefix and (not is_key(prefix) or len(prefix) > _LONGEST_PREFIX):
            raise SettingsError(
                "The prefix in MOMENTS_STORE_URL may hold letters, digits, '.', '_', '-' and '/' alone."
            )
        return cls(parts.netloc, f"{prefix}/" if prefix else "")

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}"


class GcsStore:
    """Objects in a bucket; each is fetched once to this machine. Contacts nothing before it is used."""

    def __init__(self, place: GcsPlace, cache: LocalCache, transfer: Transfer | None = None) -> None:
        self.place = place
        self._cache = cache
        self._transfer = transfer or Transfer()
        self._bucket = Bucket(place.bucket, self._transfer)
        self._signer = Signer()
        self._handed: dict[Path, str] = {}  # the key of each file that this process was handed

    def copy_in(self, path: Path, key: str) -> StoredObject:
        return self._store(path, key, shutil.copyfile)

    def adopt(self, path: Path, key: str) -> StoredObject:
        return self._store(path, key, link_or_copy)

    def local(self, key: str, sha256: str | None = None) -> Path:
        entry = self._entry(key)
        path = self._cache.held(entry, sha256 or None)
        if path is None:
            with self._cache.turn(entry) as part:  # another process may have fetched it while we waited
                path = self._cache.held(entry, sha256 or None) or self._fetched(entry, key, sha256, part)
        self._handed[path] = key
        return path

    def uri(self, key: str) -> str:
        return f"gs://{self.place.bucket}/{self._name(key)}"

    def signed_url(self, key: str, *, lifetime_s: int = 900) -> str | None:
        return self._signer.url(self._bucket.blob(self._name(key)), self.place.bucket, lifetime_s)

    def delete(self, key: str) -> bool:
        self._cache.drop(self._entry(key))
        return self._bucket.delete(self._name(key))

    def size(self, key: str) -> int | None:
        found = self._bucket.find(self._name(key))
        return None if found is None else found.bytes

    def leftovers(self) -> list[Path]:
        return self._cache.leftovers()

    def tidy(self) -> int:
        return self._cache.tidy()

    def keys(self, prefix: str = "") -> Iterator[str]:
        inner = prefix.rpartition("/")[0]
        if inner:
            checked_key(inner)
        for name in self._bucket.names(self.place.prefix + prefix):
            key = name.removeprefix(self.place.prefix)
            if is_key(key):
                yield key

    def check(self) -> str:
        """As the protocol says; within 20 seconds, also where nobody answers."""
        hurried = replace(
            self._transfer,
            patience_s=min(_CHECK_PATIENCE_S, self._transfer.patience_s),
            connect_s=min(_CHECK_READ_S, self._transfer.connect_s),
            read_s=min(_CHECK_READ_S, self._transfer.read_s),
        )
        bucket, name = Bucket(self.place.bucket, hurried), f"{self.place.prefix}{_CHECKS}/{uuid.uuid4().hex}"
        probe = io.BytesIO(b"moments")
        bucket.upload(probe, name, digest_of(probe))
        try:
            stored = bucket.find(name)
            read = bucket.read(stored) if stored is not None else None
        finally:
            bucket.delete(name)
        if read != probe.getvalue():
            raise ServiceError(f"{self.place} does not give back what was written to it: check what stands between.")
        return f"{self.place} can be written, read and cleaned up. {self._signing(name)}"

    def _signing(self, name: str) -> str:
        """Whether models can be given addresses of clips: no fault of the store, since they can be sent them inline."""
        said = ["Whether its addresses can be signed is not known: Google's IAM does not answer in time."]

        def try_it() -> None:
            try:
                self._signer.url(self._bucket.blob(name), self.place.bucket, lifetime_s=60)
            except MomentsError as error:
                said.append(f"Its addresses can't be signed, so no model can open a clip by one: {error}")
            else:
                said.append("Its addresses can be signed.")

        # In a thread that nobody waits for: Google's library gives a silent IAM two minutes.
        trying = threading.Thread(target=try_it, name="signing on trial", daemon=True)
        trying.start()
        trying.join(_CHECK_READ_S)
        return said[-1]

    def _store(self, path: Path, key: str, bring: Callable[[Path, Path], object]) -> StoredObject:
        entry = self._entry(key)
        with self._cache.turn(entry) as part:
            bring(path, part)
            with part.open("rb") as stream:
                content = digest_of(stream)
                if not self._is_there(key, content):
                    self._bring(stream, path, key, content)
            if self._cache.held(entry, content.sha256) is None:
                self._cache.publish(entry, part)
        return StoredObject(key, content.bytes, content.sha256)

    def _is_there(self, key: str, content: Digest) -> bool:
        """Whether a large object need not travel again: the same file is submitted twice, or a step is repeated."""
        if content.bytes < _WORTH_ASKING:
            return False
        there = self._bucket.find(self._name(key))
        return there is not None and there.holds(content)

    def _bring(self, stream: BinaryIO, path: Path, key: str, content: Digest) -> None:
        source = self._source_of(path, content)
        if source is not None:
            self._bucket.copy(source, self._name(key), content)
        else:
            self._bucket.upload(stream, self._name(key), content)

    def _source_of(self, path: Path, content: Digest) -> Remote | None:
        """The object that a file of our cache came from: it need not travel again to be stored under a second key.

        An uploaded video becomes its raw_video in this way.
        """
        key = self._handed.get(path)
        source = self._bucket.find(self._name(key)) if key is not None else None
        return source if source is not None and source.holds(content) else None

    def _fetched(self, entry: Entry, key: str, sha256: str | None, part: Path) -> Path:
        remote = self._bucket.find(self._name(key))
        if remote is None:
            raise ServiceError("An object is missing from the store: was its bucket cleaned?", key=key)
        self._cache.make_room(remote.bytes)
        for _ in range(2):  # what was damaged on the way is whole the next time
            self._bucket.download(remote, part)
            with part.open("rb") as stream:
                content = digest_of(stream)
            if remote.holds(content) and content.sha256 == (sha256 or content.sha256):
                return self._cache.publish(entry, part)
        raise ServiceError("An object of the store has not the content that it was stored with.", key=key)

    def _entry(self, key: str) -> Entry:
        return Entry(self.uri(key))

    def _name(self, key: str) -> str:
        return self.place.prefix + checked_key(key)
