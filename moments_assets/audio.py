"""The sound of the video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moments_assets.checks import SOUND_IS_STATED
from moments_assets.video_asset import video_asset
from moments_resources.frames import first_row, new_table
from moments_resources.media.probe import probe_video
from moments_resources.media.sound import SoundReport, extract_audio

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.step import Step


@video_asset(code_version="2", kinds={"ffmpeg"}, pool="audio", checks=[SOUND_IS_STATED])
def audio(raw_video: DataFrame, *, ffmpeg: FfmpegRunner, step: Step) -> DataFrame:
    """The sound as 16 kHz mono FLAC, with its pauses, loudness and level a second.

    All channels are mixed; where they cancel each other out, the first one is taken alone.
    A video without sound has a row that says so, and no file.
    """
    video = first_row(raw_video)
    if not video["has_audio"]:
        step.measure(state="none")
        return new_table("audio", [_ABSENT])
    source, target = video["file"].path, step.folder() / "audio.flac"
    on_progress = step.progress_of(video["duration_ms"])
    report = extract_audio(ffmpeg, source, target, probe_video(source), on_progress=on_progress)
    row = _row(report) | {"file": target}
    step.measure(
        state=row["state"],
        loudness_lufs=report.loudness_lufs,
        mono_from=report.mono_from,
        pauses=len(report.silences),
        media_seconds_per_second=round(report.duration_ms / 1000 / step.seconds, 1),
    )
    return new_table("audio", [row])


_ABSENT: dict[str, Any] = {"state": "none", "duration_ms": 0, "silences": [], "rms_db": [], "file": None}


def _row(report: SoundReport) -> dict[str, Any]:
    return {
        "state": "silent" if report.is_silent else "sound",
        "duration_ms": report.duration_ms,
        "loudness_lufs": report.loudness_lufs,
        "loudness_range_lu": report.loudness_range_lu,
        "peak_db": report.peak_db,
        "silences": [[span.start_ms, span.end_ms] for span in report.silences],
        "rms_db": list(report.rms_db),
    }
