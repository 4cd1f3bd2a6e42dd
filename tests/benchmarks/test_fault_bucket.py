"""What GcsStore leaves in its bucket and cache when all is well is no leftover; what a broken one leaves is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.faults.bucket import stray_files, stray_objects
from moments_resources.store.cache import LocalCache
from moments_resources.store.gcs import GcsPlace, GcsStore
from tests.stand_ins.gcs_server import GcsServer

PREFIX = "lakehouse/"
CONTENT = b"a clip"
CLIP = "videos/web-1/clips/1/clip.mp4"
UPLOAD = f"uploads/{hashlib.sha256(CONTENT).hexdigest()}/clip.mp4"


@dataclass
class Shelf:
    """A store in a bucket, with a clip and an upload in it."""

    gcs: GcsServer
    store: GcsStore
    cache: Path

    def names(self) -> list[str]:
        return list(self.gcs.objects("media"))

    def stray_files(self, *, without: str = "") -> list[tuple[str, int]]:
        address = "gs://media/"
        read: Callable[[str], bytes | None] = lambda uri: self.gcs.content("media", uri.removeprefix(address))  # noqa: E731
        return stray_files(self.cache, [address + name for name in self.names() if name != PREFIX + without], read)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    with GcsServer() as gcs:
        gcs.create_bucket("media")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(gcs.key_file(tmp_path)))
        store = GcsStore(GcsPlace.parse("gs://media/lakehouse"), LocalCache(tmp_path / "cache", 10**6))
        (tmp_path / "clip.mp4").write_bytes(CONTENT)
        for key in (CLIP, UPLOAD):
            store.copy_in(tmp_path / "clip.mp4", key)
        yield Shelf(gcs, store, tmp_path / "cache")


def test_what_is_stored_as_it_should_be_is_no_leftover(shelf: Shelf) -> None:
    shelf.store.check()  # which writes a temporary object and removes it
    assert shelf.names() == [PREFIX + UPLOAD, PREFIX + CLIP]
    assert stray_objects(shelf.names(), PREFIX) == []
    assert shelf.stray_files() == []
    assert len(list((shelf.cache / "objects").glob("*/*"))) == 2


@pytest.mark.parametrize(
    "name", ["lakehouse/.checks/1f", "lakehouse/temporary/clip.mp4", "lakehouse/uploads/clip.mp4", "elsewhere/clip.mp4"]
)
def test_an_object_that_retention_never_removes_is_found(name: str) -> None:
    assert stray_objects([PREFIX + CLIP, PREFIX + UPLOAD, name], PREFIX) == [(name, 0)]


def test_a_cached_file_that_is_half_is_found(shelf: Shelf) -> None:
    path = shelf.store.local(CLIP)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:3])
    assert shelf.stray_files() == [(str(path), 3)]


def test_a_cached_file_of_no_object_is_found(shelf: Shelf) -> None:
    path = shelf.store.local(CLIP)
    assert shelf.stray_files(without=CLIP) == [(str(path), len(CONTENT))]
    shelf.store.delete(CLIP)
    assert shelf.stray_files() == []
