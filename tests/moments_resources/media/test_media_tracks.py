from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moments_resources.media.runner import FfmpegRunner
from moments_resources.media.tracks import embedded_captions

Make = Callable[..., Path]

SRT = """1
00:00:01,000 --> 00:00:02,500
First, <i>slanted</i> line

2
00:00:03,000 --> 00:00:04,000
Zweite Zeile: äöü & 😀
"""


@pytest.fixture
def srt(tmp_path: Path) -> Path:
    path = tmp_path / "captions.srt"
    path.write_text(SRT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "mov_text"), ("mkv", "subrip"), ("mkv", "ass"), ("webm", "webvtt")]
)
def test_captions_inside_a_video_come_out_as_webvtt(
    flash_beep: Make, make: Make, runner: FfmpegRunner, srt: Path, suffix: str, codec: str
) -> None:
    film = flash_beep("webm" if suffix == "webm" else "mp4")
    inputs = ("-i", film, "-i", srt, "-i", srt, "-map", "0", "-map", "1", "-map", "2", "-c", "copy", "-c:s", codec)
    source = make(
        f"captions-{codec}.{suffix}", *inputs, "-metadata:s:s:0", "language=eng", "-metadata:s:s:1", "language=und"
    )
    english, unnamed = embedded_captions(runner, source)
    assert (english.language, unnamed.language) == ("eng", None)
    assert english.text.startswith("WEBVTT")
    assert "00:01.000 --> 00:02.500" in english.text
    assert "Zweite Zeile: äöü & 😀" in unnamed.text


def test_captions_count_from_the_start_of_the_presentation(
    flash_beep: Make, make: Make, runner: FfmpegRunner, srt: Path
) -> None:
    film = flash_beep("mp4")
    inputs = ("-i", film, "-i", srt, "-map", "0", "-map", "1", "-c", "copy", "-output_ts_offset", "5")
    [captions] = embedded_captions(runner, make("offset.mkv", *inputs))
    assert "00:01.000 --> 00:02.500" in captions.text


def test_a_video_without_captions_has_none(runner: FfmpegRunner, colours: Path) -> None:
    assert embedded_captions(runner, colours) == []
