"""`moments health`: how the installation is, from outside of its daemon; and a test of the alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from moments.printing import print_json, print_rows, print_text
from moments.services import alert_webhook, health_probe, prepare_dagster
from moments.settings import Settings
from moments_core.alerting import Alert
from moments_core.errors import SettingsError
from moments_core.health import Beats, Health, HealthLimits, Problem, duration, problems

if TYPE_CHECKING:
    from dagster import DagsterInstance


def examine(settings: Settings) -> tuple[Health, list[Problem]]:
    """What is found now, and what of it is not well. Starts nothing."""
    with ExitStack() as stack:

        def open_instance() -> DagsterInstance:
            from dagster import DagsterInstance

            prepare_dagster(settings)
            return stack.enter_context(DagsterInstance.get())

        health = health_probe(settings).look(open_instance)
    return health, problems(health, HealthLimits())


def send_test(settings: Settings) -> str:
    """What the webhook answered. Raises SettingsError where there is none, NetworkError where it does not take it."""
    webhook = alert_webhook(settings)
    if webhook is None:
        raise SettingsError("No alerts are sent: set MOMENTS_ALERT_WEBHOOK to the address that is to be told.")
    return webhook.send(Alert("test"))


def print_health(health: Health, found: Sequence[Problem], *, as_json: bool) -> None:
    if as_json:
        print_json({"healthy": not found, "problems": [asdict(problem) for problem in found], **asdict(health)})
        return
    print_rows(("what", "found"), _rows(health))
    for problem in found:
        print_text(f"NOT WELL: {problem.sentence}")
    if not found:
        print_text("All is well.")


def _rows(health: Health) -> Iterator[tuple[str, str]]:
    yield "database", health.fault or "answers"
    if health.daemon:
        ages = {part.lower(): age for part, age in health.daemon.heartbeat_ages_s.items()}
        heard = ", ".join(f"{part} {'never' if age is None else duration(age) + ' ago'}" for part, age in ages.items())
        yield "daemon", f"{'at work' if health.daemon.is_at_work else 'none'}; heard: {heard}"
    yield from _work(health)
    for name, pool in (health.pools or {}).items():
        left = f", {pool.left_behind} of them by runs that are over" if pool.left_behind else ""
        yield f"pool {name}", f"{pool.held} of {pool.places} slots held{left}; {pool.waiting} wait"
    yield from _failures(health)
    yield "disk", f"{health.disk_free_bytes / 1e9:.1f} GB free for MOMENTS_HOME"


def _work(health: Health) -> Iterator[tuple[str, str]]:
    if health.queue:
        queue = health.queue
        oldest = "" if queue.oldest_waiting_s is None else f", the oldest for {duration(queue.oldest_waiting_s)}"
        yield "submissions", f"{queue.waiting} wait, {queue.due_again} are due again{oldest}; {queue.again_later} later"
        yield "runs", f"{queue.runs_queued} queued, {queue.runs_at_work} at work"
    for name, beats in (("leases", health.leases), ("workers", health.workers)):
        if beats:
            yield name, f"{beats.live} live, {_over(beats)}"


def _over(beats: Beats) -> str:
    return f"{beats.over} over, for {duration(beats.longest_over_s)}" if beats.over else "none over"


def _failures(health: Health) -> Iterator[tuple[str, str]]:
    if health.failures is None:
        return
    failures = health.failures
    by_class, by_asset = _counts(failures.by_class), _counts(failures.by_asset)
    yield "failures in 24 h", f"{by_class} ({by_asset})" if by_class else "none"
    for name, cause in failures.newest_causes.items():
        yield f"newest {name}", cause
    yield "for good in 24 h", f"{failures.for_good} submissions, {failures.given_up_lately} given up in the last hour"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
