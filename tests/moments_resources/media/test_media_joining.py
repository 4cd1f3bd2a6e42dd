"""Two files become one, without a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moments_core.errors import MediaError
from moments_resources.media.joining import join_streams
from moments_resources.media.probe import probe_video
from moments_resources.media.runner import FfmpegRunner


@pytest.fixture
def picture(make: Callable[..., Path]) -> Path:
    return make("picture.mp4", "-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=3", "-c:v", "libx264", "-an")


@pytest.fixture
def sound(make: Callable[..., Path]) -> Path:
    return make("sound.webm", "-f", "lavfi", "-i", "sine=f=440:d=3", "-c:a", "libopus")


def test_picture_and_sound_of_two_files_play_as_one(
    runner: FfmpegRunner, picture: Path, sound: Path, tmp_path: Path
) -> None:
    target = tmp_path / "both.mkv"
    join_streams(runner, picture, sound, target)
    probe = probe_video(target)
    assert (probe.video_codec, probe.audio_codec) == ("h264", "opus")
    assert abs(probe.duration_ms - 3000) <= 40
    assert [path.name for path in tmp_path.iterdir()] == ["both.mkv"]


def test_a_file_without_sound_is_refused_and_leaves_nothing(
    runner: FfmpegRunner, picture: Path, tmp_path: Path
) -> None:
    with pytest.raises(MediaError):
        join_streams(runner, picture, picture, tmp_path / "both.mkv")
    assert list(tmp_path.iterdir()) == []
