"""Cues of caption files: WebVTT and SubRip as they are found."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from moments_core.errors import MediaError

MOST_CHARS = 64 * 1024 * 1024  # a day of speech is 1 MB of text; word stamps multiply it by ten at most
MOST_CUES = 200_000  # a cue every half second of a whole day, rounded up
TOUCHING_MS = 1_000  # a line can only roll up while it is shown; players leave no wider gap between two cues

_TIME = r"(?:(\d{1,4}):)?(\d{1,3}):(\d{1,2})(?:[.,](\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-{{1,3}}>\s*{_TIME}(?=\s|$)")
_COMMENT = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff\ud800-\udfff]")
_STYLE = re.compile(r"<(?:/|(?!v[.\s>]))[A-Za-z][^<>]*>|\{\\[^{}]*\}")  # {\an8} is of another format, but SubRip has it
_TAG = re.compile(rf"<(?:v(?:\.[^\s<>]*)?(?P<voice>(?:\s[^<>]*)?)|{_TIME})>")
_TURN = re.compile(
    r"(?:(?<!\S)>>+|(?:&gt;){2,})\s*(?:([A-Z][A-Z0-9 .'-]{0,39}):(?=\s))?"  # broadcast: a new speaker, seldom named
    r"|^\s*[-–]\s*(?=[^\W\d])"  # dialogue: a dash before each line
)
_TOKEN = re.compile(r"[^\s。！？]+[。！？]*|[。！？]+")  # scripts without spaces part at their full stops


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a cue as written. `at_ms`: its own time, where the file stamps it. `turn`: a new speaker begins."""

    text: str
    at_ms: int | None = None
    speaker: str | None = None
    turn: bool = False


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown over [start_ms, end_ms): lines of tokens, without markup."""

    start_ms: int
    end_ms: int
    lines: tuple[tuple[Token, ...], ...]

    @property
    def tokens(self) -> tuple[Token, ...]:
        return tuple(token for line in self.lines for token in line)

    @property
    def text(self) -> str:
        return " ".join(token.text for token in self.tokens)


def parse_captions(text: str) -> list[Cue]:
    """The cues of a WebVTT or SubRip file in time order; none over another, each with what it says for the first time.

    Reads what players read: any line break, times without hours, a comma or a point, junk between the cues.

    Raises MediaError for text that isn't captions, and for more than 200,000 cues or 64 Mi characters.
    """
    if len(text) > MOST_CHARS:
        raise MediaError("The captions hold over 64 million characters: give those of one video.", characters=len(text))
    lines = re.split(r"\r\n|\n|\r", _UNSEEN.sub("", text))
    timings = list(_timing_lines(lines))
    if not timings and not lines[0].startswith("WEBVTT"):
        raise MediaError(
            "This isn't captions: it has no line like '00:00:01.000 --> 00:00:02.000'; give a .vtt or .srt file.",
            begins_with=text[:40],
        )
    if len(timings) > MOST_CUES:
        raise MediaError("The file holds over 200,000 captions: give those of one video.", cues=len(timings))
    ends = [*(at for at, _ in timings), len(lines)][1:]
    cues = (_cue(match, lines[at + 1 : end], end < len(lines)) for (at, match), end in zip(timings, ends, strict=True))
    return _said_once(_one_at_a_time(cue for cue in cues if cue.lines))


def _timing_lines(lines: Sequence[str]) -> Iterator[tuple[int, re.Match[str]]]:
    """Index and match of each timing line; not those that an author commented out."""
    above, in_comment = "", False
    for at, raw in enumerate(lines):
        line = raw.strip()
        in_comment = bool(line) and (in_comment or (not above and _COMMENT.match(line) is not None))
        if "->" in line and not in_comment and (match := _TIMING.match(line)):
            yield at, match
        above = line


def _cue(timing: re.Match[str], below: Sequence[str], cue_follows: bool) -> Cue:
    """`below` are the lines up to the next timing line, with the number or name of that cue, if it has one.

    The text ends at the first blank line; blank lines above it don't count, for automatic captions begin so.
    """
    text = [line.strip() for line in below]
    if cue_follows and len(text) > 1 and (not text[-2] or text[-1].isdecimal()):
        text.pop()
    first = next((index for index, line in enumerate(text) if line), len(text))
    if first and first < len(text) and _COMMENT.match(text[first]):
        first = len(text)
    last = next((index for index in range(first, len(text)) if not text[index]), len(text))
    start, end = _ms(timing.groups()[:4]), _ms(timing.groups()[4:])
    return Cue(start, end, tuple(line for line in _read(text[first:last]) if line))


def _ms(fields: Sequence[str | None]) -> int:
    hours, minutes, seconds, fraction = (field or "0" for field in fields)
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0")[:3])


def _read(lines: Iterable[str]) -> Iterator[tuple[Token, ...]]:
    reader = _Reader()
    for line in lines:
        plain = _STYLE.sub("", line)
        yield tuple(reader.tokens(_TURN.sub(lambda found: f"<v {found[1] or ''}>", plain)))


@dataclass(slots=True)
class _Reader:
    """Reads the stamps and voices of one cue: what a tag says holds from there on, in the next line too."""

    at_ms: int | None = None
    speaker: str | None = None
    turn: bool = False

    def tokens(self, line: str) -> Iterator[Token]:
        read_to = 0
        for tag in _TAG.finditer(line):
            yield from self._words(line[read_to : tag.start()])
            read_to = tag.end()
            self._take(tag)
        yield from self._words(line[read_to:])

    def _take(self, tag: re.Match[str]) -> None:
        voice, *time = tag.groups()
        if voice is None:
            self.at_ms = _ms(time)
        else:
            self.speaker = " ".join(html.unescape(voice).split()) or None
            self.turn = self.speaker is None

    def _words(self, text: str) -> Iterator[Token]:
        shown = _UNSEEN.sub("", html.unescape(text)) if "&" in text else text
        for found in _TOKEN.findall(shown):
            yield Token(found, self.at_ms, self.speaker, self.turn)
            self.at_ms, self.turn = None, False


def _one_at_a_time(cues: Iterable[Cue]) -> list[Cue]:
    """By start; one that is still shown when the next begins ends there, and those that begin together are one."""
    by_start = sorted(cues, key=_start_ms)
    together = [_merged(list(same)) for _, same in groupby(by_start, key=_start_ms)]
    shortened = [replace(cue, end_ms=min(_end_ms(cue), following.start_ms)) for cue, following in pairwise(together)]
    return [*shortened, *(replace(cue, end_ms=_end_ms(cue)) for cue in together[-1:])]


def _start_ms(cue: Cue) -> int:
    return cue.start_ms


def _merged(cues: list[Cue]) -> Cue:
    if len(cues) == 1:
        return cues[0]
    distinct = {cue.text: cue for cue in cues}.values()
    lines = tuple(line for cue in distinct for line in cue.lines)
    return Cue(cues[0].start_ms, max(cue.end_ms for cue in cues), lines)


def _end_ms(cue: Cue) -> int:
    """A cue that doesn't last at all gets the time that its text takes to say."""
    return cue.end_ms if cue.end_ms > cue.start_ms else cue.start_ms + longest_ms(cue.text)


def longest_ms(text: str) -> int:
    """How long `text` can take to say: 8 letters a second (15 are usual) after a quarter of a second."""
    return 250 + 120 * len(text)


def _said_once(cues: list[Cue]) -> list[Cue]:
    """Without the lines that only roll up: automatic captions show each line in two or three cues.

    Only where that is the file's habit, a quarter of its cues; people do say "No." twice.
    """
    known = [0, *(_rolled(before, after) for before, after in pairwise(cues))]
    rolling = sum(count > 0 for count in known)
    is_stamped = any(token.at_ms is not None for cue in cues for token in cue.tokens)
    if rolling * 4 < len(cues) or not (rolling >= 3 or is_stamped):
        return cues
    return [replace(cue, lines=(new,)) for cue, count in zip(cues, known, strict=True) if (new := cue.tokens[count:])]


def _rolled(before: Cue, after: Cue) -> int:
    """How many tokens of `after` were still shown by `before`: its last lines, the very last perhaps grown since."""
    if after.start_ms - before.end_ms > TOUCHING_MS:
        return 0
    old, new = ([[token.text for token in line] for line in lines] for lines in (before.lines[-4:], after.lines[:4]))
    for first in range(len(old)):
        shown = old[first:]
        whole = len(shown) - 1
        if whole < len(new) and shown[:whole] == new[:whole] and new[whole][: len(shown[whole])] == shown[whole]:
            return sum(map(len, shown))
    return 0
