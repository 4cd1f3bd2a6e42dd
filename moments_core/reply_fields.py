"""Single values of a model's reply: a sentence's number, a time, a score, a title. None where it can't be read."""

from __future__ import annotations

import re

from moments_core.moment import MAX_TITLE_LENGTH
from moments_core.plain_text import one_line, shortened
from moments_core.time import to_ms

_LARGEST = 1e6  # seconds, eleven days; also keeps ints that no float can hold out of the arithmetic
_WHOLE = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|sec|secs|seconds?)?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:([0-9]{1,3}):([0-5]?[0-9])|([0-9]{1,3})):([0-5][0-9](?:[.,][0-9]{1,6})?)")


def number(value: object) -> float | None:
    """A number of JSON within a million; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_LARGEST <= value <= _LARGEST else None  # NaN is in no range


def sentence_number(value: object) -> int | None:
    """12, 12.0 or "12"."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value.strip()) else None
    read = number(value)
    return int(read) if read is not None and read.is_integer() else None


def time_ms(value: object) -> int | None:
    """Milliseconds of 12.5, "12.5", "12.5 s", "1:12.5" or "1:01:12,500"; may be negative, within eleven days."""
    seconds = number(_seconds_of(value) if isinstance(value, str) else value)
    return None if seconds is None else to_ms(seconds)


def _seconds_of(text: str) -> float | None:
    if plain := _SECONDS.fullmatch(text.strip()):
        return float(plain[1])
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        return None
    hours, minutes_of_hour, minutes, seconds = clock.groups(default="0")
    return int(hours) * 3600 + (int(minutes_of_hour) + int(minutes)) * 60 + float(seconds.replace(",", "."))


def is_time(value: object) -> bool:
    """Whether a value can only be a time, never a sentence's number: "1:12", "12 s", 12.5."""
    if isinstance(value, str):
        plain = _SECONDS.fullmatch(value.strip())
        return time_ms(value) is not None and (plain is None or bool(plain[2]) or "." in plain[1])
    return isinstance(value, float) and not value.is_integer()


def score(value: object) -> float | None:
    """A number in 0..1, also as text."""
    if isinstance(value, str):
        plain = _SECONDS.fullmatch(value.strip())
        value = float(plain[1]) if plain and not plain[2] else None
    read = number(value)
    return read if read is not None and 0 <= read <= 1 else None


def title(value: object) -> str | None:
    """A title as people may read it: one line, no unseen characters, at most 120 characters."""
    if not isinstance(value, str):
        return None
    seen = one_line(value)
    return shortened(seen, MAX_TITLE_LENGTH) or None
