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


@pytest.fixture
def subtitled(flash_beep: Make, make: Make, srt: Path) -> Callable[..., Path]:
    """`subtitled("eng default", "ger")`: a film in German with a track each, of these languages and dispositions."""

    def made(*tracks: str, sound: str = "ger") -> Path:
        marks: list[str] = []
        for number, track in enumerate(tracks):
            language, _, disposition = track.partition(" ")
            marks += [f"-metadata:s:s:{number}", f"language={language}", f"-disposition:s:{number}", disposition or "0"]
        inputs = (part for _ in tracks for part in ("-i", srt))
        maps = (part for number in range(len(tracks)) for part in ("-map", str(number + 1)))
        film = ("-i", flash_beep("mp4"), *inputs, "-map", "0", *maps, "-c", "copy", "-c:s", "subrip")
        return make("film.mkv", *film, *marks, "-metadata:s:a:0", f"language={sound}")

    return made


def spoilt(source: Path, target: Path, *, tracks: int) -> Path:
    """The first captions in another encoding than UTF-8: ffmpeg gives up on such a track."""
    target.write_bytes(
        source.read_bytes().replace(b"First", b"\xff" * 5, tracks).replace(b"Zweite", b"\xff" * 6, tracks)
    )
    return target


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "mov_text"), ("mkv", "subrip"), ("mkv", "ass"), ("webm", "webvtt")]
)
def test_captions_inside_a_video_come_out_as_webvtt(
    flash_beep: Make, make: Make, runner: FfmpegRunner, srt: Path, tmp_path: Path, suffix: str, codec: str
) -> None:
    film = flash_beep("webm" if suffix == "webm" else "mp4")
    inputs = ("-i", film, "-i", srt, "-map", "0", "-map", "1", "-c", "copy", "-c:s", codec)
    source = make(f"captions-{codec}.{suffix}", *inputs, "-metadata:s:s:0", "language=eng")
    captions, notes = embedded_captions(runner, source, tmp_path)
    assert captions is not None
    assert (captions.language, notes) == ("eng", ())
    assert captions.text.startswith("WEBVTT")
    assert "00:01.000 --> 00:02.500" in captions.text
    assert "Zweite Zeile: äöü & 😀" in captions.text
    assert list(tmp_path.glob("*.vtt")) != []  # what a killed step leaves behind is left in its own folder


@pytest.mark.parametrize(
    ("tracks", "chosen"),
    [
        (("eng default", "ger"), "ger"),
        (("fre", "eng default", "spa"), "eng"),
        (("fre default", "eng"), "fre"),
        (("fre", "eng"), "eng"),
        (("fre", "spa"), "fre"),
        (("und", "eng"), "eng"),
        (("und",), None),
        (("ger forced", "ger comment", "fre"), "fre"),
    ],
)
def test_the_track_that_says_best_what_is_spoken_is_taken(
    subtitled: Callable[..., Path], runner: FfmpegRunner, tmp_path: Path, tracks: tuple[str, ...], chosen: str | None
) -> None:
    captions, _ = embedded_captions(runner, subtitled(*tracks), tmp_path)
    assert captions is not None
    assert captions.language == chosen


def test_a_language_that_nobody_names_is_not_taken_for_the_sounds(
    subtitled: Callable[..., Path], runner: FfmpegRunner, tmp_path: Path
) -> None:
    captions, _ = embedded_captions(runner, subtitled("und", "eng", sound="und"), tmp_path)
    assert captions is not None
    assert captions.language == "eng"


def test_forced_captions_alone_are_none(subtitled: Callable[..., Path], runner: FfmpegRunner, tmp_path: Path) -> None:
    assert embedded_captions(runner, subtitled("ger forced"), tmp_path) == (None, ())


def test_a_track_that_can_not_be_read_gives_way_to_the_next_and_is_named(
    subtitled: Callable[..., Path], runner: FfmpegRunner, tmp_path: Path
) -> None:
    film = spoilt(subtitled("ger", "eng"), tmp_path / "film.mkv", tracks=1)
    captions, notes = embedded_captions(runner, film, tmp_path)
    assert captions is not None
    assert captions.language == "eng"
    assert notes == ("The captions inside the file (stream 2, ger) can't be read.",)


def test_a_file_full_of_broken_tracks_is_not_read_once_for_each(
    subtitled: Callable[..., Path], runner: FfmpegRunner, tmp_path: Path
) -> None:
    film = spoilt(subtitled(*["ger"] * 5), tmp_path / "film.mkv", tracks=5)
    captions, notes = embedded_captions(runner, film, tmp_path)
    assert captions is None
    assert len(notes) == 3


def test_captions_count_from_the_start_of_the_presentation(
    flash_beep: Make, make: Make, runner: FfmpegRunner, srt: Path, tmp_path: Path
) -> None:
    film = flash_beep("mp4")
    inputs = ("-i", film, "-i", srt, "-map", "0", "-map", "1", "-c", "copy", "-output_ts_offset", "5")
    captions, _ = embedded_captions(runner, make("offset.mkv", *inputs), tmp_path)
    assert captions is not None
    assert "00:01.000 --> 00:02.500" in captions.text


def test_a_video_without_captions_has_none(runner: FfmpegRunner, colours: Path, tmp_path: Path) -> None:
    assert embedded_captions(runner, colours, tmp_path) == (None, ())
