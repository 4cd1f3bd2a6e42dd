"""What a query does to the moments: which parts relate to it, how much, and where in a long part it is spoken of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moments_core.finder.passages import Passage
from moments_core.finder.salience import Part
from moments_core.finder.text import stem, terms, words
from moments_core.finder.vectors import TopicSpace, smoothed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

RELATED = 0.5  # weight of a passage on the same topics against one that says the words
BACKGROUND = 0.25  # relevance a passage must pass to count for its part
HALF_WAY = 3.0  # passages that say the whole query before a part is two thirds relevant
WEAKEST = 0.3  # of the best part's relevance; below it a part only mentions the query
LONG_S, TIGHT_S = 90.0, 30.0  # a part longer than the first is tightened around the query, to no less than the second
SAME_STEM = 5  # letters two terms share to be taken as one word where the query's own is never said


@dataclass(frozen=True, slots=True)
class Steered:
    """A part that relates to the query, tightened, with its relevance in 0..1."""

    part: Part
    relevance: float


def steer(
    query: str, parts: Sequence[Part], said: Sequence[Passage], space: TopicSpace, least_s: float
) -> list[Steered]:
    """The parts that relate to `query`, in time order; none where it is never spoken of.

    A passage counts by the share of the query's words that it says (rare words count more, endings are ignored)
    and, less, by how near its topics lie to theirs. A part counts by its best run of such passages.
    """
    relevance = _relevance(query, space)
    if relevance is None:
        return []
    found = [_steered(part, relevance, said, max(least_s, TIGHT_S)) for part in parts]
    best = max(one.relevance for one in found)
    return [one for one in found if one.relevance > 0 and one.relevance >= WEAKEST * best]


def _relevance(query: str, space: TopicSpace) -> Vector | None:
    """Relevance of each passage, about 0..1.5; None where no word of the query is said."""
    import numpy as np

    wanted = [_said_as(term, space.vocabulary) for term in dict.fromkeys(_query_terms(query))]
    wanted = [group for group in wanted if group]
    if not wanted:
        return None
    weights = np.array([min(space.idf[column] for column in group) for group in wanted])
    present = np.column_stack([np.asarray((space.tfidf[:, group] > 0).sum(axis=1)).ravel() > 0 for group in wanted])
    literal = present @ weights / weights.sum()
    target = sum(space.basis[column] * space.idf[column] for group in wanted for column in group)
    related = _cosines(smoothed(space.topics), target)
    return np.asarray(smoothed(literal[:, None])[:, 0] + 0.5 * literal + RELATED * related)


def _query_terms(query: str) -> list[str]:
    """Terms of the query; where it holds stop words alone, those."""
    return terms(query) or [stem(word) for word in words(query)]


def _said_as(term: str, vocabulary: dict[str, int]) -> list[int]:
    """Columns of the term, else of the terms that begin alike (`regulation` for `regulatory`)."""
    if term in vocabulary:
        return [vocabulary[term]]
    if len(term) < SAME_STEM:
        return []
    return [column for other, column in vocabulary.items() if other.startswith(term[: max(SAME_STEM, len(term) - 3)])]


def _cosines(rows: NDArray[np.float64], target: Vector) -> Vector:
    import numpy as np

    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(target)
    return np.asarray(np.where(norms > 1e-9, np.maximum(0.0, rows @ target) / np.maximum(norms, 1e-9), 0.0))


def _steered(part: Part, relevance: Vector, said: Sequence[Passage], tight_s: float) -> Steered:
    from math import exp

    first, last, strength = _best_run(relevance[part.first : part.last] - BACKGROUND)
    run = Part(part.first + first, part.first + last)
    long = _length_s(part, said) > max(LONG_S, tight_s)
    return Steered(_widened(run, part, said, tight_s) if long else part, 1 - exp(-max(0.0, strength) / HALF_WAY))


def _best_run(gains: Vector) -> tuple[int, int, float]:
    """First, end and sum of the run with the largest sum (Kadane); never empty."""
    best = (0, 1, float(gains[0]))
    first, total = 0, 0.0
    for index, gain in enumerate(gains.tolist()):
        if total <= 0:
            first, total = index, 0.0
        total += gain
        if total > best[2]:
            best = (first, index + 1, total)
    return best


def _widened(run: Part, part: Part, said: Sequence[Passage], tight_s: float) -> Part:
    """One passage of context before the run, then passages after and before it until it is long enough."""
    first, last = max(part.first, run.first - 1), run.last
    while _length_s(Part(first, last), said) < tight_s and (first > part.first or last < part.last):
        if last < part.last:
            last += 1
        else:
            first -= 1
    return Part(first, last)


def _length_s(part: Part, said: Sequence[Passage]) -> float:
    return (said[part.last - 1].end_ms - said[part.first].start_ms) / 1000
