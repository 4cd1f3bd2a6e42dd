"""Small pictures of the video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moments_assets.previews import picture
from moments_assets.video_asset import video_asset
from moments_resources.frames import first_row, new_table
from moments_resources.media.stills import filmstrip, stills

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.step import Step

COUNT = 8  # one row of a filmstrip


@video_asset(code_version="1", kinds={"ffmpeg"})
def thumbnails(raw_video: DataFrame, *, step: Step) -> DataFrame:
    """Pictures at even distances, each in the middle of its part: the first and last frames are often black."""
    video = first_row(raw_video)
    duration_ms = video["duration_ms"]
    times = sorted({duration_ms * (2 * index + 1) // (2 * COUNT) for index in range(COUNT)})
    pictures = stills(video["file"].path, times, step.folder())
    step.measure(pictures=len(pictures))
    step.show(filmstrip=picture(filmstrip([still.path for still in pictures]), "filmstrip"))
    rows = [
        {"time_ms": still.time_ms, "width": still.width, "height": still.height, "file": still.path}
        for still in {still.time_ms: still for still in pictures}.values()
    ]
    return new_table("thumbnails", rows)
