"""A video file for each moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from moments_assets.checks import CLIPS_PLAY
from moments_assets.video_asset import video_asset
from moments_assets.video_content import span_of
from moments_core.clip_plan import plan_clip
from moments_core.errors import MediaError
from moments_core.time import Span, total_ms
from moments_resources.frames import new_table
from moments_resources.media.cutter import check_clip, cut_clip, output_rate
from moments_resources.media.probe import VideoProbe, probe_video

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.step import Step


@video_asset(code_version="1", kinds={"ffmpeg"}, pool="clips", checks=[CLIPS_PLAY])
def clips(raw_video: DataFrame, moments: DataFrame, *, ffmpeg: FfmpegRunner, step: Step) -> DataFrame:
    """One MP4 a moment, padded by two seconds on each side as far as the video goes.

    Cut to the frame and encoded anew, so that every player shows exactly the planned span. The clip's start in the
    video is kept in `start_ms` and nowhere else.
    """
    source = Path(raw_video.iloc[0]["file"])
    probe = probe_video(source)
    whole = Span(0, probe.duration_ms)
    rows = moments.to_dict("records")
    plans = [plan_clip(span_of(row), video=whole, frame_rate=output_rate(probe)).clip for row in rows]
    folder = step.folder()
    made = []
    for index, (row, plan) in enumerate(zip(rows, plans, strict=True)):
        made.append(_cut(ffmpeg, source, plan, folder / f"{row['moment_id']}.mp4", probe, row["moment_id"]))
        step.progress((index + 1) / len(rows))
    clip_ms = total_ms(plans)
    step.measure(
        clips=len(made),
        clip_seconds=clip_ms / 1000,
        media_seconds_per_second=round(clip_ms / 1000 / max(step.seconds, 1e-3), 1),
    )
    return new_table("clips", made)


def _cut(
    ffmpeg: FfmpegRunner, source: Path, plan: Span, target: Path, probe: VideoProbe, moment_id: str
) -> dict[str, Any]:
    report = cut_clip(ffmpeg, source, plan, target, probe)
    frames, duration_ms = _decoded(ffmpeg, target)
    return {
        "moment_id": moment_id,
        "start_ms": plan.start_ms,
        "end_ms": plan.end_ms,
        "duration_ms": duration_ms,
        "frames": frames,
        "fps": float(output_rate(probe)),
        "width": report.width,
        "height": report.height,
        "file": target,
    }


def _decoded(ffmpeg: FfmpegRunner, clip: Path) -> tuple[int, int]:
    """Frames and milliseconds that a player gets out of the clip; 0, 0 where it does not play: the check says so."""
    try:
        decoded = check_clip(ffmpeg, clip)
    except MediaError:
        return 0, 0
    return decoded.frames, decoded.duration_ms
