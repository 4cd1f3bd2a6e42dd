from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from moments_core.errors import PermanentError, ResourceError, SettingsError
from moments_resources.store.file import FileStore


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"one")
    return path


def test_what_a_crash_left_behind_is_no_object(store: FileStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    (store.root / ".incoming" / "0123").write_bytes(b"half")
    (store.root / "a" / ".nfs0001").write_bytes(b"x")
    (store.root / "a" / "my notes.txt").write_bytes(b"x")
    assert list(store.keys()) == ["a/b"]


def test_nothing_is_left_of_a_file_that_could_not_be_stored(store: FileStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    file.write_bytes(b"two")
    with pytest.raises(PermanentError):
        store.copy_in(file, "a/b")
    with pytest.raises(FileNotFoundError):
        store.copy_in(file.with_name("gone"), "a/c")
    assert list((store.root / ".incoming").iterdir()) == []
    assert list(store.keys()) == ["a/b"]


def test_a_store_that_can_not_be_read_is_not_an_empty_one(file: Path) -> None:
    with pytest.raises(SettingsError):
        list(FileStore(file).keys())


def test_deleting_takes_the_empty_folders_along_and_no_others(store: FileStore, file: Path) -> None:
    for key in ("videos/a/clips/1/x", "videos/a/y"):
        store.copy_in(file, key)
    assert store.delete("videos/a/clips/1/x")
    assert not store.delete("videos/a/clips/1/x")
    assert not (store.root / "videos/a/clips").exists()
    assert store.delete("videos/a/y")
    assert store.root.exists()
    assert not (store.root / "videos").exists()


def test_storing_beside_a_delete_that_prunes_goes_well(store: FileStore, file: Path) -> None:
    stop = threading.Event()

    def prune() -> None:
        while not stop.is_set():
            store._prune(store.root / "a" / "b")

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        for _ in range(100):
            store.copy_in(file, "a/b/c")
            store.delete("a/b/c")
    finally:
        stop.set()
        thread.join()


def test_an_address_can_be_opened_whatever_the_folder_is_called(tmp_path: Path, file: Path) -> None:
    store = FileStore(tmp_path / "my store, 100% é#?")
    store.copy_in(file, "a/b")
    uri = store.uri("a/b")
    assert (uri[:8], " " in uri) == ("file:///", False)
    assert Path(unquote(urlsplit(uri).path)).read_bytes() == b"one"


def test_a_check_leaves_nothing_behind(store: FileStore) -> None:
    assert "can be written" in store.check()
    assert list((store.root / ".incoming").iterdir()) == []


def test_a_root_that_can_not_be_a_folder_is_a_wrong_setting(file: Path) -> None:
    store = FileStore(file / "store")
    with pytest.raises(SettingsError, match="MOMENTS_STORE_URL"):
        store.check()
    with pytest.raises(SettingsError, match="MOMENTS_STORE_URL"):
        store.copy_in(file, "a/b")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold for root")
def test_a_root_without_permission_is_a_wrong_setting(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SettingsError, match="MOMENTS_STORE_URL"):
            FileStore(tmp_path / "store").check()
    finally:
        tmp_path.chmod(0o700)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; writable until a test makes it otherwise."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can't be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_shortage_and_leaves_nothing_half(small_disk: Path, file: Path) -> None:
    store = FileStore(small_disk / "store")
    store.copy_in(file, "a/small")
    file.write_bytes(b"x" * 100_000)
    for bring in (store.copy_in, store.adopt):
        with pytest.raises(ResourceError, match="disk of the object store is full"):
            bring(file, "a/large")
    assert list(store.keys()) == ["a/small"]
    assert list((store.root / ".incoming").iterdir()) == []


def test_a_file_from_another_disk_is_copied(small_disk: Path, file: Path) -> None:
    store = FileStore(small_disk / "store")
    store.adopt(file, "a/b")
    assert store.local("a/b").stat().st_dev != file.stat().st_dev
    assert store.local("a/b").read_bytes() == b"one"


def test_a_disk_that_is_read_only_is_a_wrong_setting(small_disk: Path, file: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(SettingsError, match=os.strerror(errno.EROFS)):
        FileStore(small_disk / "store").copy_in(file, "a/b")
