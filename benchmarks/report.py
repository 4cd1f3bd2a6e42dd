"""The frame that every benchmark prints: name, figures, goal, machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass

Figure = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures were taken; `memory_gb` is None where the system does not tell."""

    cores: int
    memory_gb: float | None
    python: str
    platform: str


def this_machine() -> Machine:
    """Cores are those this process may use, which a container can limit below those of the machine."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(allowed, _memory_gb(), platform.python_version(), platform.platform(terse=True))


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):  # names that only some systems know
        return None


def report(
    name: str, figures: Mapping[str, Figure], goal: Mapping[str, Figure | Mapping[str, Figure]], *, as_json: bool
) -> None:
    """Print one JSON object on stdout, or a table for people. A figure that could not be taken is None."""
    machine = this_machine()
    if as_json:
        print(json.dumps({"name": name, "figures": dict(figures), "goal": dict(goal), "machine": asdict(machine)}))
        return
    width = max((len(key) for key in figures), default=0)
    print(f"{name}  ({machine.cores} cores, Python {machine.python})")
    for key, value in figures.items():
        aim = f"   goal {goal[key]}" if key in goal else ""
        print(f"  {key:<{width}}  {_shown(value):>10}{aim}")


def _shown(value: Figure) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
