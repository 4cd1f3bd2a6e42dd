"""What a model said, as our types.

A time is read or refused, never repaired: a guessed time would become a wrong clip. What a number means is told by
its name alone (`first_sentence`, `start_time`), never by its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moments_core import reply_fields as fields
from moments_core.json_in_text import json_answers, unreadable
from moments_core.moment import Moment
from moments_core.numbered import Window
from moments_core.time import Span
from moments_core.transcript import Sentence

MAX_ITEMS = 1_000  # objects in one reply; Options.max_moments asks for no more
NEUTRAL_SCORE = 0.5  # of a moment that came without one: it ranks moments and moves no time

# The first pair is the schema's, the others are what models write that were told no schema.
SENTENCE_KEYS = (("first_sentence", "last_sentence"), ("start_sentence", "end_sentence"))
TIME_KEYS = (("start_time", "end_time"), ("start_seconds", "end_seconds"), ("startTime", "endTime"))
BARE_KEYS = ("start", "end")


@dataclass(frozen=True, slots=True)
class ReadMoments:
    """The moments of one reply in its own order, and what is to be known about the rest of it.

    `refused` holds a reason for each moment that could not be used; `unscored` counts those that came without a
    readable score; `cut_off` says that the reply broke off behind the last of these moments.
    """

    moments: tuple[Moment, ...]
    refused: tuple[str, ...] = ()
    unscored: int = 0
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Start and end as a model gave them, in milliseconds of its clip; anything can be wrong with them."""

    start_ms: int
    end_ms: int


class _RefusedError(Exception):
    """One object of a reply can't be used; the message says why, as in "2 of them MESSAGE"."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the model was shown, and so all that it may speak of."""

    sentences: Sequence[Sentence]
    window: Window
    duration_ms: int


def read_moments(reply: str, *, sentences: Sequence[Sentence], window: Window, duration_ms: int) -> ReadMoments:
    """The moments that a model found in `window` of a video's sentences.

    An empty array is an answer: no moments. Raises ReplyError where nothing can be read, also where moments are
    there and none of them can be used.
    """
    shown = _Shown(sentences, window, duration_ms)
    lists = _lists(reply)
    if max(len(items) for items, _ in lists) > MAX_ITEMS:
        raise unreadable(f"holds more than {MAX_ITEMS:,} moments", reply)
    # Some models give their answer, then again in a fence: what reads the same is one answer.
    read = {_read(items, shown, cut_off=cut_off) for items, cut_off in lists}
    if len(read) > 1:
        raise unreadable(f"holds {len(read)} different answers", reply)
    (answer,) = read
    if answer.refused and not answer.moments:
        raise unreadable(f"has no usable moment ({refusals(answer.refused)})", reply)
    return answer


def read_boundaries(reply: str) -> Boundaries:
    """The boundaries that a model gave in a clip's own time. Raises ReplyError where there are none, or several."""
    found = [item for answer in json_answers(reply) for item in _listed(answer.value) if isinstance(item, Mapping)]
    read = {boundaries for item in found if (boundaries := _boundaries(item)) is not None}
    if len(read) != 1:
        raise unreadable(f"holds {len(read)} pairs of times instead of one" if read else "holds no times", reply)
    return read.pop()


def refusals(reasons: Sequence[str]) -> str:
    """`2 end before they start, 1 has no title`: how many were refused, and why."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(reasons).items()))


def _lists(reply: str) -> list[tuple[Sequence[object], bool]]:
    """Each list of moments in a reply, and whether it was cut off; never an empty list."""
    answers = json_answers(reply)
    lists = [(_listed(answer.value), answer.cut_off) for answer in answers if _is_list_of_moments(answer.value)]
    loose = [answer.value for answer in answers if _is_moment(answer.value)]
    if loose:  # one object where an array was asked for, or one object a line
        lists.append((loose, False))
    if not lists:
        raise unreadable("holds no moments", reply)
    return lists


def _read(items: Sequence[object], shown: _Shown, *, cut_off: bool) -> ReadMoments:
    """What can be used of one list of moments; of two with the same span the first."""
    moments: dict[Span, Moment] = {}
    refused: list[str] = []
    unscored = 0
    for item in items:
        try:
            moment, is_scored = _moment(item, shown)
        except _RefusedError as why:
            refused.append(str(why))
        else:
            moments.setdefault(moment.span, moment)
            unscored += not is_scored
    return ReadMoments(tuple(moments.values()), tuple(refused), unscored, cut_off)


def _listed(value: object) -> Sequence[object]:
    """The items of an array, of the only array in an object, or the object itself."""
    if isinstance(value, list):
        return value
    inner = _wrapped(value)
    return [value] if inner is None else inner


def _wrapped(value: object) -> list[object] | None:
    """The list in `{"moments": […]}`; any name will do where it is alone."""
    if not isinstance(value, Mapping):
        return None
    inner = value["moments"] if "moments" in value else next(iter(value.values())) if len(value) == 1 else None
    if isinstance(inner, Mapping):
        return [inner] if _is_moment(inner) else None
    return inner if isinstance(inner, list) else None


def _is_list_of_moments(value: object) -> bool:
    items = value if isinstance(value, list) else _wrapped(value)
    return items is not None and (not items or any(isinstance(item, Mapping) for item in items))


def _is_moment(value: object) -> bool:
    """Whether an object means to be a moment, by its keys."""
    return isinstance(value, Mapping) and any(
        value.keys() >= set(pair) for pair in (*SENTENCE_KEYS, *TIME_KEYS, BARE_KEYS)
    )


def _moment(item: object, shown: _Shown) -> tuple[Moment, bool]:
    """The moment, and whether it came with a score. Raises _RefusedError saying why not."""
    if not isinstance(item, Mapping):
        raise _RefusedError("that are no objects")
    span = _span(item, shown)
    title = fields.title(item.get("title"))
    if title is None:
        raise _RefusedError("without a title")
    score = fields.score(item.get("score"))
    return Moment(span, title, NEUTRAL_SCORE if score is None else score), score is not None


def _span(item: Mapping[str, object], shown: _Shown) -> Span:
    for first, last in SENTENCE_KEYS:
        if first in item and last in item:
            return _span_of_sentences(fields.sentence_number(item[first]), fields.sentence_number(item[last]), shown)
    boundaries = _boundaries(item)
    if boundaries is None:
        raise _RefusedError("without readable sentence numbers or times")
    return _span_in_time(boundaries, shown)


def _span_of_sentences(first: int | None, last: int | None, shown: _Shown) -> Span:
    if first is None or last is None:
        raise _RefusedError("without readable sentence numbers or times")
    if first not in shown.window or last not in shown.window:
        raise _RefusedError("with sentences that were not shown")
    if last < first:
        raise _RefusedError("with an end before its start")
    of_it = Window(first, last).of(shown.sentences)
    span = Span(of_it[0].start_ms, max(sentence.end_ms for sentence in of_it)).clamped(Span(0, shown.duration_ms))
    if span is None:  # the transcript is longer than its video
        raise _RefusedError("outside of the video")
    return span


def _span_in_time(given: Boundaries, shown: _Shown) -> Span:
    if given.end_ms <= given.start_ms:
        raise _RefusedError("with an end before its start")
    if given.start_ms < 0 or given.end_ms > shown.duration_ms:
        raise _RefusedError("outside of the video")
    span = Span(given.start_ms, given.end_ms)
    if not shown.window.span(shown.sentences, shown.duration_ms).contains(span):
        raise _RefusedError("at times that were not shown")
    return span


def _boundaries(item: Mapping[str, object]) -> Boundaries | None:
    """Start and end in time. A bare `start` and `end` count where one of them can be nothing but a time.

    `{"start": 3, "end": 12}` may mean sentences as well as seconds, so it means nothing.
    """
    pairs = [pair for pair in TIME_KEYS if pair[0] in item and pair[1] in item]
    if not pairs and all(key in item for key in BARE_KEYS) and any(fields.is_time(item[key]) for key in BARE_KEYS):
        pairs = [BARE_KEYS]
    if not pairs:
        return None
    start, end = (fields.time_ms(item[key]) for key in pairs[0])
    return None if start is None or end is None else Boundaries(start, end)
