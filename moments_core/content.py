"""What is known of a video's content, and the two decisions taken on it: finding and refining moments."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moments_core.clip_plan import ClipPlan
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


@dataclass(frozen=True, slots=True)
class ShownMoment:
    """A moment and the clip that shows it. The file is fetched when it is first opened."""

    moment: Moment
    plan: ClipPlan
    clip: os.PathLike[str]
    clip_sha256: str


class MomentFinder(Protocol):
    """Finds the moments of one video. `recipe` names the maker and its version; a change means new results."""

    @property
    def recipe(self) -> str: ...

    def find(
        self, content: VideoContent, options: Options, *, on_progress: Callable[[float], None] | None = None
    ) -> Found:
        """Moments in time order, inside the video, no two with IoU over 0.5. `on_progress` gets 0..1."""
        ...


class MomentRefiner(Protocol):
    """Moves the boundaries of moments to where an editor would cut. `recipe` as in `MomentFinder`."""

    @property
    def recipe(self) -> str: ...

    def refine_all(
        self,
        shown: Sequence[ShownMoment],
        content: VideoContent,
        *,
        on_progress: Callable[[float], None] | None = None,
    ) -> list[Refined]:
        """New boundaries for each moment, in the same order; they never leave what its clip shows."""
        ...
