from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moments_core.errors import MediaError
from moments_core.time import Span
from moments_resources.media.levels import SAMPLE_RATE, LevelMeter
from moments_resources.media.runner import FfmpegRunner
from moments_resources.media.sound import extract_audio

Make = Callable[..., Path]

# Container, second of the first picture, second of the first sound.
STARTS = [
    *(("mp4", 0, 0), ("mp4", 0, 2), ("mp4", 2, 0)),
    *(("mkv", 0, 2), ("mkv", 2, 0)),
    *(("ts", 0, 0), ("ts", 0, 2), ("ts", 2, 0)),
    ("webm", 0, 0),
]

PICTURE = ("-f", "lavfi", "-i", "color=s=32x32:r=10:d=6")


def samples_of(flac: Path) -> np.ndarray:
    import av

    with av.open(str(flac)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels, stream.format.name) == (16_000, 1, "s16")
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])


def tone(level: float, seconds: float) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def metered(*parts: np.ndarray, chunk: int = 1001) -> LevelMeter:
    data = (np.concatenate(parts) * 32767).astype("<i2").tobytes()
    meter = LevelMeter()
    for start in range(0, len(data), chunk):
        meter.add(data[start : start + chunk])
    meter.finish()
    return meter


@pytest.mark.parametrize(("suffix", "video_from", "sound_from"), STARTS)
def test_sound_lies_on_the_clock_of_the_picture(
    flash_beep: Make, runner: FfmpegRunner, tmp_path: Path, suffix: str, video_from: int, sound_from: int
) -> None:
    source = flash_beep(suffix, video_from=video_from, sound_from=sound_from)
    report = extract_audio(runner, source, tmp_path / "sound.flac")
    loud = np.flatnonzero(np.abs(samples_of(tmp_path / "sound.flac")) > 1000) / SAMPLE_RATE
    assert loud[0] == pytest.approx(3.0, abs=0.04)
    assert loud[-1] == pytest.approx(3.2, abs=0.06)
    before, after = report.silences
    assert (before.start_ms, after.end_ms) == (0, report.duration_ms)
    assert before.end_ms == pytest.approx(3000, abs=40)
    assert after.start_ms == pytest.approx(3200, abs=60)


def test_the_report_measures_the_sound(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    sound = ("-f", "lavfi", "-i", "sine=f=1000:d=4:r=44100,volume=2,apad=pad_dur=2,pan=stereo|c0=c0|c1=c0")
    source = make("tone.mkv", *PICTURE, *sound, "-c:v", "ffv1", "-c:a", "pcm_s16le")
    seen: list[int] = []
    report = extract_audio(runner, source, tmp_path / "sound.flac", on_progress=seen.append)
    # ffmpeg's sine has an amplitude of 1/8: doubled, -12 dBFS at its peak, 3 dB less as a mean of squares.
    assert report.peak_db == pytest.approx(-12, abs=0.2)
    assert report.loudness_lufs == pytest.approx(-12, abs=0.5)
    assert report.rms_db[:4] == pytest.approx([-15.0] * 4, abs=0.2)
    assert report.rms_db[5] == -120.0
    assert report.duration_ms == 6000
    assert not report.is_silent
    assert seen[-1] == pytest.approx(6000, abs=50)


def test_a_mute_track_is_one_silence(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    source = make("mute.mkv", *PICTURE, "-f", "lavfi", "-i", "anullsrc=d=6", "-c:v", "ffv1", "-c:a", "flac", "-t", "6")
    report = extract_audio(runner, source, tmp_path / "sound.flac")
    assert report.is_silent
    assert report.silences == (Span(0, report.duration_ms),)
    assert (report.loudness_lufs, report.peak_db, report.mono_from) == (-70.0, -120.0, "all channels")


@pytest.mark.parametrize("codec", ["flac", "aac", "libopus"])
def test_channels_that_cancel_out_are_not_mixed(make: Make, runner: FfmpegRunner, tmp_path: Path, codec: str) -> None:
    inverted = ("-f", "lavfi", "-i", "sine=d=6:f=440,pan=stereo|c0=c0|c1=-1*c0")
    source = make(f"inverted-{codec}.mkv", *PICTURE, *inverted, "-c:v", "ffv1", "-c:a", codec)
    report = extract_audio(runner, source, tmp_path / "sound.flac")
    assert (report.mono_from, report.is_silent) == ("first channel", False)
    assert report.rms_db[2] == pytest.approx(-21, abs=0.5)  # ffmpeg's sine: 1/8 of full scale
    assert np.abs(samples_of(tmp_path / "sound.flac")).max() == pytest.approx(32768 / 8, rel=0.05)
    assert report.duration_ms == pytest.approx(6000, abs=50)


@pytest.mark.parametrize("channel", [0, 2, 3, 6])
def test_channels_that_do_not_cancel_out_are_mixed(
    make: Make, runner: FfmpegRunner, tmp_path: Path, channel: int
) -> None:
    """All the sound in one of eight channels is the least that a mix keeps; a high tone counts most in loudness."""
    alone = ("-f", "lavfi", "-i", f"sine=d=2:f=3000,pan=7.1|c{channel}=c0")
    source = make(f"alone-{channel}.mkv", *PICTURE, *alone, "-c:v", "ffv1", "-c:a", "flac")
    assert extract_audio(runner, source, tmp_path / "sound.flac").mono_from == "all channels"


def test_a_sound_too_short_to_have_a_loudness_is_not_silent(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    source = make("blip.mkv", *PICTURE, "-f", "lavfi", "-i", "sine=d=0.2", "-t", "0.2", "-c:v", "ffv1", "-c:a", "flac")
    assert not extract_audio(runner, source, tmp_path / "sound.flac").is_silent


def test_many_channels_and_low_rates_are_read(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    for layout, rate in (("5.1", 48_000), ("mono", 8000)):
        sound = ("-f", "lavfi", "-i", f"sine=d=6:r={rate},aformat=channel_layouts={layout}")
        source = make(f"{layout}.mkv", *PICTURE, *sound, "-c:v", "ffv1", "-c:a", "flac", "-ar", str(rate))
        report = extract_audio(runner, source, tmp_path / f"{layout}.flac")
        assert report.duration_ms == pytest.approx(6000, abs=2)
        assert not report.is_silent


def test_a_video_without_sound_is_refused_and_leaves_nothing(
    colours: Path, runner: FfmpegRunner, tmp_path: Path
) -> None:
    with pytest.raises(MediaError, match="has no sound"):
        extract_audio(runner, colours, tmp_path / "sound.flac")
    assert list(tmp_path.iterdir()) == []


def test_pauses_are_found_in_a_noisy_room_and_in_a_quiet_voice() -> None:
    noise = np.random.default_rng(1).normal(0, 1, SAMPLE_RATE)
    for voice, room in ((0.5, 0.02), (0.01, 0.0002)):
        parts = [tone(voice, 2), room * noise[: SAMPLE_RATE // 2], tone(voice, 2), room * noise, tone(voice, 1)]
        assert metered(*parts).silences() == (Span(2000, 2500), Span(4500, 5500))


def test_short_closures_and_steady_sound_are_no_pauses() -> None:
    assert metered(tone(0.5, 2), tone(0, 0.3), tone(0.5, 2)).silences() == ()
    assert metered(tone(0.5, 5)).silences() == ()
    assert metered(tone(0.5, 2), tone(0.3, 2)).silences() == ()


def test_the_meter_does_not_depend_on_how_the_samples_come() -> None:
    parts = [tone(0.5, 1.111), tone(0, 0.777), tone(0.1, 0.5)]
    meters = [metered(*parts, chunk=chunk) for chunk in (1, 640, 10**6)]
    assert len({(meter.rms_db(), meter.silences(), meter.duration_ms) for meter in meters}) == 1


def test_no_samples_have_no_levels() -> None:
    meter = LevelMeter()
    meter.finish()
    assert (meter.rms_db(), meter.silences(), meter.duration_ms) == ((), (), 0)
