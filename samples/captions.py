"""Captions of the sample: one cue a sentence, two where it would not fit in two lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moments_core.errors import CheckError
from moments_core.time import Span
from samples.speech import Line, share_of

LINE_LENGTH = 42  # characters; the usual limit for subtitles, as is two lines a cue
CUE_LENGTH = 2 * LINE_LENGTH
CLAUSE_BONUS = 12  # a break after a comma may lie this many characters further from the middle than another


@dataclass(frozen=True, slots=True)
class Cue:
    """A caption of one or two lines, and when it is shown."""

    span: Span
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.lines)


def cues(lines: Iterable[Line]) -> list[Cue]:
    """The captions of all sentences, in time order."""
    return [cue for line in lines for cue in _cues_of(line)]


def _cues_of(line: Line) -> list[Cue]:
    if lines := _wrapped(line.text):
        return [Cue(line.span, lines)]
    first, second = _halves(line.text, CUE_LENGTH)
    middle = line.span.start_ms + round(share_of(first, second) * line.span.length_ms)
    return [_cue(Span(line.span.start_ms, middle), first), _cue(Span(middle, line.span.end_ms), second)]


def _cue(span: Span, text: str) -> Cue:
    lines = _wrapped(text)
    if not lines:
        raise CheckError("A sentence of the talk fills more than two captions: make it two sentences.", text=text)
    return Cue(span, lines)


def _wrapped(text: str) -> tuple[str, ...]:
    """The text in one line or two lines of about even length; empty where two lines can't hold it."""
    lines = (text,) if len(text) <= LINE_LENGTH else _halves(text, LINE_LENGTH)
    return lines if max(map(len, lines)) <= LINE_LENGTH else ()


def _halves(text: str, limit: int) -> tuple[str, str]:
    """Cut between two words near the middle, after a comma if one is there and leaves no part over `limit`."""
    spaces = [index for index, character in enumerate(text) if character == " "]
    cut = min(spaces, key=lambda space: _badness(text, space, limit))
    return text[:cut], text[cut + 1 :]


def _badness(text: str, space: int, limit: int) -> int:
    distance = abs(2 * space - len(text))  # twice the way to the middle, in characters
    ends_clause = text[space - 1] in ",;:" and max(space, len(text) - space - 1) <= limit
    return distance - (2 * CLAUSE_BONUS if ends_clause else 0)


def as_srt(captions: Iterable[Cue]) -> str:
    """The captions as an SRT file, for ffmpeg to put into the video."""
    return "\n".join(
        f"{number}\n{_stamp(cue.span.start_ms)} --> {_stamp(cue.span.end_ms)}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(captions, start=1)
    )


def _stamp(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{ms:03}"
