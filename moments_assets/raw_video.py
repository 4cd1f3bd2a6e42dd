"""The video itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moments_assets.previews import link
from moments_assets.video_asset import video_asset
from moments_core.source import public_url
from moments_core.transcript import TranscriptSource
from moments_resources.downloader import Downloader, Fetched, Limits
from moments_resources.frames import new_table
from moments_resources.guarded_ytdlp import printable
from moments_resources.media.joining import join_streams
from moments_resources.media.probe import VideoProbe, probe_video
from moments_resources.media.tracks import embedded_captions
from moments_resources.video_lists import ListFound

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.intake import Intake, IntakeRow
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.step import Step
    from moments_resources.store.interface import ObjectStore

_NOTES_LENGTH = 500  # characters: measures stay short, and a site's extractor may warn at every turn


@video_asset(code_version="3", kinds={"ffmpeg", "python"}, pool="download", output_required=False)
def raw_video(
    *,
    intake: Intake,
    store: ObjectStore,
    downloader: Downloader,
    ffmpeg: FfmpegRunner,
    limits: Limits,
    step: Step,
) -> DataFrame | None:
    """The video as its site or its owner gave it, with its format and its own captions.

    Fetched once: a URL through yt-dlp, an uploaded file from the object store. Nothing is converted. What can't be
    worked on is refused here, so that no later asset meets it: no picture, cut off, too long, not a video at all.
    An address that leads to several videos makes none: each of them becomes a submission of its own.
    """
    source = intake.source_of(step.video_id)
    fetched = _uploaded(source, store) if source.upload_key else _downloaded(source, downloader, step)
    if isinstance(fetched, ListFound):
        step.expand(fetched, step.request.intake_id or source.intake_id)
        return None
    path = _one_file(fetched, ffmpeg)
    probe = probe_video(path, max_duration_ms=limits.max_duration_ms, max_bytes=limits.max_bytes)
    _show(step, probe, fetched)
    row = _described(fetched, probe) | _captions(fetched, path, ffmpeg, step) | {"file": path}
    return new_table("raw_video", [row])


def _uploaded(source: IntakeRow, store: ObjectStore) -> Fetched:
    path = store.local(source.upload_key or "")
    return Fetched(path=path, title=source.name, channel=None, page_url=source.url, extractor="file")


def _downloaded(source: IntakeRow, downloader: Downloader, step: Step) -> Fetched | ListFound:
    def on_progress(done: int, total: int | None) -> None:
        step.progress(done / total if total else 0.0)

    return downloader.fetch(source.url, step.folder(), on_progress=on_progress)


def _one_file(fetched: Fetched, ffmpeg: FfmpegRunner) -> Path:
    """The video as one file: sites keep the picture and the sound of their better qualities apart."""
    if fetched.audio_path is None:
        return fetched.path
    joined = fetched.path.with_name("joined.mkv")
    join_streams(ffmpeg, fetched.path, fetched.audio_path, joined)
    fetched.path.unlink()  # the scratch folder need not hold a large video twice
    fetched.audio_path.unlink()
    return joined


def _described(fetched: Fetched, probe: VideoProbe) -> dict[str, Any]:
    return {
        "url": public_url(fetched.page_url),
        "site": fetched.extractor,
        "title": fetched.title,
        "channel": fetched.channel,
        "published_at": fetched.published_at,
        "description": fetched.description,
        "duration_ms": probe.duration_ms,
        "width": probe.width,
        "height": probe.height,
        "fps": probe.fps,
        "variable_frame_rate": probe.variable_frame_rate,
        "container": probe.container,
        "video_codec": probe.video_codec,
        "audio_codec": probe.audio_codec,
        "has_audio": probe.has_audio,
        "streams": [asdict(stream) for stream in probe.streams],
    }


def _captions(fetched: Fetched, path: Path, ffmpeg: FfmpegRunner, step: Step) -> dict[str, str | None]:
    """The captions that came with the page, else those inside the file. What was done without is noted."""
    if fetched.captions is not None:
        _note(step, fetched.notes)
        automatic = fetched.captions.kind == "automatic"
        source = TranscriptSource.AUTOMATIC_CAPTIONS if automatic else TranscriptSource.HUMAN_CAPTIONS
        return _caption_columns(fetched.captions.text, fetched.captions.language, source)
    track, unread = embedded_captions(ffmpeg, path, step.folder())
    _note(step, fetched.notes + unread)
    if track is None:
        return _caption_columns(None, None, None)
    return _caption_columns(track.text, track.language, TranscriptSource.HUMAN_CAPTIONS)


def _note(step: Step, notes: tuple[str, ...]) -> None:
    if notes:
        step.measure(notes=printable(" ".join(notes), _NOTES_LENGTH))


def _caption_columns(text: str | None, language: str | None, source: TranscriptSource | None) -> dict[str, str | None]:
    return {"captions": text, "captions_language": language, "captions_source": source.value if source else None}


def _show(step: Step, probe: VideoProbe, fetched: Fetched) -> None:
    size = probe.bytes
    step.measure(
        title=fetched.title or "",
        duration_seconds=probe.duration_ms / 1000,
        megabytes=round(size / 1e6, 3),
        megabytes_per_second=round(size / 1e6 / max(step.seconds, 1e-3), 2),
        picture=f"{probe.width}x{probe.height}, {probe.fps:.2f} fps, {probe.video_codec}",
        sound=probe.audio_codec or "none",
    )
    if fetched.page_url.startswith("http"):
        step.show(page=link(public_url(fetched.page_url)))
