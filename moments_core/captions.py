"""Captions as a transcript: what was said, without the sounds that are only described, and who began when."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Literal

from moments_core.cues import Cue, Token, longest_ms, parse_captions
from moments_core.sentences import ordered_words, pacing_of, sentences_from_words
from moments_core.transcript import Transcript, TranscriptSource, Word

__all__ = ["Cue", "Token", "parse_captions", "transcript_from_captions"]

_LANGUAGE = re.compile(r"^Language:[ \t]*([A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3})[ \t]*$", re.MULTILINE)
_NOTES = "♪♫♬♩"
_MARKS = ".,:;!?-–—*\"'"
_BRACKETS = {"[": "]", "(": ")", "（": "）", "【": "】", "［": "］"}
_ALL_BRACKETS = "".join(_BRACKETS) + "".join(_BRACKETS.values())
_STOPS = tuple("?!.…;:»")
MOST_BRACKETED = 12  # words in one bracket; a bracket that never closes is not searched for its end
# fmt: off
_SOUNDS = frozenset((
    "applause", "applauding", "audience", "beep", "beeping", "blank_audio", "bells", "cheering", "cheers", "chatter",
    "chuckles", "chuckling", "clapping", "coughing", "coughs", "crosstalk", "exhales", "gasps", "giggles",
    "inaudible", "indistinct", "inhales", "instrumental", "laughing", "laughs", "laughter", "music", "musik",
    "musique", "música", "noise", "ringing", "sighing", "sighs", "silence", "singing", "snorts", "static",
    "unintelligible", "__",
))
# fmt: on


def transcript_from_captions(
    text: str, *, language: str | None, source: TranscriptSource, model: str, duration_ms: int
) -> Transcript:
    """What captions say, as a transcript inside [0, duration_ms) milliseconds.

    Word times are measured where the file stamps its words (automatic captions do), else spread over each cue by
    the number of letters. Sentences run across cues. Sounds that are described and not spoken are left out; where
    nothing else is there, `source` becomes NONE. `language` defaults to the one that the file names.

    Raises MediaError as `parse_captions` does.
    """
    cues = [(cue, said) for cue in parse_captions(text) if (said := _spoken(cue.tokens))]
    tokens = [token for _, said in cues for token in said]
    words = ordered_words((word for cue, said in cues for word in _timed(cue, said)), duration_ms=duration_ms)
    stamped = sum(any(token.at_ms is not None for token in said) for _, said in cues)
    timing: Literal["measured", "interpolated"] = "measured" if stamped * 2 > len(cues) else "interpolated"
    pacing = pacing_of(words)
    named = _LANGUAGE.search(text[:1000])
    return Transcript(
        language=language or (named[1] if named else None),
        source=source if words else TranscriptSource.NONE,
        model=model,
        word_timing=timing if words else "none",
        words=words,
        sentences=tuple(
            sentence
            for speaker, is_new, said in _turns(zip(tokens, words, strict=False))  # words may end with the video
            for sentence in sentences_from_words(said, pacing=pacing, speaker=speaker, turn_start=is_new)
        ),
    )


def _spoken(tokens: Sequence[Token]) -> list[Token]:
    """The words of a cue: no "[Music]", "(applause)" or "♪". A bracket within speech stays, unless it names a sound."""
    groups = list(_groups(tokens))
    speaks = any(not is_bracket and any(map(_has_letters, group)) for group, is_bracket in groups)
    said: list[Token] = []
    turn = False  # a mark before a dropped sound is of the word after it
    for group, is_bracket in groups:
        is_said = not is_bracket or (speaks and not _names_sound(group))
        for token in group:
            text, turn = token.text.strip(_NOTES), turn or token.turn
            if is_said and _has_letters(token):
                as_is = text == token.text and turn == token.turn
                said.append(token if as_is else replace(token, text=text, turn=turn))
                turn = False
            elif is_said and said and text.startswith(_STOPS):
                said[-1] = replace(said[-1], text=f"{said[-1].text} {text}")  # French sets "?" apart
    return said


def _groups(tokens: Sequence[Token]) -> Iterator[tuple[Sequence[Token], bool]]:
    """The tokens in order, cut into bracketed groups (True) and single others (False)."""
    at = 0
    while at < len(tokens):
        closing = _BRACKETS.get(tokens[at].text.lstrip(_MARKS)[:1])
        window = range(at, min(at + MOST_BRACKETED, len(tokens))) if closing else ()
        end = next((i + 1 for i in window if closing and tokens[i].text.rstrip(_MARKS).endswith(closing)), None)
        yield tokens[at : end or at + 1], end is not None
        at = end or at + 1


def _has_letters(token: Token) -> bool:
    return any(map(str.isalnum, token.text))


def _names_sound(group: Sequence[Token]) -> bool:
    """ "[soft music]" does; an aside of more than three words is speech, "(despite all the noise)"."""
    is_short = sum(map(_has_letters, group)) <= 3
    return is_short and any(token.text.strip(_MARKS + _ALL_BRACKETS).lower() in _SOUNDS for token in group)


def _timed(cue: Cue, said: Sequence[Token]) -> Iterator[Word]:
    """Words over the cue: between two known times each gets its share by letters."""
    anchors = list(_anchors(cue, said))
    for (first, start_ms), (end, end_ms) in pairwise(anchors):
        part = said[first:end]
        letters = [0, *accumulate(len(token.text) for token in part)]
        edges = [start_ms + (end_ms - start_ms) * count // letters[-1] for count in letters]
        for token, (begins, ends) in zip(part, pairwise(edges), strict=True):
            latest = begins + longest_ms(token.text) if len(anchors) > 2 else ends
            yield Word(start_ms=begins, end_ms=max(min(ends, latest), begins + 1), text=token.text)


def _anchors(cue: Cue, said: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """(index of a token, its start in ms) where that is known, and the end. A stamp that runs backwards is not."""
    yield 0, cue.start_ms
    latest = cue.start_ms
    for index, token in enumerate(said[1:], start=1):
        if token.at_ms is not None and latest < token.at_ms < cue.end_ms:
            latest = token.at_ms
            yield index, latest
    yield len(said), cue.end_ms


def _turns(said: Iterable[tuple[Token, Word]]) -> Iterator[tuple[str | None, bool, list[Word]]]:
    """(speaker, whether a turn is marked here, words) of each turn. A name holds until the next mark."""
    speaker: str | None = None
    is_new = False
    words: list[Word] = []
    for token, word in said:
        if token.turn or token.speaker not in (None, speaker):
            if words:
                yield speaker, is_new, words
            speaker, is_new, words = token.speaker, True, []
        words.append(word)
    if words:
        yield speaker, is_new, words
