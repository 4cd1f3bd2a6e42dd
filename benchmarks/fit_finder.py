"""Fit the finder's weights on talks with human chapters and write them: python -m benchmarks.fit_finder --data FILE.

FILE holds one talk a line: {"id", "duration", "sentences": [[start_s, end_s, speaker, turn_start, text], ...],
"chapters": [{"sent": index of the first sentence, ...}]}. The talks are not part of the package; their weights are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moments_core.content import VideoContent
from moments_core.finder import weights as weights_module
from moments_core.finder.features import feature_columns
from moments_core.finder.jsonl import parse_line
from moments_core.finder.passages import Passage, passages
from moments_core.finder.vectors import topic_space
from moments_core.finder.weights import Weights

REGULARISATION = 0.03  # scikit-learn's C; 0.01 to 0.1 score alike by cross-validation
FOLDS = 10
DECIMALS = 5


@dataclass(frozen=True, slots=True)
class Talk:
    """A talk with its features and, for each passage, whether a chapter begins there."""

    video_id: str
    content: VideoContent
    chapters: tuple[int, ...]
    said: tuple[Passage, ...]
    columns: dict[str, Any]
    opens: Any


def read_talks(path: Path, *, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> list[Talk]:
    """Talks of a file; `change` may take something away from each line's object first (speakers, punctuation)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_talk(change(json.loads(line)), number) for number, line in enumerate(lines, start=1) if line.strip()]


def _talk(source: dict[str, Any], number: int) -> Talk:
    import numpy as np

    video_id, content = parse_line(json.dumps(source), number)
    said = tuple(passages(content))
    chapters = tuple(int(chapter["sent"]) for chapter in source["chapters"])
    chapter_ms = {content.sentences[index].start_ms for index in chapters if index > 0}
    columns = feature_columns(said, topic_space([passage.terms for passage in said]))
    opens = np.array([passage.start_ms in chapter_ms for passage in said], float)
    return Talk(video_id, content, chapters, said, columns, opens)


def fit(talks: Sequence[Talk]) -> Weights:
    """Logistic regression over the passages of all talks; the features are z-scored already."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    names = list(talks[0].columns)
    rows = np.vstack([np.column_stack([talk.columns[name] for name in names]) for talk in talks])
    model = LogisticRegression(C=REGULARISATION, max_iter=2_000).fit(rows, np.concatenate([t.opens for t in talks]))
    return Weights({name: round(float(w), DECIMALS) for name, w in zip(names, model.coef_[0], strict=True)})


def folds(count: int, *, seed: int = 0) -> list[list[int]]:
    """Indices of the talks left out in each round; a talk is never in both the fit and its test."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(count)
    return [order[first::FOLDS].tolist() for first in range(min(FOLDS, count))]


def weights_file(weights: Weights, talks: Sequence[Talk], scores: dict[str, float]) -> str:
    """The text of weights.json: first what made it, then the weights."""
    hours = sum(talk.content.duration_ms for talk in talks) / 3_600_000
    header = {
        "made_by": "python -m benchmarks.fit_finder",
        "method": f"logistic regression, C={REGULARISATION}, features z-scored per video",
        "data": f"{len(talks)} talks and podcasts in English, {hours:.1f} h, {sum(len(t.chapters) for t in talks)} "
        "chapters set by people (bitcointranscripts, MIT)",
        "cross_validation": {"folds": FOLDS, "grouped_by": "talk", **scores},
    }
    return json.dumps({"header": header, "features": weights.of_feature}, indent=1) + "\n"


def main() -> None:
    from benchmarks.finder import cross_validate

    parser = argparse.ArgumentParser(description="Fit the finder's weights.")
    parser.add_argument("--data", type=Path, required=True, help="talks with chapters, one JSON object a line")
    talks = read_talks(parser.parse_args().data)
    scores = {name: round(value, 3) for name, value in cross_validate(talks).items()}
    target = Path(weights_module.__file__).with_name("weights.json")
    target.write_text(weights_file(fit(talks), talks, scores), encoding="utf-8")
    print(f"{target}: {scores}")


if __name__ == "__main__":
    main()
