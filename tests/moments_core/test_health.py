"""The judgement: each problem is there while its cause is, says what to do, and goes with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moments_core.health import (
    Beats,
    Daemon,
    Failures,
    Health,
    HealthLimits,
    PoolUse,
    Queue,
    kinds,
    problems,
)

LIMITS = HealthLimits()
WELL = Health(
    disk_free_bytes=10**11,
    daemon=Daemon(is_at_work=True, heartbeat_ages_s={"SENSOR": 3.0}),
    queue=Queue(waiting=3, oldest_waiting_s=20.0, oldest_new_s=3.0, idle_s=5.0),
    leases=Beats(live=2),
    workers=Beats(live=1),
    pools={"asr": PoolUse(places=10, held=2, waiting=1, left_behind=0)},
    failures=Failures(by_class={"permanent": 400}, for_good=400),
)
IDLE = replace(WELL, leases=Beats())
HOUR = 3600.0
HUNG = Queue(waiting=12, oldest_waiting_s=7 * HOUR, idle_s=7 * HOUR, made_s=7 * HOUR)
STUCK = Queue(waiting=12, oldest_waiting_s=1500.0, idle_s=1500.0)


def test_a_sound_installation_has_no_problem_however_many_videos_are_broken() -> None:
    assert problems(WELL, LIMITS) == []


@pytest.mark.parametrize(
    ("health", "kind", "words"),
    [
        (replace(WELL, daemon=Daemon(False, {"SENSOR": None})), "daemon", "`moments daemon`"),
        (replace(WELL, daemon=Daemon(True, {"SENSOR": 400.0})), "heartbeat", "SENSOR has not been heard for 6 min"),
        (replace(WELL, daemon=Daemon(True, {"SCHEDULER": None})), "heartbeat", "SCHEDULER has not been heard yet"),
        (replace(WELL, queue=Queue(waiting=1, oldest_new_s=1000.0, idle_s=1.0)), "intake", "for 16 min"),
        (replace(IDLE, queue=STUCK), "queue", "12 submissions wait, the oldest for 25 min"),
        (replace(IDLE, queue=replace(STUCK, idle_s=None)), "queue", "nothing is at work"),
        (replace(WELL, leases=Beats(1, 2, 300.0)), "lease", "2 attempts have lost their lease, one 5 min ago"),
        (replace(WELL, workers=Beats(1, 3, 300.0)), "worker", "3 processes of runs are silent, one for 5 min"),
        (replace(WELL, pools={"asr": PoolUse(10, 2, 0, left_behind=2)}), "slots", "asr (2)"),
        (
            replace(WELL, failures=Failures(given_up_lately=5, given_up_cause="The key is wrong.", made_s=60.0)),
            "failures",
            "5 submissions were given up in the last hour though nothing is known to be wrong with their videos "
            "(“The key is wrong”)",
        ),
        (replace(WELL, failures=Failures(given_up_lately=1)), "failures", "1 submissions"),
        (replace(WELL, failures=Failures(given_up_lately=1, made_s=7 * HOUR)), "failures", "1 submissions"),
        (replace(WELL, queue=HUNG), "queue", "nothing was made for 6 h though something is at work"),
        (replace(WELL, queue=replace(HUNG, made_s=None)), "queue", "12 submissions wait, the oldest for 7 h"),
        (replace(WELL, disk_free_bytes=10**9), "disk", "1.0 GB left: free some space, 5 GB at least"),
        (Health(10**11, fault="PostgreSQL does not answer: see to it."), "database", "does not answer"),
    ],
)
def test_a_problem_is_told_in_one_sentence_that_says_what_to_do(health: Health, kind: str, words: str) -> None:
    (problem,) = problems(health, LIMITS)
    assert problem.kind == kind
    assert words in problem.sentence
    assert problem.sentence.endswith((".", "?"))
    assert ". " not in problem.sentence.removesuffix(".")


@pytest.mark.parametrize(
    "health",
    [
        replace(WELL, queue=STUCK),  # one long video is at work, the others wait for its place
        replace(IDLE, queue=replace(STUCK, idle_s=10.0)),  # a long queue that moves
        replace(WELL, leases=Beats(1, 1, 30.0)),  # the reaper is about to see to it
        replace(WELL, workers=Beats(1, 1, 30.0)),
        replace(WELL, failures=Failures(given_up_lately=4, made_s=5 * HOUR)),
        replace(WELL, failures=Failures(by_class={"permanent": 3}, for_good=3)),
        replace(WELL, queue=replace(HUNG, made_s=60.0)),  # ten thousand at once
    ],
)
def test_what_passes_by_itself_is_no_problem(health: Health) -> None:
    assert problems(health, LIMITS) == []


def test_a_full_disk_is_told_beside_a_database_that_is_away() -> None:
    assert kinds(problems(Health(0, fault="Away: see to it."), LIMITS)) == ("database", "disk")
