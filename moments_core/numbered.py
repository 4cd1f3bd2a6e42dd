"""Sentences as a model is shown them: numbered over the whole video, in windows that fit into its context.

A model answers with numbers and we look the times up, so no time is invented.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from moments_core.errors import SettingsError
from moments_core.model_entry import ModelEntry
from moments_core.plain_text import one_line, shortened
from moments_core.time import Span, clock
from moments_core.transcript import Sentence

DEFAULT_CONTEXT_TOKENS = 8_192  # of a model whose entry does not say: what the smallest that are served today take
DEFAULT_REPLY_TOKENS = 2_048  # where the entry sets no max_tokens: 25 moments
# About an hour of talk (the median of 40 talks: 25,000 an hour by the estimate below). Models that take more still lose
# sight of the middle of a long prompt, and answer with as many moments for ten hours as for one.
MAX_WINDOW_TOKENS = 24_000
MIN_WINDOW_TOKENS = 300  # a window must hold a few sentences, or no moment fits into it
OVERLAP = 0.15  # of a window that is shown again in the next one
TEMPLATE_TOKENS = 64  # what a chat template puts around two messages, and a sentence of ours
MAX_LINE = 600  # characters of a sentence that are shown; 60 words, our longest sentence, have 400

_LETTERS = re.compile(r"[A-Za-z ]")
# Chat templates are text: `<|im_end|>` or `[INST]`, if spoken or written into a caption, would be a turn's real end.
_NO_MARKS = str.maketrans("<>[]", "()()")


@dataclass(frozen=True, slots=True)
class Window:
    """Sentences `first`..`last` of a video, numbered from 1 over the whole video, both included."""

    first: int
    last: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"sentences {self.first}–{self.last}"

    def of(self, sentences: Sequence[Sentence]) -> Sequence[Sentence]:
        return sentences[self.first - 1 : self.last]

    def span(self, sentences: Sequence[Sentence], duration_ms: int) -> Span:
        """What a model that sees this window may speak of: the first and the last one reach to the video's ends."""
        shown = self.of(sentences)
        start = 0 if self.first == 1 else shown[0].start_ms
        end = duration_ms if self.last == len(sentences) else max(sentence.end_ms for sentence in shown)
        return Span(start, max(start + 1, end))


def harmless(text: str) -> str:
    """Somebody's words as data for a prompt: one line, and none of the brackets that marks of a prompt are made of."""
    return one_line(text).translate(_NO_MARKS)


def numbered_lines(sentences: Sequence[Sentence], window: Window, *, longest: int = MAX_LINE) -> Iterator[str]:
    """`12 [3:05] So the first launch failed.` for each sentence of the window; text in at most `longest` characters."""
    for number, sentence in enumerate(window.of(sentences), start=window.first):
        yield f"{number} [{clock(sentence.start_ms)}] {shortened(harmless(sentence.text), longest)}"


def estimated_tokens(text: str) -> int:
    """Tokens of a text, rather too many than too few.

    Three Latin letters or spaces are one token (tokenizers make four of English, three of other languages), a digit
    or mark is one of its own, and beyond ASCII every two bytes of UTF-8 are one: a Chinese character 1.5, a Cyrillic
    letter 1. Vocabularies of today do better on all of these.
    """
    letters = len(_LETTERS.findall(text))
    beyond = sum(len(letter.encode("utf-8", "surrogatepass")) for letter in text if not letter.isascii())
    marks = sum(letter.isascii() for letter in text) - letters
    return -(-letters // 3) + marks + -(-beyond // 2)


def room_for_sentences(model: ModelEntry, *, prompt_tokens: int) -> int:
    """Tokens that one window may have: the context, less the reply and `prompt_tokens` for all that stands around it.

    Raises SettingsError where too little is left.
    """
    context = context_tokens(model)
    room = context - reply_tokens(model) - prompt_tokens
    if room < MIN_WINDOW_TOKENS:
        raise SettingsError(
            f"Model {model.key}: {context:,} tokens of context, less {reply_tokens(model):,} for the reply and "
            f"{prompt_tokens:,} for the prompt, leave no room for a transcript: set context_tokens higher, or "
            "defaults.max_tokens lower.",
            model=model.key,
        )
    return min(room, MAX_WINDOW_TOKENS)


def context_tokens(model: ModelEntry) -> int:
    """Tokens of prompt and reply together; an assumption where the entry does not say."""
    return model.context_tokens or max(DEFAULT_CONTEXT_TOKENS, 2 * (model.defaults.max_tokens or 0))


def reply_tokens(model: ModelEntry) -> int:
    """Tokens kept for the reply."""
    return model.defaults.max_tokens or min(DEFAULT_REPLY_TOKENS, (model.context_tokens or DEFAULT_CONTEXT_TOKENS) // 4)


def line_limit(room: int) -> int:
    """Characters of a sentence to show in windows of `room` tokens, so that even the longest line fits twice."""
    return min(MAX_LINE, room // 5)


def windows(sentences: Sequence[Sentence], *, room: int, overlap_ms: int = 0) -> list[Window]:
    """The fewest windows of at most `room` tokens that show every sentence, all about as full.

    Neighbours share 15 % of a window and at least `overlap_ms` (the longest moment: one that lies across a border is
    whole in the next window), but never more than half.
    """
    if not sentences:
        return []
    strip = _strip(sentences, room)
    fewest = len(strip.filled(room, overlap_ms))
    too_little, enough = room // 2, room
    while enough - too_little > 1 + room // 50:  # a last window that is nearly empty tells a model little
        middle = (too_little + enough) // 2
        if len(strip.filled(middle, overlap_ms)) > fewest:
            too_little = middle
        else:
            enough = middle
    return strip.filled(enough, overlap_ms)


@dataclass(frozen=True, slots=True)
class _Strip:
    """All sentences with what they cost: `sums[n]` is the tokens of the first n lines."""

    sentences: Sequence[Sentence]
    sums: Sequence[int]

    def filled(self, room: int, overlap_ms: int) -> list[Window]:
        """Windows filled to `room` one after the other; a line that alone is longer stands alone."""
        found: list[Window] = []
        first = 1
        while not found or found[-1].last < len(self.sentences):
            fitting = bisect_right(self.sums, self.sums[first - 1] + room) - 1
            found.append(Window(first, max(first, fitting)))
            first = self._next_first(found[-1], overlap_ms)
        return found

    def _next_first(self, window: Window, overlap_ms: int) -> int:
        """Where the next window begins: so far back that both kinds of overlap are shared, at most half."""
        end, tokens = self.sums[window.last], self.sums[window.last] - self.sums[window.first - 1]
        enough_tokens = bisect_right(self.sums, end - OVERLAP * tokens)
        end_ms = self.sentences[window.last - 1].end_ms
        enough_time = bisect_right(self.sentences, end_ms - overlap_ms, key=lambda sentence: sentence.start_ms)
        half = bisect_left(self.sums, end - tokens / 2) + 1
        return max(min(enough_tokens, enough_time, window.last + 1), half, window.first + 1)


def _strip(sentences: Sequence[Sentence], room: int) -> _Strip:
    lines = numbered_lines(sentences, Window(1, len(sentences)), longest=line_limit(room))
    return _Strip(sentences, [0, *accumulate(estimated_tokens(line) + 1 for line in lines)])
