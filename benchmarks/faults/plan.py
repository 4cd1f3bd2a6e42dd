"""What will happen in a fault run, decided by a seed before anything starts, so that it can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

STAGES = ("raw_video", "audio", "transcript", "moments", "clips", "refined_moments")

#: Each stops work for everybody, so no two at once, and a pause between them: a machine that fails every five
#: seconds does nothing but start.
OUTAGES = (
    "code_server_killed",
    "fork_server_killed",
    "dagster_daemon_killed",
    "supervisor_killed",
    "postgres_killed",
    "power_cut",
    "code_server_frozen",
    "dagster_daemon_frozen",
    "supervisor_frozen",
    "postgres_frozen",
    "tick_broken_off",
    "disk_full",
    "clock_step",
)

#: Each hits one video, or a few calls.
STRIKES = (
    *(f"worker_killed_in_{stage}" for stage in STAGES),
    "worker_frozen",
    "ffmpeg_killed",
    "run_cancelled",
    "video_cancelled",
    "store_503",
    "store_upload_cut",
    "store_answer_lost",
    "store_download_damaged",
    "store_hangs",
    "site_503",
    "site_breaks_off",
    "model_500",
    "model_429",
    "model_breaks_off",
    "model_garbage",
    "model_hangs",
    "model_refuses",
    "ssh_restarted",
    "ssh_dropped",
    "second_daemon",
    "late_commit",
    "fifty_at_once",
    "poison_video",
)

KINDS = (*OUTAGES, *STRIKES)

#: Between two submissions. Two cores take one in 4.4 s in when nothing fails. Beside outages they fall behind at that
#: pace, which a short plan catches up with after its end, and a long one never: its recoveries would wait in a queue.
_PACE_S = 5.0
_LONG_PACE_S = 10.0
_SHORT = 50  # submissions, at most
_OUTAGE_GAP_S = 8.0  # a code server needs 5 s to load, a daemon 4
_QUIET_S = 8.0  # at the beginning: until the first runs are at work
SHARE_BY_SQL = 0.5
_ROUND_S = 2.5  # of the plan, at least, for each fault


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """`at_s`: seconds from the start. `chance`, 0..1, decides what else a kind leaves open: how long, which one."""

    number: int
    at_s: float
    kind: str
    chance: float


@dataclass(frozen=True, slots=True)
class PlannedSubmission:
    """`by_sql`: an INSERT of a URL; else a file through `Intake.submit`. `priority` as in url_intake."""

    number: int
    at_s: float
    by_sql: bool
    priority: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that happens, in the order of time."""

    seed: int
    seconds: float
    faults: tuple[PlannedFault, ...]
    submissions: tuple[PlannedSubmission, ...]

    def lines(self) -> Iterator[str]:
        """The plan for people."""
        yield f"seed {self.seed}: {len(self.faults)} faults, {len(self.submissions)} submissions, {self.seconds:.0f} s"
        for fault in self.faults:
            yield f"  {fault.at_s:7.1f} s  {fault.number:3}  {fault.kind}  ({fault.chance:.3f})"


def make_plan(seed: int, *, faults: int, submissions: int, without: Sequence[str] = ()) -> Plan:
    """The plan of a seed. `without`: kinds that this machine can't play.

    Every kind comes as often as any other, up to one.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret; it has to be foreseeable
    kinds = _kinds(chance, faults, [kind for kind in KINDS if kind not in without])
    pace_s = _PACE_S if submissions <= _SHORT else _LONG_PACE_S
    seconds = _QUIET_S + max(submissions * pace_s, faults * _ROUND_S)
    outages = sum(kind in OUTAGES for kind in kinds)
    seconds = max(seconds, _QUIET_S + outages * _OUTAGE_GAP_S)
    return Plan(seed, seconds, _faults(chance, kinds, seconds), _submissions(chance, submissions, seconds))


def _kinds(chance: random.Random, count: int, known: list[str]) -> list[str]:
    """`count` of them in random order, each as often as any other."""
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += chance.sample(known, min(len(known), count - len(kinds)))
    chance.shuffle(kinds)
    return kinds


def _faults(chance: random.Random, kinds: Sequence[str], seconds: float) -> tuple[PlannedFault, ...]:
    """Outages at equal distances, a little shaken; the others anywhere between them."""
    outages = [kind for kind in kinds if kind in OUTAGES]
    span = (seconds - _QUIET_S) / max(1, len(outages))
    placed = [(_QUIET_S + (index + 0.3 + 0.4 * chance.random()) * span, kind) for index, kind in enumerate(outages)]
    placed += [(chance.uniform(_QUIET_S, seconds), kind) for kind in kinds if kind not in OUTAGES]
    return tuple(
        PlannedFault(number, at_s, kind, chance.random()) for number, (at_s, kind) in enumerate(sorted(placed), start=1)
    )


def _submissions(chance: random.Random, count: int, seconds: float) -> tuple[PlannedSubmission, ...]:
    times = sorted(chance.uniform(0, seconds - _QUIET_S) for _ in range(count))
    times[:4] = [0.0] * len(times[:4])  # so that there is something to hit from the beginning
    return tuple(
        PlannedSubmission(number, at_s, chance.random() < SHARE_BY_SQL, chance.choice((0, 0, 0, 1)))
        for number, at_s in enumerate(times, start=1)
    )
