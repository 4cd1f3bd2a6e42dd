"""`make faults`: submissions while everything around them fails, then repair, then the invariants.

    python -m benchmarks.faults --seed 7 --faults 40

A seed decides the plan, which is printed. Exit status 1 where an invariant does not hold, or too little was tried.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.plan import make_plan
from benchmarks.faults.run import run_plan
from benchmarks.faults.verdict import LEAST_KINDS, RECOVERY_S, shortfalls
from benchmarks.report import report

GOAL = {
    **dict.fromkeys(
        (
            "lost",
            "duplicated",
            "stale_writes",
            "leaked_slots",
            "held_locks",
            "orphan_processes",
            "leftover_bytes",
            "unexplained",
            "budgets_passed",
            "wrong",
        ),
        0,
    ),
    "recovery_p95_s": RECOVERY_S,
    "kinds": LEAST_KINDS,
}


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started and mounted goes
    arguments = _arguments()
    began = time.monotonic()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed  # noqa: S311 - no secret
    # Three for four faults; in the short form one for three, or it would not be done in five minutes.
    share = 0.75 if arguments.faults > 100 else 0.35
    submissions = arguments.submissions or max(12, round(arguments.faults * share))
    with tempfile.TemporaryDirectory(prefix="moments-faults-") as folder:
        outcome = run_plan(
            lambda without: make_plan(seed, faults=arguments.faults, submissions=submissions, without=without),
            Path(folder),
            patience_s=arguments.patience,
        )
    for name, lines in outcome.offenders.items():
        for line in lines[:20]:
            print(f"{name}: {line}", file=sys.stderr)
    figures = {**outcome.figures, "seed": seed, "seconds": round(time.monotonic() - began, 1)}
    report("faults", figures, GOAL, as_json=arguments.json)
    short = list(shortfalls(outcome.figures, submissions=submissions, is_strict=arguments.strict))
    for line in short:
        print(f"too little: {line}", file=sys.stderr)
    return int(bool(short) or any(outcome.offenders.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break everything around submissions, then look what came of them.")
    parser.add_argument("--seed", type=int, default=None, help="decides the plan; by default another one each time")
    parser.add_argument("--faults", type=int, default=40, help="how many (default: 40)")
    parser.add_argument(
        "--submissions", type=int, default=None, help="how many (default: 3 for 4 faults; up to 100 faults: 1 for 3)"
    )
    parser.add_argument("--patience", type=float, default=300, help="seconds after the last fault (default: 300)")
    parser.add_argument("--strict", action="store_true", help="fail also where recovery takes too long")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
