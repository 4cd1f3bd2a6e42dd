"""Time: int milliseconds and half-open spans inside the program, float seconds only at its edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def to_ms(seconds: float) -> int:
    """Seconds of a wire format as int milliseconds, rounded to nearest."""
    return round(seconds * 1000)


def to_seconds(ms: int) -> float:
    """Int milliseconds as seconds for a wire format, a view or a tool's argument."""
    return ms / 1000


def clock(ms: int) -> str:
    """`m:ss`, or `h:mm:ss` from one hour on; for people."""
    minutes, seconds = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open interval [start_ms, end_ms) in milliseconds."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms:
            raise ValueError(f"span must satisfy 0 <= start < end, got {self.start_ms}..{self.end_ms}")

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms

    def overlap_ms(self, other: Span) -> int:
        """Milliseconds that both spans cover."""
        return max(0, min(self.end_ms, other.end_ms) - max(self.start_ms, other.start_ms))

    def iou(self, other: Span) -> float:
        """Intersection over union, 0..1."""
        both = self.overlap_ms(other)
        return both / (self.length_ms + other.length_ms - both)

    def contains(self, other: Span) -> bool:
        return self.start_ms <= other.start_ms and other.end_ms <= self.end_ms

    def padded(self, padding_ms: int, *, within: Span) -> Span:
        """This span, wider by `padding_ms` on each side, kept inside `within`."""
        start = max(within.start_ms, self.start_ms - padding_ms)
        return Span(start, min(within.end_ms, self.end_ms + padding_ms))

    def clamped(self, within: Span) -> Span | None:
        """The part of this span that lies inside `within`, or None."""
        start, end = max(self.start_ms, within.start_ms), min(self.end_ms, within.end_ms)
        return Span(start, end) if start < end else None

    def __str__(self) -> str:
        return f"{clock(self.start_ms)}–{clock(self.end_ms)}"


def total_ms(spans: Iterable[Span]) -> int:
    """Sum of the lengths, overlaps counted twice."""
    return sum(span.length_ms for span in spans)
