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


@dataclass(frozen=True, slots=True)
class Part:
    """Passages `first` up to, not including, `last`."""

    first: int
    last: int


def parts_from(starts: Sequence[int], count: int) -> list[Part]:
    """Parts that tile `count` passages, given the first passage of each."""
    return [Part(first, last) for first, last in zip(starts, [*starts[1:], count], strict=True)]


def scores(parts: Sequence[Part], said: Sequence[Passage], space: TopicSpace, evidence: Vector) -> list[float]:
    """A score in 0..1 for each part; 0.5 is the average part of this video.

    Made of the density of the video's key terms, how well the part keeps to one topic, how clearly it opens
    and how fast people talk.
    """
    import numpy as np

    seconds = np.array([_seconds(part, said) for part in parts])
    keys = key_terms(said)
    dense = np.array([sum(term in keys for p in said[part.first : part.last] for term in p.terms) for part in parts])
    rate = np.array([sum(len(p.text) for p in said[part.first : part.last]) for part in parts])
    coherent = np.array([_coherence(space.topics[part.first : part.last]) for part in parts])
    opening = np.clip(np.array([evidence[part.first] for part in parts]), -1.0, 4.0)
    total = (
        DENSITY * zscored(dense / seconds)
        + COHERENCE * zscored(coherent)
        + OPENING * zscored(opening)
        + RATE * zscored(rate / seconds)
    )
    return [round(float(value), 3) for value in 1 / (1 + np.exp(-total))]


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
    """Length of the mean topic over the mean length: 1 where every passage has the same topic."""
    import numpy as np

    lengths = float(np.linalg.norm(rows, axis=1).mean())
    return float(np.linalg.norm(rows.mean(axis=0))) / lengths if lengths > 1e-9 else 0.0
