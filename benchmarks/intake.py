"""What the way in costs: 10,000 addresses put in at once, and a tick of the sensors beside much that is over.

The sensors are evaluated as Dagster's code server does it, on a real instance in PostgreSQL. Registered means: named,
its partition made, marked. Between two ticks there is the pause that the daemon makes. What is over (submissions with
their attempts, artifacts, partitions and runs of Dagster) is written by SQL, 100 videos of it and 50,000; what is in
hand is the same beside both: 20 submissions at work, 20 that wait for another try, and 20 new ones each tick.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.finished_videos import finish_videos
from benchmarks.fresh_lakehouse import fresh_lakehouse
from benchmarks.report import Figure, report

if TYPE_CHECKING:
    import dagster as dg

    from moments.services import Lakehouse

MANY = 10_000
FEW_FINISHED, MANY_FINISHED = 100, 50_000
IN_HAND = 20
ROUNDS = 9
GOAL = {"registered_10k_s": "<= 60", "tick_ratio_50k_vs_100": "0.75..1.25"}

#: Spellings of addresses, a quarter each of what people put in; `{n}` is replaced.
_SPELLINGS = (
    "https://www.youtube.com/watch?v={id}&t=3",
    "https://youtu.be/{id}?si=abc",
    "https://vimeo.com/{n}",
    "https://cdn.example.org/talks/{n}/talk.mp4?b=2&a=1",
)


@dataclass(frozen=True)
class Bench:
    """The lakehouse, Dagster's instance, and the code location that the daemon would load."""

    lakehouse: Lakehouse
    instance: dg.DagsterInstance
    location: dg.RepositoryDefinition

    def tick(self, sensor: str) -> float:
        """Seconds that one evaluation of a sensor takes, its run requests resolved as the code server does it."""
        import dagster as dg

        definition = self.location.get_sensor_def(sensor)
        every = self.location.get_top_level_resources()
        needed = {name: every[name] for name in definition.required_resource_keys}
        started = time.monotonic()
        with dg.build_sensor_context(
            instance_ref=self.instance.get_ref(),
            repository_def=self.location,
            sensor_name=sensor,
            resources=needed,
        ) as context:
            definition.evaluate_tick(context)
        return time.monotonic() - started

    def execute(self, statement: str, **parameters: object) -> None:
        from sqlalchemy import text

        with self.lakehouse.database.begin() as connection:
            connection.execute(text(statement), parameters)

    def count(self, where: str) -> int:
        from sqlalchemy import text

        with self.lakehouse.database.begin() as connection:
            return int(connection.scalar(text(f"select count(*) from url_intake where {where}")) or 0)  # noqa: S608


@contextmanager
def _bench() -> Iterator[Bench]:
    import dagster as dg

    from moments.definitions import definitions

    with fresh_lakehouse() as lakehouse, dg.DagsterInstance.get() as instance:
        yield Bench(lakehouse, instance, definitions().get_repository_def())


def addresses(count: int) -> list[str]:
    """Different videos, in the spellings that people use."""
    return [_SPELLINGS[n % len(_SPELLINGS)].format(n=n + 1, id=f"v{n:010d}") for n in range(count)]


def measure() -> dict[str, Figure]:
    """Seconds; the ratio is that of the medians."""
    with _bench() as bench:
        registered = registered_s(bench, MANY)
        waiting = _ticks(bench)
    with _bench() as bench:
        few, many = _beside_finished(bench)
        return {
            "registered_10k_s": registered,
            "tick_10k_waiting_s": waiting,
            "tick_100_s": few,
            "tick_50k_s": many,
            "tick_ratio_50k_vs_100": many / few,
            "reap_50k_s": _reaping_s(bench),
            **_equal_ones(bench),
        }


def registered_s(bench: Bench, count: int) -> float:
    """Seconds from one INSERT of `count` addresses until all are registered."""
    bench.tick("intake")  # the code server has loaded everything long before
    bench.execute("insert into url_intake (url) select unnest(cast(:urls as text[]))", urls=addresses(count))
    started = time.monotonic()
    while True:
        took = bench.tick("intake")
        if not bench.count("registered_at is null"):
            return time.monotonic() - started
        time.sleep(max(0.0, 5.0 - took))


def _beside_finished(bench: Bench) -> tuple[float, float]:
    """Medians of a tick beside few and beside many videos that are over."""
    _put_in_hand(bench)
    medians = []
    for count in (FEW_FINISHED, MANY_FINISHED):
        finish_videos(bench.lakehouse, bench.instance, count)
        medians.append(_ticks(bench, before_each=lambda: _put_new(bench)))
    return medians[0], medians[1]


def _ticks(bench: Bench, before_each: Callable[[], object] = lambda: None) -> float:
    """Median of what both sensors take."""
    seconds = []
    for _ in range(ROUNDS):
        before_each()
        seconds.append(bench.tick("intake") + bench.tick("reconcile"))
    return statistics.median(seconds[1:])  # the first one connects


def _put_in_hand(bench: Bench) -> None:
    """Submissions at work, with their runs, and such that wait for another try."""
    from moments_core.errors import TransientError

    urls = [f"https://example.org/in-hand-{n}.mp4" for n in range(2 * IN_HAND)]
    bench.execute("insert into url_intake (url) select unnest(cast(:urls as text[]))", urls=urls)
    bench.tick("intake")
    history = bench.lakehouse.history
    for number, (intake_id, video_id) in enumerate(_named(bench)):
        run_id = f"in-hand-{number}"
        attempt = history.open_attempt(video_id, "raw_video", run_id=run_id, intake_id=intake_id)
        if number < IN_HAND:
            _add_run(bench, run_id, intake_id)
        else:
            history.close_failed(attempt, TransientError("Away."), will_retry=False)
    bench.execute("update pipeline_history set try_again_at = now() + interval '1 day' where try_again_at is not null")


def _named(bench: Bench) -> Sequence[tuple[int, str]]:
    from sqlalchemy import text

    with bench.lakehouse.database.begin() as connection:
        return [tuple(row) for row in connection.execute(text("select intake_id, video_id from url_intake order by 1"))]


def _add_run(bench: Bench, run_id: str, intake_id: int) -> None:
    import dagster as dg

    from moments_assets.jobs import process_video
    from moments_assets.partitions import INTAKE_TAG

    status = dg.DagsterRunStatus.STARTED
    bench.instance.add_run(dg.DagsterRun(process_video.name, run_id, status=status, tags={INTAKE_TAG: str(intake_id)}))


def _put_new(bench: Bench) -> None:
    """New submissions in place of those of the last round."""
    bench.execute("delete from url_intake where name = 'new'")
    urls = [f"https://example.org/new-{time.monotonic_ns()}-{n}.mp4" for n in range(IN_HAND)]
    bench.execute("insert into url_intake (url, name) select unnest(cast(:urls as text[])), 'new'", urls=urls)


def _reaping_s(bench: Bench) -> float:
    from moments_resources.workers import Workers
    from moments_sensors.reaper import Reaper

    reaper = Reaper(bench.lakehouse.history, Workers(bench.lakehouse.database))
    return statistics.median(_seconds(lambda: reaper.reap(bench.instance)) for _ in range(5))


def _equal_ones(bench: Bench) -> dict[str, Figure]:
    """1,000 submissions of one video: a tick, and the state of one of them."""
    bench.execute("delete from url_intake where name = 'new'")
    bench.execute(
        "insert into url_intake (url) select 'https://example.org/equal.mp4#' || n from generate_series(1, 1000) n"
    )
    bench.tick("intake")
    state = "select * from intake_state where intake_id = (select max(intake_id) from url_intake)"
    return {
        "tick_1000_equal_s": _ticks(bench),
        "state_of_1000_equal_s": statistics.median(_seconds(lambda: bench.execute(state)) for _ in range(5)),
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then no server is left behind
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report("intake", measure(), GOAL, as_json=parser.parse_args().json)


if __name__ == "__main__":
    main()
