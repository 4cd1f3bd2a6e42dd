"""Text from outside on one line: what a table, a terminal or a prompt can hold and a reader can see."""

from __future__ import annotations

from unicodedata import category

# Control characters; what is not seen (bidi overrides, zero-width spaces, tag letters that smuggle text past a reader);
# halves of surrogate pairs, which UTF-8 can't hold; private use.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co"})
_JOINERS = "\u200c\u200d"  # unseen too, but Persian, Hindi and many emoji are misspelt without them


def one_line(text: str) -> str:
    """`text` without line breaks and unseen characters, its words one space apart."""
    spaced = " ".join(text.split())
    seen = "".join(letter for letter in spaced if letter in _JOINERS or category(letter) not in _UNSEEN)
    return " ".join(seen.split()).strip(_JOINERS + " ")


def shortened(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: cut behind a word where there is one, and marked with `…`."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    words = head if text[limit - 1] == " " else head.rpartition(" ")[0]
    return (words if len(words) >= limit // 2 else head).rstrip() + "…"


def counted(count: int, noun: str) -> str:
    """`1 moment`, `2 moments`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
