"""The sound of a video: one pass of ffmpeg gives the FLAC that recognisers read, and every measure of it.

Two passes where the channels cancel out when they are mixed: a microphone with one wire the wrong way round records
R = -L, which any stereo player plays, and which is silence in mono.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from moments_core.errors import MediaError
from moments_core.time import Span, to_seconds
from moments_resources.media.clock import clock_keepers
from moments_resources.media.container import compiled, guarded_input
from moments_resources.media.levels import SAMPLE_RATE, LevelMeter, nothing_is_heard
from moments_resources.media.probe import VideoProbe, probe_video
from moments_resources.media.runner import FfmpegRunner, ProgressCallback, whole_file

MonoFrom: TypeAlias = Literal["all channels", "first channel"]

# What EBU R 128 states where no block reaches its gate.
_NO_LOUDNESS_LUFS = -70.0
# Measured: a mix's loudest second lies at most 24 dB below the loudness of its channels (a high tone in one surround
# channel of eight); where they cancel out, 100 dB, for codecs keep an inverted channel as it is.
_CANCELLED_LU = 30.0

# The pass runs at 200-400 times real time; a machine twenty times as slow under full load still makes it.
_TIMEOUT_S = 120.0
_TIMEOUT_PER_SECOND = 0.1

_SUMMARY = {
    "loudness": re.compile(r"^\s*I:\s+(\S+) LUFS", re.MULTILINE),
    "range": re.compile(r"^\s*LRA:\s+(\S+) LU\b", re.MULTILINE),
    "peak": re.compile(r"^\s*Peak:\s+(\S+) dBFS", re.MULTILINE),
}


@dataclass(frozen=True, slots=True)
class SoundReport:
    """Measures of a sound.

    `loudness_lufs` and `loudness_range_lu` by EBU R 128 and `peak_db` (sample peak) on the original channels;
    `rms_db` (one value a second), `silences` and `is_silent` (nothing in it can be heard) on the mono sound, which was
    made from `mono_from`.
    """

    duration_ms: int
    silences: tuple[Span, ...]
    loudness_lufs: float
    loudness_range_lu: float
    peak_db: float
    rms_db: tuple[float, ...]
    is_silent: bool
    mono_from: MonoFrom
    cpu_s: float


def extract_audio(
    runner: FfmpegRunner,
    source: Path,
    target_flac: Path,
    probe: VideoProbe | None = None,
    *,
    on_progress: ProgressCallback | None = None,
) -> SoundReport:
    """Write the sound as FLAC (16 kHz, mono, 16 bit) on the video's clock, and measure it.

    Sound that starts after the picture is preceded by silence, and gaps are filled, so that a sample's position
    is its time in the video. The channels are mixed or, where they cancel out, the first is taken. `probe` is what
    `probe_video` said of `source`; asked for anew where it is left out. No part of `target_flac` is left behind by
    a failure.

    Raises:
        MediaError: the video has no sound, or it can't be decoded.
    """
    probe = probe or probe_video(source)
    report = _extract(runner, source, target_flac, probe, "all channels", on_progress)
    if not _cancels(report):
        return report
    return _extract(runner, source, target_flac, probe, "first channel", on_progress)


def _extract(
    runner: FfmpegRunner,
    source: Path,
    target_flac: Path,
    probe: VideoProbe,
    mono_from: MonoFrom,
    on_progress: ProgressCallback | None,
) -> SoundReport:
    meter = LevelMeter()
    with whole_file(target_flac) as part:
        finished = runner.run(
            audio_command(source, part, probe, mono_from),
            timeout_s=_TIMEOUT_S + _TIMEOUT_PER_SECOND * to_seconds(probe.duration_ms),
            on_progress=on_progress,
            on_stdout=meter.add,
        )
    meter.finish()
    return _report(meter, _measures(finished.stderr_text), mono_from, finished.cpu_s)


def _cancels(report: SoundReport) -> bool:
    """Whether the mix has lost what the channels hold."""
    loudest_db = max(report.rms_db, default=0.0)
    return report.loudness_lufs > _NO_LOUDNESS_LUFS and loudest_db < report.loudness_lufs - _CANCELLED_LU


def audio_command(
    source: Path, target_flac: Path, probe: VideoProbe, mono_from: MonoFrom = "all channels"
) -> list[str]:
    """One pass: the FLAC into `target_flac`, its samples on stdout, EBU R 128's summary on stderr."""
    if probe.audio_index is None:
        raise MediaError(f"{source.name} has no sound.", file=source.name)
    node = guarded_input(source)
    # A timestamp that jumps hours ahead would be filled with hours of silence: hence the limit.
    limits = {"t": to_seconds(probe.duration_ms)}
    measured = node[str(probe.audio_index)].filter("ebur128", framelog="quiet", peak="sample")
    chosen = measured if mono_from == "all channels" else measured.filter("pan", "mono|c0<c0")
    both = (
        chosen.filter("aresample", SAMPLE_RATE, **{"async": 1, "first_pts": 0})
        .filter("aformat", sample_fmts="s16", channel_layouts="mono")
        .filter_multi_output("asplit")
    )
    outputs = [
        both[0].output(f"file:{target_flac}", format="flac", acodec="flac", **limits),
        both[1].output("pipe:1", format="s16le", acodec="pcm_s16le", **limits),
        *clock_keepers(node, probe, used={probe.audio_index}),
    ]
    return compiled(outputs, log_level="info")


def _measures(summary: str) -> dict[str, float]:
    """Figures of EBU R 128's summary, -inf (digital silence) as the floor of each scale."""
    found = {name: pattern.findall(summary) for name, pattern in _SUMMARY.items()}
    missing = [name for name, values in found.items() if not values]
    if missing:
        raise MediaError("The sound could not be measured: fetch the video again.", missing=", ".join(missing))
    return {name: max(float(values[-1]), -120.0) for name, values in found.items()}


def _report(meter: LevelMeter, measures: Mapping[str, float], mono_from: MonoFrom, cpu_s: float) -> SoundReport:
    rms_db = meter.rms_db()
    silent = nothing_is_heard(rms_db)
    whole = (Span(0, meter.duration_ms),) if meter.duration_ms else ()
    return SoundReport(
        duration_ms=meter.duration_ms,
        silences=whole if silent else meter.silences(),
        loudness_lufs=measures["loudness"],
        loudness_range_lu=measures["range"],
        peak_db=measures["peak"],
        rms_db=rms_db,
        is_silent=silent,
        mono_from=mono_from,
        cpu_s=cpu_s,
    )
