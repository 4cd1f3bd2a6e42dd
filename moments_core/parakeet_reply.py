"""What a Parakeet server says of one chunk of sound, read as words with their times; refused where it can't be right.

    {"transcription": "…", "word_timestamps": [{"word", "start", "end"}, …],
     "segment_timestamps": [{"text", "start", "end"}, …], "processing_time": 0.4}

Times are seconds from the chunk's start. A server without word times but with segments is read too, its words spread
over each segment by their letters, as captions are. Text without any time is refused: a guessed time would become a
wrong clip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, Never

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from moments_core.errors import ReplyError, ServiceError
from moments_core.heard import HeardWord, Timing, forward
from moments_core.scrubbing import scrubbed
from moments_core.time import to_ms

FRAME_MS = 80  # what Parakeet tells apart in time; a word of no length lasts one
SLACK_MS = 500  # a word at a chunk's edge may lie some frames outside of it: servers pad the sound to whole frames
MOST_CHARS = 8_000_000  # five minutes of speech with the times of words and letters come to half a megabyte
MOST_WORDS_A_SECOND = 25  # nobody speaks ten
MOST_SECONDS = 1e6  # eleven days; 1e308 is a finite float too, but its milliseconds are none

_UNSEEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufeff]+")  # PostgreSQL stores no NUL and no half of a surrogate pair


@dataclass(frozen=True, slots=True)
class HeardSpeech:
    """The words of one chunk in the order spoken, times from its start, all inside of it."""

    words: tuple[HeardWord, ...]
    timing: Timing = "measured"


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a time must be a number")  # noqa: TRY004 - pydantic turns a ValueError alone into its own
    return value


Seconds = Annotated[FiniteFloat, BeforeValidator(_no_bool), Field(ge=-MOST_SECONDS, le=MOST_SECONDS)]


class _Timed(BaseModel):
    start: Seconds
    end: Seconds


class _Word(_Timed):
    text: str = Field(validation_alias="word")


class _Segment(_Timed):
    text: str = Field(validation_alias=AliasChoices("text", "segment"))  # NeMo itself says "segment"


class _Reply(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    transcription: str | None = None
    word_timestamps: list[_Word] | None = None
    segment_timestamps: list[_Segment] | None = None


def parse_parakeet(body: str, *, length_ms: int) -> HeardSpeech:
    """The words of a reply to a chunk of `length_ms`; none where nothing was said.

    Raises ServiceError for what is no transcription at all (half a reply, an error's object), which may go well again,
    and ReplyError for one whose times can't be: none, not finite, backwards, or more than half a second outside of
    the chunk. Evidence: the reply's beginning, scrubbed.
    """
    reply = _read(body)
    words = [word for word in reply.word_timestamps or () if _tokens(word.text)]
    segments = [segment for segment in reply.segment_timestamps or () if _tokens(segment.text)]
    timed = sum(len(_tokens(word.text)) for word in words)
    if not words and segments:
        return HeardSpeech(_inside(_spread(segments), body, length_ms), "interpolated")
    if len(_tokens(reply.transcription or "")) > 2 * timed:
        _refuse("gives text without the times of its words: start it with timestamps", body)
    return HeardSpeech(_inside(_spelled(words, segments), body, length_ms))


def _read(body: str) -> _Reply:
    if len(body) > MOST_CHARS:
        _refuse(f"answered with {len(body):,} characters for a few minutes of sound: look at its log", body)
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        if not where:  # no JSON, or no object
            raise _no_transcription(body) from None
        _refuse(f"answered with something that can't be read ({where}: {fault['msg']}): look at its log", body)
    if reply.transcription is None and reply.word_timestamps is None and reply.segment_timestamps is None:
        raise _no_transcription(body)
    return reply


def _no_transcription(body: str) -> ServiceError:
    # A server that is out of memory says so with status 200; one that dies leaves half a reply.
    sentence = (
        "The speech server answered with something else than a transcription: look at its log, then run this again."
    )
    return ServiceError(sentence, reply=scrubbed(body))


def _inside(heard: Sequence[HeardWord], body: str, length_ms: int) -> tuple[HeardWord, ...]:
    """The words, moved into the chunk by a few frames where they stick out of it. Refuses what can't be right."""
    if len(heard) * 1000 > MOST_WORDS_A_SECOND * max(length_ms, 10_000):
        _refuse(f"heard {len(heard):,} words in {length_ms / 1000:.0f} s: look at its log", body)
    latest_ms = 0
    for word in heard:
        if not -SLACK_MS <= word.start_ms <= word.end_ms <= length_ms + SLACK_MS:
            span = f"{word.start_ms / 1000:.6g}–{word.end_ms / 1000:.6g} s"
            _refuse(f"put a word at {span} of {length_ms / 1000:.6g} s of sound: look at its log", body)
        if word.start_ms < latest_ms - SLACK_MS:
            _refuse(f"put words out of order, at {word.start_ms / 1000:.6g} s: look at its log", body)
        latest_ms = max(latest_ms, word.start_ms)
    return tuple(forward(_clamped(word, length_ms) for word in heard))


def _clamped(word: HeardWord, length_ms: int) -> HeardWord:
    start_ms = min(max(word.start_ms, 0), max(length_ms - FRAME_MS, 0))
    end_ms = word.end_ms if word.end_ms > word.start_ms else start_ms + FRAME_MS
    return HeardWord(start_ms, min(max(end_ms, start_ms + 1), length_ms), word.text, word.ends_segment)


def _spelled(words: Sequence[_Word], segments: Sequence[_Segment]) -> list[HeardWord]:
    """The words; where the segments say the same words in the same order, they tell where sentences end."""
    heard = [HeardWord(to_ms(word.start), to_ms(word.end), " ".join(_tokens(word.text))) for word in words]
    by_segment = [_tokens(segment.text) for segment in segments]
    told = [token for tokens in by_segment for token in tokens]
    if 2 * len(by_segment) > len(words) or [word.text for word in heard] != told:
        return heard
    ends = set(accumulate(len(tokens) for tokens in by_segment))
    return [
        HeardWord(word.start_ms, word.end_ms, word.text, ends_segment=at in ends)
        for at, word in enumerate(heard, start=1)
    ]


def _spread(segments: Sequence[_Segment]) -> list[HeardWord]:
    return [word for segment in segments for word in _over(segment)]


def _over(segment: _Segment) -> Iterator[HeardWord]:
    tokens, start_ms = _tokens(segment.text), to_ms(segment.start)
    letters = [0, *accumulate(len(token) for token in tokens)]
    edges = [start_ms + (to_ms(segment.end) - start_ms) * count // letters[-1] for count in letters]
    for at, (token, (begins, ends)) in enumerate(zip(tokens, pairwise(edges), strict=True), start=1):
        yield HeardWord(begins, ends, token, ends_segment=at == len(tokens))


def _tokens(text: str) -> list[str]:
    return _UNSEEN.sub(" ", text).split()


def _refuse(says: str, body: str) -> Never:
    raise ReplyError(f"The speech server {says}.", reply=scrubbed(body))
