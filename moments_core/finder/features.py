"""What speaks for a new moment at a passage: named columns, one value a passage, z-scored over the video.

Who speaks is left out on purpose. Real transcripts seldom know it, and where they do (tuning talks, honest changes
of speaker only) the share of chapters found whole fell: interviews change speaker ten times a chapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moments_core.finder.passages import Passage
from moments_core.finder.vectors import TopicSpace
from moments_core.finder.vocabulary import CUES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

BLOCKS = (4, 10, 20)  # passages on each side whose topics are compared
NEW_AHEAD, NEW_BEHIND = 8, 40  # passages; a term ahead is new when it was not said in those behind
ONSET_AHEAD, ONSET_BEHIND = 25, 60  # passages; a term's onset: unsaid in those behind, said again ahead


def feature_columns(said: Sequence[Passage], space: TopicSpace) -> dict[str, Vector]:
    """Every feature by name, each z-scored over the video; a constant one becomes zeros."""
    columns = {
        **_cohesion(space.topics),
        **_cues(said),
        "new_terms": _new_terms(said),
        "onset": _onset(said, space),
        **_edges(len(said)),
    }
    return {name: zscored(column) for name, column in columns.items()}


def zscored(values: Vector) -> Vector:
    """Mean 0 and deviation 1; zeros where all values are the same."""
    import numpy as np

    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)


def _cohesion(topics: Matrix) -> dict[str, Vector]:
    columns: dict[str, Vector] = {}
    for width in BLOCKS:
        similar = _block_similarity(topics, width)
        columns[f"similar_{width}"] = similar
        columns[f"depth_{width}"] = _depth(similar, 2 * width)
    return columns


def _block_similarity(rows: Matrix, width: int) -> Vector:
    """Cosine of the `width` rows before each index with the `width` rows from it on (TextTiling)."""
    import numpy as np

    sums = np.vstack([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    index = np.arange(len(rows))
    left = sums[index] - sums[np.maximum(0, index - width)]
    right = sums[np.minimum(len(rows), index + width)] - sums[index]
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray(np.where(norms > 1e-9, (left * right).sum(axis=1) / np.maximum(norms, 1e-9), 0.0))


def _depth(similar: Vector, reach: int) -> Vector:
    """How far the similarity lies below its highest value within `reach` to the left, plus the same to the right."""
    import numpy as np

    padded = np.pad(similar, reach, mode="edge")
    highest = np.lib.stride_tricks.sliding_window_view(padded, reach + 1).max(axis=1)
    return np.asarray(highest[: len(similar)] + highest[reach:] - 2 * similar)


def _cues(said: Sequence[Passage]) -> dict[str, Vector]:
    """Cue words, question marks and length of this passage, the one before and the one after."""
    import numpy as np

    lowered = [passage.text.lower().replace("’", "'") for passage in said]
    here = {name: np.array([bool(cue.search(text)) for text in lowered], float) for name, cue in CUES.items()}
    here["question_mark"] = np.array(["?" in text for text in lowered], float)
    here["length"] = np.log1p(np.array([len(text.split()) for text in lowered], float))
    columns: dict[str, Vector] = {}
    for name, column in here.items():
        columns[f"{name}_here"] = column
        columns[f"{name}_before"] = np.append(0.0, column[:-1])
        columns[f"{name}_after"] = np.append(column[1:], 0.0)
    return columns


def _new_terms(said: Sequence[Passage]) -> Vector:
    """Share of the terms ahead that were not said just before."""
    import numpy as np

    ahead, behind = Counter(_flat(said[:NEW_AHEAD])), Counter[str]()
    rates = np.zeros(len(said))
    for index, passage in enumerate(said):
        total = ahead.total()
        rates[index] = sum(n for term, n in ahead.items() if not behind[term]) / total if total else 0.0
        _slide(ahead, gone=passage.terms, come=said[index + NEW_AHEAD].terms if index + NEW_AHEAD < len(said) else ())
        _slide(behind, gone=said[index - NEW_BEHIND].terms if index >= NEW_BEHIND else (), come=passage.terms)
    return rates


def _flat(said: Sequence[Passage]) -> list[str]:
    return [term for passage in said for term in passage.terms]


def _slide(window: Counter[str], *, gone: Sequence[str], come: Sequence[str]) -> None:
    window.update(come)
    for term in gone:
        window[term] -= 1
        if not window[term]:
            del window[term]


def _onset(said: Sequence[Passage], space: TopicSpace) -> Vector:
    """Terms that begin to be talked about here or in the two passages after, rare ones counting more."""
    import numpy as np

    where: dict[str, list[int]] = {}
    for index, passage in enumerate(said):
        for term in set(passage.terms):
            where.setdefault(term, []).append(index)
    here = np.zeros(len(said) + 2)
    for term, places in where.items():
        if len(places) > 1:
            anew, again = _fresh(np.array(places))
            here[anew] += space.idf[space.vocabulary[term]] * np.log1p(again)
    return np.asarray(here[:-2] + here[1:-1] + 0.5 * here[2:])


def _fresh(places: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """The places where a term comes up anew, and how often it is said again soon after each."""
    import numpy as np

    anew = np.diff(places, prepend=-ONSET_BEHIND - 1) > ONSET_BEHIND
    again = np.searchsorted(places, places + ONSET_AHEAD, side="right") - np.arange(len(places)) - 1
    return places[anew], again[anew]


def _edges(count: int) -> dict[str, Vector]:
    import numpy as np

    position = (np.arange(count) + 0.5) / count
    return {"first_5_percent": (position < 0.05).astype(float), "last_5_percent": (position > 0.95).astype(float)}
