"""Where the picture changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moments_assets.video_asset import video_asset
from moments_core.time import clock
from moments_resources.frames import first_row, new_table
from moments_resources.media.probe import probe_video
from moments_resources.media.scenes import scene_cuts as find_scene_cuts

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.step import Step


@video_asset(code_version="1", kinds={"ffmpeg"})
def scene_cuts(raw_video: DataFrame, *, ffmpeg: FfmpegRunner, step: Step) -> DataFrame:
    """The first frame of each new scene, with how strong the change is; from one pass of ffmpeg at low resolution."""
    video = first_row(raw_video)
    source, on_progress = video["file"].path, step.progress_of(video["duration_ms"])
    cuts = find_scene_cuts(ffmpeg, source, probe_video(source), on_progress=on_progress)
    step.measure(
        cuts=len(cuts),
        first_cuts=", ".join(clock(cut.time_ms) for cut in cuts[:12]) or "none",
        media_seconds_per_second=round(video["duration_ms"] / 1000 / step.seconds, 1),
    )
    return new_table("scene_cuts", [{"time_ms": cut.time_ms, "score": cut.score} for cut in cuts])
