"""What may be removed after a while: whose an object is, and what is much at once."""

from __future__ import annotations

import pytest

from moments_core.retention import FEW, MANY, Owner, is_bulk, owner_of

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("videos/web-1/clips/0123/a.mp4", Owner("web-1")),
        ("videos/youtube--_x/moments", Owner("youtube--_x")),
        (f"uploads/{SHA}/talk.mp4", Owner("file-abababababababab", SHA)),
    ],
)
def test_a_key_says_whose_its_object_is(key: str, owner: Owner) -> None:
    assert owner_of(key) == owner


@pytest.mark.parametrize(
    "key",
    ["", "notes.txt", "videos/web-1", "videos/", "videos/a.b/clips/x", "videos/" + "x" * 81 + "/clips/x",
     "backup/videos/a/b", "uploads/short/talk.mp4", f"uploads/{SHA}", f"uploads/{SHA}/a/b"],
)  # fmt: skip
def test_what_has_not_the_form_of_our_keys_is_nobodys(key: str) -> None:
    assert owner_of(key) is None


@pytest.mark.parametrize(
    ("versions", "objects", "bulk"),
    [(0, 0, False), (50, 50, False), (51, 0, True), (0, 51, True)],
)
def test_over_half_is_much(versions: int, objects: int, bulk: bool) -> None:
    assert is_bulk(versions=versions, of_versions=100, objects=objects, of_objects=100) is bulk


def test_of_few_even_all_are_not_much() -> None:
    assert not is_bulk(versions=FEW - 1, of_versions=FEW - 1, objects=FEW - 1, of_objects=FEW - 1)
    assert is_bulk(versions=FEW, of_versions=FEW, objects=0, of_objects=0)
    assert is_bulk(versions=0, of_versions=0, objects=FEW, of_objects=FEW)


def test_ten_thousand_objects_are_much_however_many_there_are() -> None:
    assert is_bulk(versions=0, of_versions=0, objects=MANY + 1, of_objects=10**9)
    assert not is_bulk(versions=0, of_versions=0, objects=MANY, of_objects=10**9)
    assert not is_bulk(versions=0, of_versions=0, objects=0, of_objects=0)
