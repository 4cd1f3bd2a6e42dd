"""What is known of a video's content, and the two decisions taken on it: finding and refining moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moments_core.moment import Found, Moment, Refined
from moments_core.options import Options
from moments_core.time import Span
from moments_core.transcript import Sentence, Word


@dataclass(frozen=True, slots=True)
class VideoContent:
    """Everything a finder or a refiner may look at; all times in the video's own milliseconds.

    `rms_db` holds one value a second: the level of the sound in dBFS (-120 for digital silence), empty where
    the video has no sound.
    """

    duration_ms: int
    sentences: Sequence[Sentence] = ()
    words: Sequence[Word] = ()
    silences: Sequence[Span] = ()
    scene_cuts_ms: Sequence[int] = ()
    rms_db: Sequence[float] = ()

    @property
    def span(self) -> Span:
        return Span(0, self.duration_ms)


class MomentFinder(Protocol):
    """Finds the moments of one video. `recipe` names the maker and its version; a change means new results."""

    @property
    def recipe(self) -> str: ...

    def find(self, content: VideoContent, options: Options) -> Found:
        """Moments in time order, inside the video, no two with IoU over 0.5."""
        ...


class MomentRefiner(Protocol):
    """Moves a moment's boundaries to where an editor would cut. `recipe` as in `MomentFinder`."""

    @property
    def recipe(self) -> str: ...

    def refine(self, moment: Moment, content: VideoContent, *, within: Span) -> Refined:
        """New boundaries of `moment` that never leave `within` (the span that its clip shows)."""
        ...
