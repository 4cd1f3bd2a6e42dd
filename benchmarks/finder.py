"""How well and how fast the local finder works: python -m benchmarks.finder [--json] [--data FILE].

Scores come from cross-validation: each talk is scored with weights fitted on others. The talks are not in this
repository; without them only the speed is taken, on a made-up talk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.finder_score import Scores, score
from benchmarks.fit_finder import Talk, fit, folds, read_talks
from benchmarks.report import Figure, report
from moments_core.finder.find import LocalFinder
from moments_core.options import Options

GOAL = {"chf1": 0.28, "f1_10s": 0.29, "cpu_s_per_hour": 2.0}
_ROOT = Path(__file__).resolve().parents[1]
_TIMED = """
import sys, time
from pathlib import Path
from moments_core.finder.find import LocalFinder
from moments_core.finder.jsonl import parse_line
from moments_core.options import Options
hours = 0.0
for number, line in enumerate(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines(), start=1):
    content = parse_line(line, number)[1]
    LocalFinder().find(content, Options())
    hours += content.duration_ms / 3_600_000
print(time.process_time(), hours)
"""


def cross_validate(talks: Sequence[Talk], tested: Sequence[Talk] | None = None) -> dict[str, float]:
    """Mean scores over talks, each found with weights that were fitted without it.

    `tested`, in the same order, are what is found in instead: the talks with something taken away.
    """
    tested = tested or talks
    scores: list[Scores] = []
    for left_out in folds(len(talks)):
        finder = LocalFinder(fit([talk for index, talk in enumerate(talks) if index not in left_out]))
        scores += [_scored(finder, tested[index]) for index in left_out]
    return {name: sum(asdict(one)[name] for one in scores) / len(scores) for name in asdict(scores[0])}


def _scored(finder: LocalFinder, talk: Talk) -> Scores:
    found = finder.find(talk.content, Options()).moments
    intervals = [(moment.span.start_ms / 1000, moment.span.end_ms / 1000) for moment in found]
    starts = [sentence.start_ms / 1000 for sentence in talk.content.sentences]
    return score(starts, talk.chapters, talk.content.duration_ms / 1000, intervals)


def without_speakers(talk: dict[str, Any]) -> dict[str, Any]:
    """The talk as captions give it: nobody knows who speaks."""
    return talk | {"sentences": [[start, end, None, 0, text] for start, end, _, _, text in talk["sentences"]]}


def as_poor_recogniser(talk: dict[str, Any]) -> dict[str, Any]:
    """No speakers, no punctuation, no capitals."""
    bare = without_speakers(talk)["sentences"]
    return talk | {"sentences": [[*head, re.sub(r"[^\w\s'’-]", " ", text).lower()] for *head, text in bare]}


def cpu_s_per_hour(path: Path) -> float:
    """CPU seconds of a fresh interpreter, imports included, over the hours of talk in the file's lines."""
    command = [sys.executable, "-c", _TIMED, str(path)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    seconds, hours = map(float, done.stdout.split())
    return seconds / hours


def _hour_of(lines: Sequence[str]) -> str:
    """The one talk nearest to an hour: the dearest case, as a process that finds one talk pays all imports."""
    return min(lines, key=lambda line: abs(json.loads(line)["duration"] - 3600))


def _made_up_hour() -> str:
    """A talk of 12 topics in made-up words; only good for timing."""
    dice = random.Random(1)  # noqa: S311 - no secret hangs on a made-up talk
    topics = [[f"{a}{b}{c}" for a, b, c in (dice.choices("bdklmnrst", k=3) for _ in range(40))] for _ in range(12)]
    sentences = [
        [at, at + 6, None, 0, " ".join(["so", "the", *dice.choices(topics[at // 300], k=10)])]
        for at in range(0, 3600, 6)
    ]
    return json.dumps({"id": "made-up", "duration": 3600, "sentences": sentences})


def _default_data() -> Path | None:
    named = os.environ.get("MOMENTS_EVAL_DATA")
    path = Path(named) if named else _ROOT.parent / "shared" / "eval" / "bt_dev.jsonl"
    return path if path.is_file() else None


def _quality(path: Path) -> dict[str, Figure]:
    changes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "": dict,
        "_no_turns": without_speakers,
        "_poor_text": as_poor_recogniser,
    }
    talks = read_talks(path)
    figures: dict[str, Figure] = {}
    for suffix, change in changes.items():
        figures |= {
            f"{name}{suffix}": round(value, 4)
            for name, value in cross_validate(talks, read_talks(path, change=change)).items()
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the local moment finder.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--data", type=Path, default=_default_data(), help="talks with chapters, one JSON object a line"
    )
    arguments = parser.parse_args()
    figures: dict[str, Figure] = dict.fromkeys(("chf1", "f1_10s", "p_50", "pk"))
    hour = _made_up_hour()
    if arguments.data is None:
        print("No talks with chapters (MOMENTS_EVAL_DATA or --data): only the speed is taken.", file=sys.stderr)
    else:
        figures |= _quality(arguments.data)
        hour = _hour_of(arguments.data.read_text(encoding="utf-8").splitlines())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "hour.jsonl")
        path.write_text(hour, encoding="utf-8")
        figures["cpu_s_per_hour"] = round(cpu_s_per_hour(path), 3)
    report("finder", figures, GOAL, as_json=arguments.json)


if __name__ == "__main__":
    main()
