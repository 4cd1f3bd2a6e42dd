from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from moments_core.options import Options


def test_nothing_is_asked_for_unless_it_is_said() -> None:
    assert Options().model_dump(exclude_none=True) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": ""},
        {"query": "x" * 501},
        {"query": "a\0b"},
        {"query": "\udcff"},
        {"generation_model": ""},
        {"refinement_model": "\0"},
        {"max_moments": 0},
        {"max_moments": 1001},
        {"max_moments": 1.5},
        {"min_seconds": 0},
        {"min_seconds": -1},
        {"min_seconds": float("nan")},
        {"max_seconds": float("inf")},
        {"max_seconds": 36_001},
        {"min_seconds": 30, "max_seconds": 20},
        {"captions": "perhaps"},
        {"max_moment": 3},
        {"exec": "rm"},
    ],
)
def test_an_option_that_is_unknown_or_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options(**wrong)


@pytest.mark.parametrize("hostile", [[], None, "force", 1, [{"force": True}]])
def test_options_that_are_no_object_are_refused(hostile: object) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(hostile)


def test_equal_bounds_ask_for_one_length() -> None:
    assert Options(min_seconds=30, max_seconds=30).max_seconds == 30


def test_a_longest_without_a_shortest_may_be_short() -> None:
    assert Options(max_seconds=5).max_seconds == 5
