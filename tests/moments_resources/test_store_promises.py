"""What every object store promises, whichever holds the objects."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from moments_core.errors import PermanentError, ServiceError
from moments_resources.store.interface import ObjectStore, StoredFile, checked_key

BAD_KEYS = [
    "", "/", "/etc/passwd", "../x", "a/../b", "a/..", "..", ".", "./a", "a//b", "a/", ".hidden", "a/.hidden",
    ".incoming/x", "a\0b", "a\nb", "a b", "a\\b", "é", "a/b\n", "x" * 513,
]  # fmt: skip


@pytest.fixture
def store(any_store: ObjectStore) -> ObjectStore:
    return any_store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"one")
    return path


@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_key_that_could_leave_the_store_or_is_not_portable_is_refused(
    store: ObjectStore, file: Path, key: str
) -> None:
    with pytest.raises(PermanentError, match="object key"):
        checked_key(key)
    for use in (store.local, store.uri, store.signed_url, store.delete):
        with pytest.raises(PermanentError):
            use(key)
    for bring in (store.copy_in, store.adopt):
        with pytest.raises(PermanentError):
            bring(file, key)


def test_an_object_is_what_was_stored(store: ObjectStore, file: Path) -> None:
    stored = store.copy_in(file, "a/b.bin")
    assert (stored.bytes, stored.sha256) == (3, hashlib.sha256(b"one").hexdigest())
    assert store.local("a/b.bin", stored.sha256).read_bytes() == b"one"
    assert list(store.keys()) == ["a/b.bin"]


def test_an_object_is_never_overwritten(store: ObjectStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    file.write_bytes(b"two")
    for bring in (store.copy_in, store.adopt):
        with pytest.raises(PermanentError, match="other content"):
            bring(file, "a/b")
    assert store.local("a/b").read_bytes() == b"one"
    assert store.local("a/b").stat().st_mode & 0o777 == 0o444


def test_storing_the_same_again_does_nothing(store: ObjectStore, file: Path) -> None:
    first = store.copy_in(file, "a/b")
    inode = store.local("a/b").stat().st_ino
    assert store.copy_in(file, "a/b") == store.adopt(file, "a/b") == first
    assert store.local("a/b").stat().st_ino == inode


def test_what_a_user_does_to_his_file_later_does_not_touch_the_object(store: ObjectStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    with file.open("r+b") as handle:
        handle.write(b"TWO")
    assert store.local("a/b").read_bytes() == b"one"
    assert file.stat().st_mode & 0o200


def test_a_file_of_our_own_shares_its_bytes(store: ObjectStore, file: Path) -> None:
    store.adopt(file, "a/b")
    assert store.local("a/b").samefile(file)


def test_a_link_is_stored_as_what_it_leads_to(store: ObjectStore, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    for key, bring in (("a/b", store.adopt), ("a/c", store.copy_in)):
        bring(link, key)
        assert not store.local(key).is_symlink()
    link.unlink()
    assert store.local("a/b").read_bytes() == b"one"


def test_keys_are_found_by_their_beginning(store: ObjectStore, file: Path) -> None:
    for key in ("videos/b/x", "videos/a/y", "videos/a/x", "videos/ab/z", "uploads/a"):
        store.copy_in(file, key)
    assert list(store.keys("videos/a/")) == ["videos/a/x", "videos/a/y"]
    assert sorted(store.keys("videos/a")) == ["videos/a/x", "videos/a/y", "videos/ab/z"]
    assert sorted(store.keys()) == ["uploads/a", "videos/a/x", "videos/a/y", "videos/ab/z", "videos/b/x"]
    assert list(store.keys("videos/c/")) == []


def test_a_store_that_nobody_has_written_to_has_no_keys(store: ObjectStore) -> None:
    assert list(store.keys()) == []


def test_a_prefix_does_not_lead_out_of_the_store(store: ObjectStore) -> None:
    with pytest.raises(PermanentError):
        list(store.keys("../"))


def test_an_object_that_is_gone_is_a_fault_of_the_service(store: ObjectStore) -> None:
    with pytest.raises(ServiceError, match="missing from the store"):
        os.fspath(StoredFile(store, "a/b", ""))


def test_deleting_says_whether_there_was_something(store: ObjectStore, file: Path) -> None:
    for key in ("videos/a/clips/1/x", "videos/a/y"):
        store.copy_in(file, key)
    assert store.delete("videos/a/clips/1/x")
    assert not store.delete("videos/a/clips/1/x")
    assert list(store.keys()) == ["videos/a/y"]
    with pytest.raises(ServiceError):
        store.local("videos/a/clips/1/x")


def test_a_key_that_was_deleted_can_be_stored_again(store: ObjectStore, file: Path) -> None:
    store.copy_in(file, "a/b")
    store.delete("a/b")
    file.write_bytes(b"two")
    store.copy_in(file, "a/b")
    assert store.local("a/b").read_bytes() == b"two"


def test_a_file_that_is_not_there_can_not_be_stored(store: ObjectStore, file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.copy_in(file.with_name("gone"), "a/c")
    assert list(store.keys()) == []


def test_an_empty_file_is_an_object_too(store: ObjectStore, file: Path) -> None:
    file.write_bytes(b"")
    stored = store.copy_in(file, "a/empty")
    assert stored.bytes == 0
    assert store.local("a/empty", stored.sha256).read_bytes() == b""


def test_a_check_says_how_the_store_is_and_leaves_nothing(store: ObjectStore) -> None:
    assert "can be written" in store.check()
    assert list(store.keys()) == []
