"""Whether an installation is well: what was found, as plain data, and the judgement on it.

What is a video's own fault (a broken file, a page that is gone) is no problem here, however often it happens. A
problem is what stays until a person does something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Daemon:
    """The one daemon. `heartbeat_ages_s`: seconds since each of its parts was heard last, None for never."""

    is_at_work: bool
    heartbeat_ages_s: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits, in our tables and in Dagster.

    `waiting`: submissions that nobody has begun; `due_again` and `again_later`: those that failed and are tried again,
    by now and later. `oldest_waiting_s`: for how long the oldest waits with nothing in its way; `oldest_new_s`: for
    how long the oldest has no partition; `idle_s`: seconds since an attempt began, `made_s`: since one made what it was
    to make. None where there is none.
    """

    waiting: int = 0
    due_again: int = 0
    again_later: int = 0
    runs_queued: int = 0
    runs_at_work: int = 0
    oldest_waiting_s: float | None = None
    oldest_new_s: float | None = None
    idle_s: float | None = None
    made_s: float | None = None


@dataclass(frozen=True, slots=True)
class Beats:
    """What has to say that it lives (leases of attempts, processes of runs), and what did not: `longest_over_s`, s."""

    live: int = 0
    over: int = 0
    longest_over_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Dagster's slots of a pool. `left_behind`: held by runs that are over."""

    places: int
    held: int
    waiting: int
    left_behind: int


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts that failed or were cancelled in the last 24 h.

    `for_good`: submissions that failed for good in that time; `given_up_lately`: those of the last hour that failed
    for good though nothing is known to be wrong with their video, the newest for `given_up_cause`. `made_s`: seconds
    since an asset at which they failed was made, of any video, the longest of them; None where one never was.
    """

    by_class: Mapping[str, int] = field(default_factory=dict)
    by_asset: Mapping[str, int] = field(default_factory=dict)
    newest_causes: Mapping[str, str] = field(default_factory=dict)
    for_good: int = 0
    given_up_lately: int = 0
    given_up_cause: str = ""
    made_s: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What was found. `fault` says why PostgreSQL can't be asked; what it would have said is None then."""

    disk_free_bytes: int
    fault: str | None = None
    daemon: Daemon | None = None
    queue: Queue | None = None
    leases: Beats | None = None
    workers: Beats | None = None
    pools: Mapping[str, PoolUse] | None = None
    failures: Failures | None = None


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """What is still well. Each is a multiple of what a sound installation needs."""

    heartbeat_s: float = 180.0  # every 30 s; a sensor may hold its daemon up for 60 s
    waiting_s: float = 900.0  # with nothing at work, a submission begins in 10 s
    lease_over_s: float = 60.0  # the reaper ends a dead attempt before its lease runs out
    silent_s: float = 120.0  # and strikes a silent process off after 20 s
    given_up: int = 5  # an hour
    unmade_s: float = 6 * 3600.0  # the longest video is through sooner
    disk_free_bytes: int = 5_000_000_000  # two long videos


@dataclass(frozen=True, slots=True)
class Problem:
    """`kind` stays the same while the numbers in the sentence change."""

    kind: str
    sentence: str


def problems(health: Health, limits: HealthLimits) -> list[Problem]:
    """What is not well; each says what to do."""
    if health.fault is not None:
        return [Problem("database", health.fault), *_disk(health, limits)]
    return [
        *_daemon(health.daemon, limits),
        *_queue(health.queue, health.leases, limits),
        *_beats(health.leases, health.workers, limits),
        *_pools(health.pools or {}),
        *_failures(health.failures, limits),
        *_disk(health, limits),
    ]


def kinds(found: Iterable[Problem]) -> tuple[str, ...]:
    """The kinds of problems, in a fixed order."""
    return tuple(sorted({problem.kind for problem in found}))


def _daemon(daemon: Daemon | None, limits: HealthLimits) -> Iterator[Problem]:
    if daemon is None:
        return
    if not daemon.is_at_work:  # that its parts are not heard either goes without saying
        yield Problem("daemon", "No daemon is at work: start it with `moments daemon` (or `moments dev`).")
        return
    for part, age in daemon.heartbeat_ages_s.items():
        if age is None or age > limits.heartbeat_s:
            since = "has not been heard yet" if age is None else f"has not been heard for {duration(age)}"
            yield Problem("heartbeat", f"The daemon's part {part} {since}: look at its log, then start it again.")


def _queue(queue: Queue | None, leases: Beats | None, limits: HealthLimits) -> Iterator[Problem]:
    if queue is None:
        return
    if _over(queue.oldest_new_s, limits.waiting_s):
        yield Problem(
            "intake",
            f"A submission has not been taken in for {duration(queue.oldest_new_s or 0)}: is the sensor `intake` on, "
            "and what do its ticks say (UI, Automation)?",
        )
    is_idle = (leases is None or not leases.live) and (queue.idle_s is None or queue.idle_s > limits.waiting_s)
    wait = (
        f"{queue.waiting + queue.due_again} submissions wait, the oldest for {duration(queue.oldest_waiting_s or 0)}, "
    )
    if is_idle and _over(queue.oldest_waiting_s, limits.waiting_s):
        yield Problem(
            "queue",
            f"{wait}and nothing is at work: are the sensors `intake` and `reconcile` on (UI, Automation), and does the "
            "queue move (UI, Runs)?",
        )
    elif _over(queue.oldest_waiting_s, limits.unmade_s) and _never_or_over(queue.made_s, limits.unmade_s):
        # A process that hangs keeps its lease alive.
        yield Problem(
            "queue",
            f"{wait}and nothing was made for {duration(limits.unmade_s)} though something is at work: look at the runs "
            "that have begun (UI, Runs), and cancel what hangs.",
        )


def _beats(leases: Beats | None, workers: Beats | None, limits: HealthLimits) -> Iterator[Problem]:
    if leases and leases.longest_over_s > limits.lease_over_s:
        yield Problem(
            "lease",
            f"{leases.over} attempts have lost their lease, one {duration(leases.longest_over_s)} ago, and nobody "
            "ended them: start the daemon again, its reaper does it.",
        )
    if workers and workers.longest_over_s > limits.silent_s:
        yield Problem(
            "worker",
            f"{workers.over} processes of runs are silent, one for {duration(workers.longest_over_s)}, and nobody "
            "ended them: start the daemon again, its reaper does it.",
        )


def _pools(pools: Mapping[str, PoolUse]) -> Iterator[Problem]:
    held = {name: pool.left_behind for name, pool in pools.items() if pool.left_behind}
    if held:
        names = ", ".join(f"{name} ({count})" for name, count in held.items())
        yield Problem(
            "slots",
            f"Runs that are over hold slots of pools: {names}; free them in the UI (Deployment, Concurrency), or start "
            "the daemon again.",
        )


def _failures(failures: Failures | None, limits: HealthLimits) -> Iterator[Problem]:
    if failures is None or not failures.given_up_lately:
        return
    # Where few videos come, there never are many failures: the first counts, unless others go well.
    if failures.given_up_lately >= limits.given_up or _never_or_over(failures.made_s, limits.unmade_s):
        yield Problem(
            "failures",
            f"{failures.given_up_lately} submissions were given up in the last hour though nothing is known to be "
            f"wrong with their videos (“{failures.given_up_cause.rstrip('.')}”): mend that, then submit them again.",
        )


def _disk(health: Health, limits: HealthLimits) -> Iterator[Problem]:
    if health.disk_free_bytes < limits.disk_free_bytes:
        free, wanted = health.disk_free_bytes / 1e9, limits.disk_free_bytes / 1e9
        yield Problem(
            "disk", f"The disk of MOMENTS_HOME has {free:.1f} GB left: free some space, {wanted:.0f} GB at least."
        )


def _over(seconds: float | None, limit: float) -> bool:
    return seconds is not None and seconds > limit


def _never_or_over(seconds: float | None, limit: float) -> bool:
    return seconds is None or seconds > limit


def duration(seconds: float) -> str:
    """
    >>> [duration(seconds) for seconds in (0.4, 119, 120, 7300, 200_000)]
    ['0 s', '119 s', '2 min', '2 h', '2 days']
    """
    for unit, length, up_to in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < up_to:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds / 86_400)} days"
