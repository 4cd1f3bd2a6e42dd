from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from moments_resources.media.changes import cuts_among
from moments_resources.media.probe import probe_video
from moments_resources.media.runner import FfmpegRunner
from moments_resources.media.scenes import scene_cuts

Make = Callable[..., Path]

# Container, second of the first picture, second of the first sound.
STARTS = [
    *(("mp4", 0, 0), ("mp4", 0, 2), ("mp4", 2, 0)),
    *(("mkv", 0, 2), ("mkv", 2, 0)),
    *(("ts", 0, 0), ("ts", 0, 2), ("ts", 2, 0)),
    ("webm", 0, 0),
]


def times(runner: FfmpegRunner, source: Path) -> list[int]:
    return [cut.time_ms for cut in scene_cuts(runner, source)]


def test_cuts_are_found_at_their_frame_and_none_at_the_start(runner: FfmpegRunner, colours: Path) -> None:
    seen: list[int] = []
    cuts = scene_cuts(runner, colours, probe_video(colours), on_progress=seen.append)
    assert [cut.time_ms for cut in cuts] == [4000, 8000]
    assert all(0 < cut.score <= 1 for cut in cuts)
    assert seen[-1] == 12_000


@pytest.mark.parametrize(("suffix", "video_from", "sound_from"), STARTS)
def test_cuts_lie_on_the_clock_of_the_container(
    flash_beep: Make, runner: FfmpegRunner, suffix: str, video_from: int, sound_from: int
) -> None:
    found = times(runner, flash_beep(suffix, video_from=video_from, sound_from=sound_from))
    assert found == [pytest.approx(3000, abs=41)]


def test_one_line_that_moves_on_a_white_slide_is_found(make: Make, runner: FfmpegRunner) -> None:
    line = "drawbox=x={x}:y={y}:w=500:h=12:c=black:t=fill:enable='between(t,{start},{end})'"
    heading = "drawbox=x=100:y=100:w=600:h=20:c=black:t=fill"
    lines = [line.format(x=100, y=200, start=0, end=3.99), line.format(x=100, y=260, start=4, end=99)]
    source = ",".join(["color=white:s=1280x720:r=10:d=8", heading, *lines])
    slides = make("slides.mp4", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "30")
    assert times(runner, slides) == [pytest.approx(4000, abs=101)]


def test_slides_that_differ_in_colour_alone_are_found(make: Make, runner: FfmpegRunner) -> None:
    # Both have the same brightness.
    inputs = [("-f", "lavfi", "-i", f"color={colour}:s=160x120:r=10:d=3") for colour in ("0x767676", "0x9966AA")]
    slides = make("tints.mkv", *(part for each in inputs for part in each), "-filter_complex", "concat", "-c:v", "ffv1")
    assert times(runner, slides) == [3000]


def test_movement_and_noise_are_no_cuts(make: Make, runner: FfmpegRunner) -> None:
    source = "testsrc2=s=320x180:r=25:d=6,noise=alls=30:allf=t"
    moving = make("moving.mp4", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "35")
    assert times(runner, moving) == []


def test_of_two_boundaries_within_half_a_second_the_stronger_one_counts() -> None:
    changes = array("d", [0.0] * 200)
    changes[50], changes[55], changes[100] = 8.0, 20.0, 10.0
    assert [(cut.time_ms, cut.score) for cut in cuts_among(changes, frame_ms=40)] == [(2200, 0.2), (4000, 0.1)]


def test_a_cut_within_movement_stands_out_of_it() -> None:
    changes = array("d", [2.0, 3.0] * 50)
    assert cuts_among(changes, frame_ms=40) == []
    changes[60] = 25.0
    assert [cut.time_ms for cut in cuts_among(changes, frame_ms=40)] == [2400]


def test_no_frames_have_no_cuts() -> None:
    assert cuts_among(array("d"), frame_ms=40) == []
