"""The sentences of a video made fit for the finder: in time order, inside the video, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from moments_core.content import VideoContent
from moments_core.finder.text import terms, words
from moments_core.transcript import Sentence


@dataclass(frozen=True, slots=True)
class Passage:
    """What is said from `start_ms` on; `end_ms` may lie beyond the next one's start where people interrupt."""

    start_ms: int
    end_ms: int
    text: str
    terms: tuple[str, ...]


def passages(content: VideoContent) -> list[Passage]:
    """Passages with strictly rising starts.

    Sentences beyond the video's end or without a letter or digit (`[♪♪]`) are left out, late ends are clamped,
    and sentences that share a start (two caption tracks in one file) become one passage.
    """
    kept = [s for s in content.sentences if s.start_ms < content.duration_ms and words(s.text)]
    kept.sort(key=lambda sentence: sentence.start_ms)
    return [
        _passage(start_ms, list(group), content.duration_ms)
        for start_ms, group in groupby(kept, key=lambda sentence: sentence.start_ms)
    ]


def _passage(start_ms: int, group: Sequence[Sentence], duration_ms: int) -> Passage:
    text = " ".join(sentence.text for sentence in group)
    end_ms = min(duration_ms, max(sentence.end_ms for sentence in group))
    return Passage(start_ms, end_ms, text, tuple(terms(text)))
