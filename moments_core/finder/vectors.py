"""Sentences as vectors: TF-IDF over the video's own terms, reduced to a topic space by a truncated SVD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

TOPICS = 48  # dimensions of the topic space
SEED = 7  # of the SVD's start, so that the same video always gives the same moments
_ROUNDS = 4  # of the randomised SVD; more changed no score


@dataclass(frozen=True, slots=True)
class TopicSpace:
    """`tfidf`: passages x terms, sparse, rows of length 1; `topics`: passages x at most 48; `basis`: terms x these."""

    vocabulary: dict[str, int]
    idf: Matrix
    tfidf: Any
    topics: Matrix
    basis: Matrix


def topic_space(sentence_terms: Sequence[Sequence[str]]) -> TopicSpace:
    """Fit the space on the sentences of one video; sentences without terms become zero rows."""
    import numpy as np

    vocabulary = {term: index for index, term in enumerate(dict.fromkeys(t for row in sentence_terms for t in row))}
    counts = _counts(sentence_terms, vocabulary)
    present = np.bincount(counts.indices, minlength=max(1, len(vocabulary)))
    idf = np.log((1 + counts.shape[0]) / (1 + present)) + 1
    tfidf = _unit_rows(counts, idf)
    basis = _basis(tfidf)
    return TopicSpace(vocabulary, idf, tfidf, np.asarray(tfidf @ basis), basis)


def _counts(sentence_terms: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> Any:
    import numpy as np
    from scipy import sparse

    columns = [vocabulary[term] for row in sentence_terms for term in row]
    starts = np.cumsum([0, *(len(row) for row in sentence_terms)])
    shape = (len(sentence_terms), max(1, len(vocabulary)))
    matrix = sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _unit_rows(counts: Any, idf: Matrix) -> Any:
    import numpy as np

    weighted = counts.copy()
    weighted.data = (1 + np.log(counts.data)) * idf[counts.indices]
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    norms = np.sqrt(np.bincount(row, weights=weighted.data**2, minlength=counts.shape[0]))
    weighted.data /= norms[row]
    return weighted


def _basis(tfidf: Any) -> Matrix:
    """Leading right singular vectors by randomised subspace iteration (Halko, Martinsson and Tropp 2011, 4.5).

    It iterates on the side of the terms: a long talk has many more passages than terms.
    """
    import numpy as np

    size = min(TOPICS, *tfidf.shape)
    wanted = min(size + 10, *tfidf.shape)
    basis = np.random.default_rng(SEED).standard_normal((tfidf.shape[1], wanted))
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(tfidf.T @ (tfidf @ basis))[0]
    projected = tfidf @ basis
    turn = np.linalg.eigh(projected.T @ projected)[1][:, ::-1]
    return np.asarray(basis @ turn[:, :size])


def smoothed(rows: Matrix, radius: int = 1) -> Matrix:
    """Mean of each row with its neighbours up to `radius` away; fewer at the ends."""
    import numpy as np

    sums = np.vstack([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    index = np.arange(len(rows))
    first, last = np.maximum(0, index - radius), np.minimum(len(rows), index + radius + 1)
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])
