from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from moments_core.errors import BudgetError, CancelledError, MediaError, ServiceError, TransientError
from moments_core.retrying import MOST_TRIES, next_try


def test_what_may_go_well_is_tried_again_with_pauses_that_grow_until_its_tries_are_used_up() -> None:
    pauses = [next_try(TransientError("Away."), failed=failed) for failed in range(1, MOST_TRIES + 1)]
    assert pauses == [*(timedelta(seconds=seconds) for seconds in (10, 30, 90, 270)), None]


def test_the_other_side_may_ask_for_a_longer_pause_and_not_for_a_shorter_one() -> None:
    assert next_try(ServiceError("Busy.", not_before_s=120), failed=1) == timedelta(seconds=120)
    assert next_try(ServiceError("Busy.", not_before_s=1), failed=2) == timedelta(seconds=30)


@pytest.mark.parametrize(
    "error", [MediaError("Broken."), CancelledError("Stopped."), KeyboardInterrupt(), KeyError("x")]
)
def test_what_will_end_the_same_way_is_not_tried_again(error: BaseException) -> None:
    assert next_try(error, failed=1) is None


def test_a_budget_is_waited_for_until_it_is_filled_again_however_often_that_was() -> None:
    midnight = datetime(2030, 1, 2, tzinfo=UTC)
    over = BudgetError("Over.", not_before=midnight.isoformat())
    assert next_try(over, failed=99) == midnight
    assert next_try(BudgetError("Over."), failed=1) is None


def test_a_broken_connection_that_nobody_foresaw_is_tried_again() -> None:
    assert next_try(ConnectionResetError(), failed=1) == timedelta(seconds=10)
