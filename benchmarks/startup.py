"""What starting costs: `moments --help`, and loading the code location against importing Dagster alone.

CPU seconds of whole processes, medians; each round measures all of them, so that a busy machine hits them alike.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys

from benchmarks.report import report

ROUNDS = 7
GOAL = {"help_cpu_s": 0.4, "load_vs_import_dagster": 1.5}

_COMMANDS = {
    "help": ["-m", "moments.cli", "--help"],
    "import": ["-c", "import dagster"],
    "load": ["-c", "from moments.definitions import definitions; definitions()"],
}


def measure() -> dict[str, float]:
    """CPU seconds, and the ratio."""
    rounds = [{name: _cpu(command) for name, command in _COMMANDS.items()} for _ in range(ROUNDS)]
    cpu = {name: statistics.median(round_[name] for round_ in rounds) for name in _COMMANDS}
    return {
        "help_cpu_s": cpu["help"],
        "import_dagster_cpu_s": cpu["import"],
        "load_cpu_s": cpu["load"],
        "load_vs_import_dagster": statistics.median(round_["load"] / round_["import"] for round_ in rounds),
    }


def _cpu(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report("startup", measure(), GOAL, as_json=parser.parse_args().json)


if __name__ == "__main__":
    main()
