"""Moments, refined moments and clips: the results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from moments_core.time import Span

MAX_TITLE_LENGTH = 120  # characters; a title stands in one line of a table


@dataclass(frozen=True, slots=True)
class Moment:
    """A titled span of a video, with a score in 0..1 (how much it deserves to be watched)."""

    span: Span
    title: str
    score: float

    def __post_init__(self) -> None:
        if not self.title.strip() or len(self.title) > MAX_TITLE_LENGTH:
            raise ValueError(f"a title has 1 to {MAX_TITLE_LENGTH} characters, got {self.title!r}")
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"a score lies in 0..1, got {self.score}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a finder returns: moments in time order, and why there are none or how they came about."""

    moments: tuple[Moment, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refined:
    """A moment's new boundaries. `note` says what moved them, or why they stayed."""

    span: Span
    note: str


def moment_id(video_id: str, span: Span, title: str) -> str:
    """Stable name of a moment: the same video, span and title give the same id."""
    text = f"{video_id}\n{span.start_ms}\n{span.end_ms}\n{title}"
    return f"m_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def overlapping_pairs(moments: Sequence[Moment], *, iou: float = 0.5) -> list[tuple[Moment, Moment]]:
    """Pairs of moments whose IoU is over `iou`: the same moment found twice."""
    return [
        (first, second)
        for index, first in enumerate(moments)
        for second in moments[index + 1 :]
        if first.span.iou(second.span) > iou
    ]
