"""Which part of a video a clip shows, and the one offset between clip time and video time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from moments_core.errors import CheckError
from moments_core.time import Span

PADDING_MS = 2_000  # room for a refiner to move a boundary outwards, and for a viewer to arrive


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """A clip shows `clip`, in the video's time; it stands around `moment`.

    The clip's own time begins at 0 where it starts, so `clip.start_ms` is the offset and stands nowhere else.
    """

    moment: Span
    clip: Span

    def __post_init__(self) -> None:
        if not self.clip.contains(self.moment):
            raise ValueError(f"a clip must contain its moment, got {self.clip!r} for {self.moment!r}")

    @property
    def offset_ms(self) -> int:
        """Add to a time in the clip to get the time in the video."""
        return self.clip.start_ms

    @property
    def moment_in_clip(self) -> Span:
        """The moment in the clip's own time."""
        return Span(self.to_clip(self.moment.start_ms), self.to_clip(self.moment.end_ms))

    def to_clip(self, video_ms: int) -> int:
        """Milliseconds from the clip's start; negative for a time before it."""
        return video_ms - self.offset_ms

    def to_video(self, clip_ms: int) -> int:
        """Milliseconds from the video's start."""
        return clip_ms + self.offset_ms


def plan_clip(
    moment: Span, *, video: Span, padding_ms: int = PADDING_MS, frame_rate: Fraction | None = None
) -> ClipPlan:
    """The clip of `moment`: `padding_ms` more on each side, as far as the video goes.

    With `frame_rate` (frames a second, constant, first frame at 0) both ends move outwards to frame boundaries.
    A cut between two frames shows one frame more or less than its times say; on the grid the frames that it
    shows last exactly as long as the clip, to the millisecond. Without it the times stay as asked.

    Raises CheckError where the moment does not lie inside the video.
    """
    if not video.contains(moment):
        raise CheckError(
            f"The moment {moment} does not lie inside its video ({video}): find the moments again.",
            moment=f"{moment.start_ms}..{moment.end_ms} ms",
            video=f"{video.start_ms}..{video.end_ms} ms",
        )
    padded = moment.padded(padding_ms, within=video)
    return ClipPlan(moment, _on_frames(padded, video, frame_rate) if frame_rate else padded)


def _on_frames(span: Span, video: Span, rate: Fraction) -> Span:
    """The frames that `span` touches, as a span.

    Frame k starts at k / rate seconds, kept as that time rounded down to a millisecond: a cutter that takes the
    frames with start <= time < end then takes frame k at a start and leaves it at an end.
    """
    first = _frame_at(span.start_ms, rate)
    after_last = _frame_at(span.end_ms - 1, rate) + 1
    return Span(max(video.start_ms, _frame_start_ms(first, rate)), min(video.end_ms, _frame_start_ms(after_last, rate)))


def _frame_start_ms(frame: int, rate: Fraction) -> int:
    return int(frame * 1000 / rate)


def _frame_at(ms: int, rate: Fraction) -> int:
    """The last frame whose start, rounded down to a millisecond, is not after `ms`."""
    frame = int((ms + 1) * rate / 1000)
    return frame if _frame_start_ms(frame, rate) <= ms else frame - 1
