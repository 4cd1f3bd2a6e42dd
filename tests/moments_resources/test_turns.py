"""At most so many at once, over the whole installation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from moments_core.errors import CancelledError
from moments_resources.database import Database
from moments_resources.pools import Pools
from moments_resources.turns import Turns, queue_key


@pytest.fixture
def turns(database: Database) -> Turns:
    return Turns(database)


@pytest.fixture
def waiting(database: Database) -> Callable[[], int]:
    """How many sessions stand in the queue: the first looks for a place, the others wait behind it."""
    query = text(
        "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted"
        " and objsubid = 2 and classid::bigint = :key"
        " and database = (select oid from pg_database where datname = current_database())"
    )

    def count() -> int:
        with database.begin() as connection:
            return int(connection.scalar(query, {"key": queue_key("model:m")}) or 0)

    return count


class Room:
    """Counts who is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = self.most = 0
        self.order: list[int] = []

    @contextmanager
    def visit(self, number: int) -> Iterator[None]:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.order.append(number)
        yield
        with self._lock:
            self.inside -= 1


@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_than_the_limit_and_no_place_stays_empty(turns: Turns, limit: int) -> None:
    room = Room()

    def work(number: int) -> None:
        with turns.turn("model:m", limit), room.visit(number):
            time.sleep(0.05)

    with ThreadPoolExecutor(9) as pool:
        list(pool.map(work, range(9)))
    assert room.most == limit
    assert sorted(room.order) == list(range(9))


def test_places_are_given_in_the_order_of_asking(
    turns: Turns, until: Callable[..., None], waiting: Callable[[], int]
) -> None:
    room, pool = Room(), ThreadPoolExecutor(5)

    def work(number: int) -> None:
        with turns.turn("model:m", 1), room.visit(number):
            pass

    futures: list[Future[None]] = []
    with pool:
        with turns.turn("model:m", 1):
            for number in range(5):
                futures.append(pool.submit(work, number))
                until(lambda number=number: waiting() == number + 1)
            time.sleep(2.5)  # longer than one wait: nobody goes to the end of the queue with the next
        for future in futures:
            future.result()
    assert room.order == list(range(5))


def test_places_of_different_names_do_not_wait_for_each_other(turns: Turns) -> None:
    with turns.turn("model:a", 1), turns.turn("model:b", 1):
        pass


def test_a_place_is_given_back_when_its_work_fails(turns: Turns) -> None:
    with pytest.raises(ValueError, match="no"), turns.turn("model:m", 1):
        raise ValueError("no")
    with turns.turn("model:m", 1):
        pass


@pytest.mark.parametrize("queued", [False, True])
def test_who_waits_can_give_up_and_leaves_the_queue(
    turns: Turns, until: Callable[..., None], waiting: Callable[[], int], queued: bool
) -> None:
    """Both in the first place of the queue, where it looks for a place, and behind it."""
    stop = threading.Event()

    def wait_while(event: threading.Event) -> None:
        def give_up() -> None:
            if event.is_set():
                raise CancelledError("stopped")

        with turns.turn("model:m", 1, while_waiting=give_up):
            pass

    first = threading.Event()
    with ThreadPoolExecutor(2) as pool, turns.turn("model:m", 1):
        before = [pool.submit(wait_while, first)] if queued else []
        until(lambda: waiting() == len(before))
        gives_up = pool.submit(wait_while, stop)
        until(lambda: waiting() == len(before) + 1)
        stop.set()
        with pytest.raises(CancelledError):
            gives_up.result(timeout=20)
        assert waiting() == len(before)
        first.set()
        for other in before:
            with pytest.raises(CancelledError):
                other.result(timeout=20)


def test_a_place_falls_with_the_process_that_held_it(turns: Turns, elsewhere: Callable[[str], Any]) -> None:
    process = elsewhere(
        "from moments_resources.turns import Turns\n"
        "with Turns(database).turn('model:m', 1):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)"
    )
    process.kill()
    with turns.turn("model:m", 1):
        pass


def test_a_pool_lets_as_many_steps_in_as_its_limit_says(turns: Turns) -> None:
    room, pools = Room(), Pools(turns, {"clips": 2})

    def work(number: int) -> None:
        with pools.turn("clips"), room.visit(number):
            time.sleep(0.05)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert room.most == 2
