"""Single values of a model's reply, however large: read within bounds, or not at all."""

from __future__ import annotations

import json

import pytest

from moments_core import reply_fields
from moments_core.errors import ReplyError
from moments_core.replies import read_boundaries

HUGE = [
    *(10**400, -(10**400), 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 1_000_001, -1_000_001.5, 10**9),
    *("9" * 400, "1e308", "nan", "inf", "999999999", "-999999999 s", "999999999.5", "999:59:59"),
]


@pytest.mark.parametrize("value", HUGE, ids=lambda value: str(value)[:20])
def test_a_time_beyond_all_videos_is_none(value: object) -> None:
    assert reply_fields.time_ms(value) is None
    assert reply_fields.score(value) is None


@pytest.mark.parametrize(
    ("value", "ms"),
    [(1e6, 1_000_000_000), (-1_000_000, -1_000_000_000), ("277:46:40", 1_000_000_000), ("-2.5 s", -2_500)],
)
def test_a_time_of_the_longest_videos_is_read(value: object, ms: int) -> None:
    assert reply_fields.time_ms(value) == ms


@pytest.mark.parametrize("value", HUGE, ids=lambda value: str(value)[:20])
def test_boundaries_that_no_clip_can_have_are_refused(value: object) -> None:
    with pytest.raises(ReplyError):
        read_boundaries(json.dumps({"start_time": value, "end_time": 3}))
