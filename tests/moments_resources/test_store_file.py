from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from moments_core.errors import PermanentError, ResourceError, ServiceError, SettingsError
from moments_resources.store.file import FileStore
from moments_resources.store.interface import StoredFile, checked_key

BAD_KEYS = [
    "", "/", "/etc/passwd", "../x", "a/../b", "a/..", "..", ".", "./a", "a//b", "a/", ".hidden", "a/.hidden",
    ".incoming/x", "a\0b", "a\nb", "a b", "a\\b", "é", "a/b\n", "x" * 513,
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"one")
    return path


@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_key_that_could_leave_the_store_or_is_not_portable_is_refused(store: FileStore, file: Path, key: str) -> None:
    with pytest.raises(PermanentError, match="object key"):
        checked_key(key)
    for use in (store.local, store.uri, store.delete):
        with pytest.raises(PermanentError):
            use(key)
    for bring in (store.copy_in, store.adopt):
        with pytest.raises(PermanentError):
            bring(file, key)


def test_an_object_is_what_was_stored(store: FileStore, file: Path) -> None:
    stored = store.copy_in(file, "a/b.bin")
    assert (stored.bytes, stored.sha256) == (3, hashlib.sha256(b"one").hexdigest())
    assert store.local("a/b.bin", stored.sha256).read_bytes() == b"one"
    assert list(store.keys()) == ["a/b.bin"]


def test_an_object_is_never_overwritten(store: FileStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    file.write_bytes(b"two")
    for bring in (store.copy_in, store.adopt):
        with pytest.raises(PermanentError, match="other content"):
            bring(file, "a/b")
    assert store.local("a/b").read_bytes() == b"one"
    assert store.local("a/b").stat().st_mode & 0o777 == 0o444


def test_storing_the_same_again_does_nothing(store: FileStore, file: Path) -> None:
    first = store.copy_in(file, "a/b")
    inode = store.local("a/b").stat().st_ino
    assert store.copy_in(file, "a/b") == store.adopt(file, "a/b") == first
    assert store.local("a/b").stat().st_ino == inode


def test_what_a_user_does_to_his_file_later_does_not_touch_the_object(store: FileStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    with file.open("r+b") as handle:
        handle.write(b"TWO")
    assert store.local("a/b").read_bytes() == b"one"
    assert file.stat().st_mode & 0o200


def test_a_file_of_our_own_shares_its_bytes(store: FileStore, file: Path) -> None:
    store.adopt(file, "a/b")
    assert store.local("a/b").samefile(file)


def test_a_link_is_stored_as_what_it_leads_to(store: FileStore, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    for key, bring in (("a/b", store.adopt), ("a/c", store.copy_in)):
        bring(link, key)
        assert not store.local(key).is_symlink()
    link.unlink()
    assert store.local("a/b").read_bytes() == b"one"


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


def test_keys_are_found_by_their_beginning(store: FileStore, file: Path) -> None:
    for key in ("videos/b/x", "videos/a/y", "videos/a/x", "videos/ab/z", "uploads/a"):
        store.copy_in(file, key)
    assert list(store.keys("videos/a/")) == ["videos/a/x", "videos/a/y"]
    assert sorted(store.keys("videos/a")) == ["videos/a/x", "videos/a/y", "videos/ab/z"]
    assert sorted(store.keys()) == ["uploads/a", "videos/a/x", "videos/a/y", "videos/ab/z", "videos/b/x"]
    assert list(store.keys("videos/c/")) == []


def test_a_store_that_nobody_has_written_to_has_no_keys(store: FileStore) -> None:
    assert list(store.keys()) == []


def test_a_prefix_does_not_lead_out_of_the_store(store: FileStore) -> None:
    with pytest.raises(PermanentError):
        list(store.keys("../"))


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


def test_an_object_that_is_gone_is_a_fault_of_the_service(store: FileStore) -> None:
    with pytest.raises(ServiceError, match="missing from the store"):
        os.fspath(StoredFile(store, "a/b", ""))


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
