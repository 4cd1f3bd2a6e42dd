"""How much a part deserves to be watched, against the other parts of the same video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moments_core.finder.features import zscored
from moments_core.finder.passages import Passage
from moments_core.finder.vectors import TopicSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

KEY_TERMS = 40  # the video's most telling terms; what is said about them is what the video is about
# Chosen by eye: dense parts first, small talk and farewells last. There is nothing to fit them to.
DENSITY, COHERENCE, OPENING, RATE = 0.8, 0.4, 0.4, 0.2
REACH = 4  # passages
FEW = 2.0  # parts that are imagined to be average, beside those there are


@dataclass(frozen=True, slots=True)
class Part:
    """Passages `first` up to, not including, `last`."""

    first: int
    last: int


def parts_from(starts: Sequence[int], count: int) -> list[Part]:
    """Parts that tile `count` passages, given the first passage of each."""
    return [Part(first, last) for first, last in zip(starts, [*starts[1:], count], strict=True)]


def scores(parts: Sequence[Part], said: Sequence[Passage], space: TopicSpace, evidence: Vector) -> list[float]:
    """A score in 0..1 for each part: how it stands among the parts of this video, never between videos.

    0.5 is the average part, 0.73 one that is a deviation of the log-odds better, 0.27 one as much worse. Made of four
    standings among the parts: density (key terms of the video a second: what the video is about, not small talk),
    coherence (its passages are on one topic), opening (how clear its start is; nothing is known of the first part's,
    so it counts as average) and rate (letters a second). Each is a mean, so that length decides nothing: over the
    tuning talks the rank correlation of score and length is -0.04, and the scores of a talk run from 0.19 to 0.84. Of
    few parts the average is uncertain, so the scores of n parts are drawn towards 0.5 by n / (n + 2).
    """
    import numpy as np

    seconds = np.array([_seconds(part, said) for part in parts])
    keys = key_terms(said)
    dense = np.array([sum(term in keys for p in said[part.first : part.last] for term in p.terms) for part in parts])
    rate = np.array([sum(len(p.text) for p in said[part.first : part.last]) for part in parts])
    coherent = np.array([_coherence(space.topics[part.first : part.last]) for part in parts])
    total = (
        DENSITY * zscored(dense / seconds)
        + COHERENCE * zscored(coherent)
        + OPENING * zscored(_openings(parts, evidence))
        + RATE * zscored(rate / seconds)
    )
    drawn = len(parts) / (len(parts) + FEW) * total
    return [round(float(value), 3) for value in 1 / (1 + np.exp(-drawn))]


def _openings(parts: Sequence[Part], evidence: Vector) -> Vector:
    import numpy as np

    openings = np.clip(np.array([evidence[part.first] for part in parts]), -1.0, 6.0)
    if len(parts) > 1:
        openings[0] = openings[1:].mean()
    return np.asarray(openings)


def key_terms(said: Sequence[Passage]) -> set[str]:
    """Terms said often but in few passages, by TF-IDF over the whole video."""
    from collections import Counter
    from math import log

    often = Counter(term for passage in said for term in passage.terms)
    spread = Counter(term for passage in said for term in set(passage.terms))
    weight = {term: count * log(1 + len(said) / spread[term]) for term, count in often.items() if count > 1}
    return set(sorted(weight, key=lambda term: (-weight[term], term))[:KEY_TERMS])


def _seconds(part: Part, said: Sequence[Passage]) -> float:
    return max(1.0, (said[part.last - 1].end_ms - said[part.first].start_ms) / 1000)


def _coherence(rows: NDArray[np.float64]) -> float:
    """Mean product of the topics of passages at most `REACH` apart over their mean square: 1 where all are the same.

    Of near passages only: over all of them a long part would lose, as every talk drifts.
    """
    import numpy as np

    products = [
        float(one @ other) for step in range(1, REACH + 1) for one, other in zip(rows, rows[step:], strict=False)
    ]
    square = float((rows**2).sum(axis=1).mean())
    return float(np.mean(products)) / square if products and square > 1e-9 else 0.0
