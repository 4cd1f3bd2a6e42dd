"""`make bench`: each benchmark in a process of its own, one table at the end."""

from __future__ import annotations

import json
import subprocess
import sys

from rich.console import Console
from rich.table import Table

NAMES = ("startup", "finder", "orchestration", "store", "handover", "intake", "throughput")


def main() -> int:
    table = Table("benchmark", "figure", "measured", "goal", box=None, header_style="bold")
    failed = False
    for name in NAMES:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--json"], stdout=subprocess.PIPE, check=False
        )
        failed |= done.returncode != 0
        result = json.loads(done.stdout) if done.returncode == 0 else {"figures": {"failed": None}, "goal": {}}
        for figure, value in result["figures"].items():
            shown = f"{value:.3f}" if isinstance(value, float) else str(value)
            table.add_row(name, figure, shown, str(result["goal"].get(figure, "")))
    Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
