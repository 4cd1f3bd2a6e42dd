"""The JSON in what a model said: behind its thoughts, inside of fences, between sentences.

Works through any text in linear time and without recursion of its own, whatever stands in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from moments_core.errors import ReplyError

MAX_CHARACTERS = 1_000_000  # 250,000 tokens: thoughts can be long, but no model says that much and means it
MAX_ANSWERS = 1_000  # JSON values in one reply
KEPT_CHARACTERS = 2_000  # of a reply that could not be read

_JSON_SPACE = re.compile(r"[ \t\r\n]*")
# Where an answer can begin. A bracket in a sentence (`[see 3]`, `{so}`) goes on otherwise.
_START = re.compile(r"\[(?=[ \t\r\n]*[\]{])|\{(?=[ \t\r\n]*[\"}])")
_LIST_IN_OBJECT = re.compile(r'\{[ \t\r\n]*"\w{1,40}"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_THOUGHTS = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```\w{0,10}\s")


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON array or object of a reply. `cut_off`: the reply ends inside of it, and `value` holds what came whole."""

    value: object
    cut_off: bool = False


def unreadable(says: str, reply: str) -> ReplyError:
    """The error that keeps the reply. `says` completes the sentence "The reply …"."""
    return ReplyError(
        f"The reply {says}: run this again, or choose another model.",
        reply=reply[:KEPT_CHARACTERS],
        reply_characters=len(reply),
    )


def json_answers(reply: str) -> list[Answer]:
    """All arrays of objects, and all objects, that stand in a reply and not in one another; never an empty list.

    Raises ReplyError where there are none, where one of them is no JSON, and where the reply is out of all bounds.
    """
    if len(reply) > MAX_CHARACTERS:
        raise unreadable(f"is {len(reply):,} characters long, and no answer is", reply)
    text = _unfenced(_without_thoughts(reply))
    found: list[Answer] = []
    at = 0
    while start := _START.search(text, at):
        answer, at = _read(text, start.start(), reply)
        found.append(answer)
        if len(found) > MAX_ANSWERS:
            raise unreadable(f"holds more than {MAX_ANSWERS:,} answers", reply)
    if not found:
        raise unreadable("holds no answer in JSON" if reply.strip() else "is empty", reply)
    return found


def _without_thoughts(reply: str) -> str:
    """What stands behind the last thought.

    One that never ends is left out with all that follows, since its JSON may be a draft; unless nothing but JSON
    follows: servers that prefill the opening mark and then force JSON never let the closing one through.
    """
    marks = list(_THOUGHTS.finditer(reply))
    closing = [mark.end() for mark in marks if mark[1]]
    text = reply[closing[-1] :] if closing else reply
    opening = _THOUGHTS.search(text)
    if opening is None:
        return text
    rest = _unfenced(text[opening.end() :])
    return rest if rest[:1] in {"[", "{"} and rest[-1:] in {"]", "}"} else text[: opening.start()]


def _unfenced(text: str) -> str:
    """Without the fence around the whole of it; also where the JSON inside breaks off."""
    inner = text.strip().removesuffix("```").rstrip()
    opening = _FENCE.match(inner)
    return inner[opening.end() :].lstrip() if opening else inner


def _read(text: str, at: int, reply: str) -> tuple[Answer, int]:
    """The answer that begins at `at`, and where it ends."""
    if text[at] == "[":
        return _read_array(text, at, reply)
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        inner = _LIST_IN_OBJECT.match(text, at)
        if inner is None:
            raise _malformed(text, at, reply) from error
        return _read_array(text, inner.end(), reply)
    return Answer(value), end


def _read_array(text: str, at: int, reply: str) -> tuple[Answer, int]:
    """The array that begins at `at`; where the text ends inside of it, the items that came whole."""
    items: list[object] = []
    at = _next(text, at + 1)
    while text[at : at + 1] != "]":
        try:
            item, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if not items or text.find("}", at) >= 0:  # an object that ends is not cut off, it is wrong
                raise _malformed(text, at, reply) from error
            return Answer(items, cut_off=True), len(text)
        items.append(item)
        at = _next(text, at)
        if at >= len(text):
            return Answer(items, cut_off=True), at
        if text[at] not in ",]":
            raise unreadable("holds broken JSON", reply)
        at = _next(text, at + 1) if text[at] == "," else at
    return Answer(items), at + 1


def _next(text: str, at: int) -> int:
    """The next character that is not white space; the text's length where there is none."""
    space = _JSON_SPACE.match(text, at)
    return space.end() if space else at


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose doubtful keys (twice there, with different values) hold None."""
    read: dict[str, object] = {}
    for key, value in pairs:
        read[key] = value if read.get(key, value) == value else None
    return read


def _malformed(text: str, at: int, reply: str) -> ReplyError:
    if text.find("}", at) < 0:
        return unreadable("breaks off before its first object ends", reply)
    return unreadable("holds broken JSON", reply)


# strict=False: a line break inside of a title is harmless, and models write it.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, strict=False)
