"""Moments with the boundaries that an editor would choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moments_assets.checks import REFINED_STAY_IN_THEIR_CLIPS
from moments_assets.previews import refined_preview
from moments_assets.video_asset import video_asset
from moments_assets.video_content import content_of, moments_of, span_of
from moments_resources.frames import new_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_core.content import MomentRefiner
    from moments_core.moment import Moment, Refined
    from moments_resources.step import Step


@video_asset(
    code_version="1",
    kinds={"python"},
    pool="refinement",
    options=("refinement_model",),
    checks=[REFINED_STAY_IN_THEIR_CLIPS],
)
def refined_moments(
    raw_video: DataFrame,
    audio: DataFrame,
    transcript: DataFrame,
    scene_cuts: DataFrame,
    moments: DataFrame,
    clips: DataFrame,
    *,
    refiner: MomentRefiner,
    step: Step,
) -> DataFrame:
    """Each moment with refined boundaries, never outside of its clip; the original stays in `moments`."""
    content = content_of(raw_video, audio, transcript, scene_cuts)
    shown = {row["moment_id"]: span_of(row) for row in clips.to_dict("records")}
    found = list(zip(moments["moment_id"], moments_of(moments), strict=True))
    refined = [
        (name, moment, refiner.refine(moment, content, within=shown[name])) for name, moment in found if name in shown
    ]
    moved = [new.span != moment.span for _, moment, new in refined]
    step.measure(moments=len(refined), moved=sum(moved))
    step.show(preview=refined_preview([(moment, new) for _, moment, new in refined]))
    return new_table("refined_moments", [_row(name, moment, new, refiner) for name, moment, new in refined])


def _row(name: str, moment: Moment, new: Refined, refiner: MomentRefiner) -> dict[str, Any]:
    return {
        "moment_id": name,
        "start_ms": new.span.start_ms,
        "end_ms": new.span.end_ms,
        "title": moment.title,
        "refined_by": refiner.recipe,
        "note": new.note,
    }
