"""Which words of a video behave as nouns: told by their neighbours, as there is no tagger without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from moments_core.finder.vocabulary import word_list


class Roles:
    """Counts of noun-like and verb-like surroundings of each word, over a whole video."""

    def __init__(self, clauses: Iterable[Sequence[str]]) -> None:
        self._noun: Counter[str] = Counter()
        self._verb: Counter[str] = Counter()
        for clause in clauses:
            self._read(clause)

    def _read(self, clause: Sequence[str]) -> None:
        for before, word, after in zip(["", *clause[:-1]], clause, [*clause[1:], ""], strict=True):
            self._noun[word] += before in word_list("before_noun")
            self._verb[word] += (before in word_list("before_verb")) + (after in word_list("after_verb"))

    def nounness(self, word: str) -> float:
        """0 for what behaves as a verb, 1 for a noun, 0.6 where nothing is known."""
        noun, verb = self._noun[word], self._verb[word]
        return (noun + 1.2) / (noun + verb + 2)
