"""The moments: what this is all about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moments_assets.checks import MOMENTS_ARE_SOUND
from moments_assets.previews import moments_preview
from moments_assets.video_asset import video_asset
from moments_assets.video_content import content_of
from moments_core.moment import Moment, moment_id
from moments_resources.frames import new_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_core.content import MomentFinder
    from moments_resources.step import Step


@video_asset(
    code_version="1",
    kinds={"python"},
    pool="generation",
    options=("query", "max_moments", "min_seconds", "max_seconds", "generation_model"),
    checks=[MOMENTS_ARE_SOUND],
)
def moments(
    raw_video: DataFrame,
    audio: DataFrame,
    transcript: DataFrame,
    scene_cuts: DataFrame,
    *,
    finder: MomentFinder,
    step: Step,
) -> DataFrame:
    """Titled spans of the video, in time order, each with a score in 0..1.

    `query` says which parts count, `max_moments` keeps the best, `min_seconds` and `max_seconds` bound their length.
    """
    content = content_of(raw_video, audio, transcript, scene_cuts)
    found = finder.find(content, step.options, on_progress=step.progress)
    step.measure(
        moments=len(found.moments),
        note=found.note,
        media_seconds_per_second=round(content.duration_ms / 1000 / max(step.seconds, 1e-3), 1),
    )
    step.show(preview=moments_preview(found.moments))
    rows = [_row(moment, ordinal, finder, step) for ordinal, moment in enumerate(found.moments, start=1)]
    return new_table("moments", rows)


def _row(moment: Moment, ordinal: int, finder: MomentFinder, step: Step) -> dict[str, Any]:
    return {
        "moment_id": moment_id(step.video_id, moment.span, moment.title),
        "ordinal": ordinal,
        "start_ms": moment.span.start_ms,
        "end_ms": moment.span.end_ms,
        "title": moment.title,
        "score": moment.score,
        "query": step.options.query,
        "found_by": finder.recipe,
        "generation_config": step.recipe.sha256,
    }
