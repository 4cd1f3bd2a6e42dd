"""Moments with the boundaries that an editor would choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moments_assets.checks import REFINED_STAY_IN_THEIR_CLIPS
from moments_assets.previews import refined_preview
from moments_assets.video_asset import video_asset
from moments_assets.video_content import content_of, moments_of, span_of
from moments_core.clip_plan import ClipPlan
from moments_core.content import ShownMoment
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
    shown = _shown(moments, clips)
    refined = refiner.refine_all(list(shown.values()), content, on_progress=step.progress)
    pairs = [(item.moment, new) for item, new in zip(shown.values(), refined, strict=True)]
    step.measure(moments=len(pairs), moved=sum(new.span != moment.span for moment, new in pairs))
    step.show(preview=refined_preview(pairs))
    rows = [_row(name, moment, new, refiner) for name, (moment, new) in zip(shown, pairs, strict=True)]
    return new_table("refined_moments", rows)


def _shown(moments: DataFrame, clips: DataFrame) -> dict[str, ShownMoment]:
    """The moments that have a clip, by their id, in time order."""
    by_moment = {row["moment_id"]: row for row in clips.to_dict("records")}
    return {
        name: ShownMoment(moment, ClipPlan(moment.span, span_of(clip)), clip["file"], clip["sha256"])
        for name, moment in zip(moments["moment_id"], moments_of(moments), strict=True)
        if (clip := by_moment.get(name))
    }


def _row(name: str, moment: Moment, new: Refined, refiner: MomentRefiner) -> dict[str, Any]:
    return {
        "moment_id": name,
        "start_ms": new.span.start_ms,
        "end_ms": new.span.end_ms,
        "title": moment.title,
        "refined_by": refiner.recipe,
        "note": new.note,
    }
