"""From a sentence to its terms: lower case, no stop words, no fillers, plural and tense endings off."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from moments_core.finder.vocabulary import noise

# Letters and digits of any script; apostrophes, hyphens and dots hold a word together (don't, peer-to-peer, v3.1).
WORD: Final = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
# Scripts written without spaces: Thai, Lao, Khmer, kana, Han. There, pairs of characters stand in for words.
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
_LONGEST_WORD = 40  # characters; what is longer is a hash, an address or noise


def words(text: str) -> list[str]:
    """Words of `text` in lower case, in order; pairs of characters for scripts without spaces."""
    found = WORD.findall(text.lower().replace("’", "'"))
    if text.isascii():
        return found
    return [piece for word in found for piece in _pieces(word)]


def _pieces(word: str) -> list[str]:
    if not _UNSPACED.fullmatch(word) or len(word) < 3:
        return [word]
    return [word[index : index + 2] for index in range(len(word) - 1)]


def terms(text: str) -> list[str]:
    """Stems of the words that carry a topic."""
    return [stem(word) for word in words(text) if is_content(word)]


def is_content(word: str) -> bool:
    """Whether a lower-case word can name a topic: no stop word or filler, no lone letter, no bare number."""
    return word not in noise() and 1 < len(word) <= _LONGEST_WORD and not word.isdecimal()


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Fold the commonest English endings, so that `channels`, `channel's` and `channel` are one term.

    Deliberately weaker than Porter's: over-stemming joins topics, a missed ending costs little.
    """
    word = word.removesuffix("'s")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    for ending in ("ing", "ed"):
        if len(word) > len(ending) + 4 and word.endswith(ending):
            return _undoubled(word[: -len(ending)])
    return word


def _undoubled(word: str) -> str:
    if word[-1] == word[-2] and word[-1] not in "lsz":
        return word[:-1]
    return word.removesuffix("e")
