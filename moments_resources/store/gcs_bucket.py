"""Moving bytes to and from a bucket of Google Cloud Storage, on dagster-gcp's client."""

from __future__ import annotations

import io
import mimetypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from moments_core.errors import PermanentError, ServiceError
from moments_resources.store.gcs_content import SHA256, Digest, Remote, described
from moments_resources.store.gcs_errors import gcs_faults_named

if TYPE_CHECKING:
    import requests
    from google.cloud.storage import Blob, Client

_UPLOAD_LOST = "Google Cloud Storage lost an upload half way: run this again."


@dataclass(frozen=True, slots=True)
class Transfer:
    """How bytes move. Sizes in bytes, times in seconds.

    An upload is sent in chunks, so that a broken connection costs one of them; the protocol wants multiples of
    256 KiB. A download larger than a part is fetched in `parallel` ranges at once; each takes `part_bytes` of memory.
    A request is repeated for `patience_s` at most.
    """

    chunk_bytes: int = 32 * 2**20
    part_bytes: int = 8 * 2**20
    parallel: int = 8
    patience_s: float = 120
    connect_s: float = 10
    read_s: float = 30


class Bucket:
    """Objects by their full names. Every method raises what `gcs_faults_named` says."""

    def __init__(self, name: str, transfer: Transfer) -> None:
        self.name = name
        self._transfer = transfer

    def find(self, name: str) -> Remote | None:
        """What is stored under a name, or None. Raises SettingsError where there is no bucket at all."""
        from google.api_core.exceptions import NotFound

        with gcs_faults_named(self.name):
            blob = self.blob(name)
            try:
                blob.reload(timeout=self._timeout, retry=self._retry())
            except NotFound:
                self._require()
                return None
            return described(blob)

    def upload(self, stream: BinaryIO, name: str, content: Digest) -> None:
        """Store what the stream holds. Does nothing where it is there; PermanentError where something else is.

        Nothing is visible under the name before all of it has arrived and has the right checksum.
        """
        from google.api_core.exceptions import NotFound
        from google.auth.exceptions import GoogleAuthError

        blob = self._new(name, content)
        blob.chunk_size = self._transfer.chunk_bytes
        with gcs_faults_named(self.name), self._unless_there(name, content):
            try:
                blob.upload_from_file(
                    stream, size=content.bytes, content_type=blob.content_type, checksum=None, **self._only_new()
                )
            except NotFound:
                self._require()
                raise ServiceError(_UPLOAD_LOST) from None
            except GoogleAuthError:  # some of which are ValueErrors
                raise
            except ValueError:
                # The server may keep a part of a chunk; the library then finds its stream at the wrong place.
                raise ServiceError(_UPLOAD_LOST) from None
            self._verify(blob, content)

    def copy(self, source: Remote, name: str, content: Digest) -> None:
        """Store under a second name what the bucket holds already: no byte of it moves over our wire."""
        blob = self._new(name, content)
        original = self._bucket.blob(source.name, generation=source.generation)
        with gcs_faults_named(self.name), self._unless_there(name, content):
            token, _, _ = blob.rewrite(original, **self._only_new())
            while token is not None:
                token, _, _ = blob.rewrite(original, token=token, **self._only_new())
            self._verify(blob, content)

    def download(self, remote: Remote, target: Path) -> None:
        """Fetch an object into a file. The content is not verified."""
        with gcs_faults_named(self.name):
            if remote.bytes <= self._transfer.part_bytes:
                with target.open("wb") as file:
                    self._fetch(remote, file, retry=self._retry())
            else:
                self._download_parts(remote, target)

    def read(self, remote: Remote) -> bytes:
        """A small object's content; not verified."""
        held = io.BytesIO()
        with gcs_faults_named(self.name):
            self._fetch(remote, held, retry=self._retry())
        return held.getvalue()

    def delete(self, name: str) -> bool:
        """Remove an object; says whether there was one."""
        from google.api_core.exceptions import NotFound

        with gcs_faults_named(self.name):
            try:
                self.blob(name).delete(timeout=self._timeout, retry=self._retry())
            except NotFound:
                self._require()
                return False
            return True

    def names(self, prefix: str, most: int | None = None) -> Iterator[str]:
        """Names that start with `prefix`, in order."""
        with gcs_faults_named(self.name):
            found = self._client.list_blobs(
                self.name,
                prefix=prefix,
                max_results=most,
                fields="items(name),nextPageToken",
                timeout=self._timeout,
                retry=self._retry(),
            )
            for blob in found:
                yield str(blob.name)

    def blob(self, name: str) -> Blob:
        with gcs_faults_named(self.name):
            return self._bucket.blob(name)

    def _require(self) -> None:
        """Raises SettingsError where there is no bucket: a missing object and a missing bucket are both a 404.

        By listing, for which the role of objects is enough; to look at the bucket itself takes another.
        """
        next(self.names("", most=1), None)

    def _new(self, name: str, content: Digest) -> Blob:
        blob = self.blob(name)
        blob.metadata = {SHA256: content.sha256}
        blob.crc32c = content.crc32c  # the server refuses whatever else arrives
        blob.content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return blob

    def _only_new(self) -> dict[str, Any]:
        """With `if_generation_match=0` nothing is overwritten, which also makes it safe to send it again."""
        from google.cloud.storage.retry import ConditionalRetryPolicy, is_generation_specified

        # Without a policy of ours upload_from_file would repeat anything, for its own time.
        retry = ConditionalRetryPolicy(self._retry(), is_generation_specified, ["query_params"])
        return {"if_generation_match": 0, "timeout": self._timeout, "retry": retry}

    @contextmanager
    def _unless_there(self, name: str, content: Digest) -> Iterator[None]:
        """A write that finds its name taken: fine by the same content, PermanentError by any other."""
        from google.api_core.exceptions import PreconditionFailed

        try:
            yield
        except PreconditionFailed:
            there = self.find(name)
            if there is None:
                raise ServiceError("An object was removed while it was written: run this again.", key=name) from None
            if not there.holds(content):
                raise PermanentError("The store has this key with other content.", key=name) from None

    def _verify(self, blob: Blob, content: Digest) -> None:
        """What the server says that it has is what we sent; else it goes."""
        stored = described(blob)
        if not stored.holds(content):
            blob.delete(if_generation_match=stored.generation, timeout=self._timeout, retry=self._retry())
            raise ServiceError("An object arrived damaged in Google Cloud Storage and was removed: run this again.")

    def _download_parts(self, remote: Remote, target: Path) -> None:
        """In parallel ranges.

        The library's download_chunks_concurrently ends only when its last range has, also after the first has failed
        or somebody asked for the end: minutes, for a large video.
        """
        stop = threading.Event()
        retry = self._retry(stop.is_set)
        with target.open("wb") as file:
            file.truncate(remote.bytes)
        size = self._transfer.part_bytes
        pool = ThreadPoolExecutor(self._transfer.parallel, thread_name_prefix="gcs")
        try:
            parts = [
                pool.submit(self._download_part, remote, target, start, retry) for start in range(0, remote.bytes, size)
            ]
            for part in as_completed(parts):
                part.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _download_part(self, remote: Remote, target: Path, start: int, retry: Any) -> None:
        end = min(start + self._transfer.part_bytes, remote.bytes) - 1
        with target.open("r+b") as file:
            file.seek(start)
            self._fetch(remote, file, start=start, end=end, single_shot_download=True, retry=retry)

    def _fetch(self, remote: Remote, file: BinaryIO, **more: Any) -> None:
        from google.api_core.exceptions import NotFound

        # A blob for each: a download changes what its blob says of the object.
        blob = self._bucket.blob(remote.name, generation=remote.generation)
        try:
            blob.download_to_file(file, checksum=None, timeout=self._timeout, **more)
        except NotFound:
            self._require()
            raise ServiceError("An object was removed from the store while it was read.", key=remote.name) from None

    def _retry(self, is_over: Callable[[], bool] = lambda: False) -> Any:
        """The library's choice of what to repeat, for our time."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        again = DEFAULT_RETRY._predicate  # noqa: SLF001 - there is no other name for the default choice
        retry = DEFAULT_RETRY.with_delay(initial=0.25, maximum=16, multiplier=2)
        return retry.with_timeout(self._transfer.patience_s).with_predicate(
            lambda error: not is_over() and again(error)
        )

    @property
    def _timeout(self) -> tuple[float, float]:
        return self._transfer.connect_s, self._transfer.read_s

    @cached_property
    def _client(self) -> Client:
        # Else the client asks in a thread of its own what the bucket is, for traces that nobody collects, and needs a
        # role for it that ours is not.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        from dagster_gcp import GCSResource  # 2 s: at the first use, never before

        client = GCSResource(project=None).get_client()
        client._http.hooks["response"].append(_read_refusal)  # noqa: SLF001 - the way to its session
        return client

    @cached_property
    def _bucket(self) -> Any:
        return self._client.bucket(self.name)


def _read_refusal(response: requests.Response, *_: Any, **__: Any) -> None:
    """Give back the connection of a request that was refused.

    A download is asked for as a stream, and the library drops the answer to a try that failed with its body unread:
    the socket would stay open until the garbage collector comes by.
    """
    if not response.ok:
        response.content  # noqa: B018 - reads it to its end
