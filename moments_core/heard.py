"""Words as a recogniser heard them, and the transcript that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

from moments_core.sentences import ends_sentence, ordered_words, pacing_of, sentences_from_words
from moments_core.transcript import Sentence, Transcript, TranscriptSource, Word

Timing: TypeAlias = Literal["measured", "interpolated"]


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word over [start_ms, end_ms); `ends_segment` where the recogniser itself closes a sentence behind it."""

    start_ms: int
    end_ms: int
    text: str
    ends_segment: bool = False

    @property
    def middle_ms(self) -> int:
        return (self.start_ms + self.end_ms) // 2

    def later(self, by_ms: int) -> Self:
        return replace(self, start_ms=self.start_ms + by_ms, end_ms=self.end_ms + by_ms)


def transcript_from_heard(
    heard: Sequence[HeardWord], *, duration_ms: int, model: str, timing: Timing = "measured"
) -> Transcript:
    """The transcript of words in the order in which they were said; source NONE where there are none.

    The language stays None: the recogniser did not tell it.
    """
    # The order of the text is the truth: a word is never sorted ahead of the one before it by some jitter of its time.
    timed = [Word(start_ms=word.start_ms, end_ms=word.end_ms, text=word.text) for word in forward(heard)]
    words = ordered_words(timed, duration_ms=duration_ms)
    if not words:
        return Transcript(source=TranscriptSource.NONE, model=model)
    return Transcript(
        source=TranscriptSource.SPEECH_MODEL,
        model=model,
        word_timing=timing,
        words=words,
        sentences=tuple(_sentences(words, heard)),
    )


def forward(words: Iterable[HeardWord]) -> Iterator[HeardWord]:
    """The words in the same order, none beginning before the one ahead of it."""
    latest_ms = 0
    for word in words:
        latest_ms = max(word.start_ms, latest_ms)
        yield replace(word, start_ms=latest_ms, end_ms=max(word.end_ms, latest_ms + 1))


def _sentences(words: Sequence[Word], heard: Sequence[HeardWord]) -> Iterator[Sentence]:
    """Sentences by the recogniser's segments and, inside of each, by punctuation, pauses and length.

    A segment alone would not do: without punctuation it can last five minutes.
    """
    pacing, start = pacing_of(words), 0
    for end in (index for index in range(1, len(words) + 1) if _closes(words, heard, index)):
        yield from sentences_from_words(words[start:end], pacing=pacing)
        start = end


def _closes(words: Sequence[Word], heard: Sequence[HeardWord], end: int) -> bool:
    """Whether a segment ends before word `end`. Parakeet also closes one after "Mr.", which ends no sentence."""
    if end == len(words):
        return True
    last = words[end - 1].text
    return heard[end - 1].ends_segment and (not last.endswith(".") or ends_sentence(last, words[end].text))
