from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moments_core.errors import MediaError
from moments_resources.media.stills import filmstrip, stills

Make = Callable[..., Path]

# Container, second of the first picture, second of the first sound.
STARTS = [
    *(("mp4", 0, 0), ("mp4", 0, 2), ("mp4", 2, 0)),
    *(("mkv", 0, 2), ("mkv", 2, 0)),
    *(("ts", 0, 0), ("ts", 0, 2), ("ts", 2, 0)),
    ("webm", 0, 0),
]


def picture(jpeg: bytes) -> np.ndarray:
    import av

    decoder = av.CodecContext.create("mjpeg", "r")
    return [*decoder.decode(av.Packet(jpeg)), *decoder.decode(None)][0].to_ndarray(format="rgb24")


def colour(path: Path) -> str:
    return ("red", "green", "blue")[int(picture(path.read_bytes()).reshape(-1, 3).mean(axis=0).argmax())]


def test_a_still_shows_the_first_frame_at_or_after_its_time(colours: Path, tmp_path: Path) -> None:
    times = [11_000, 0, 3961, 3960, 4000, 7990, 8000]
    made = stills(colours, times, tmp_path)
    assert [still.time_ms for still in made] == [11_000, 0, 4000, 3960, 4000, 8000, 8000]
    assert [colour(still.path) for still in made] == ["blue", "red", "green", "red", "green", "blue", "blue"]
    assert {(still.width, still.height) for still in made} == {(320, 240)}


def test_after_the_end_the_last_frame_is_shown(colours: Path, tmp_path: Path) -> None:
    assert [still.time_ms for still in stills(colours, [12_000, 99_999_999], tmp_path)] == [11_960, 11_960]


@pytest.mark.parametrize(("suffix", "video_from", "sound_from"), STARTS)
def test_stills_lie_on_the_clock_of_the_container(
    flash_beep: Make, tmp_path: Path, suffix: str, video_from: int, sound_from: int
) -> None:
    source = flash_beep(suffix, video_from=video_from, sound_from=sound_from)
    black, white, after = stills(source, [2900, 3080, 3300], tmp_path)
    assert [picture(still.path.read_bytes()).mean() > 128 for still in (black, white, after)] == [False, True, False]
    [first] = stills(source, [0], tmp_path)
    assert first.time_ms == pytest.approx(video_from * 1000, abs=40)


def test_a_container_that_cannot_be_wound_back_has_stills(make: Make, tmp_path: Path) -> None:
    inputs = ("-f", "lavfi", "-i", "testsrc=s=64x64:r=25:d=2", "-f", "lavfi", "-i", "sine=d=2")
    flat = make("flat.flv", *inputs, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac")
    assert [still.time_ms for still in stills(flat, [1000, 0, 99_000], tmp_path)] == pytest.approx(
        [1000, 0, 1960], abs=81
    )


def test_a_turned_video_gives_upright_stills(make: Make, tmp_path: Path) -> None:
    halves = "color=red:s=80x120:r=25:d=1[a];color=blue:s=80x120:r=25:d=1[b];[a][b]hstack"
    flat = make("halves.mp4", "-filter_complex", halves, "-c:v", "libx264", "-pix_fmt", "yuv420p")
    for angle, lower in (("90", 0), ("-90", 2)):
        turned = make(f"turned{angle}.mp4", "-display_rotation", angle, "-i", flat, "-c", "copy")
        [still] = stills(turned, [0], tmp_path, width=60)
        assert (still.width, still.height) == (60, 80)
        assert picture(still.path.read_bytes())[50:].reshape(-1, 3).mean(axis=0).argmax() == lower


def test_stills_have_square_pixels(make: Make, tmp_path: Path) -> None:
    wide = make("wide.mkv", "-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=1", "-vf", "setsar=2", "-c:v", "ffv1")
    [still] = stills(wide, [500], tmp_path)
    assert (still.width, still.height) == (320, 120)


def test_a_file_without_picture_has_no_stills(make: Make, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no picture"):
        stills(make("sound.m4a", "-f", "lavfi", "-i", "sine=d=1"), [0], tmp_path)


def test_a_filmstrip_lays_pictures_side_by_side_in_few_bytes(colours: Path, tmp_path: Path) -> None:
    paths = [still.path for still in stills(colours, [1000, 5000, 9000], tmp_path)]
    strip = filmstrip(paths)
    assert len(strip) <= 20_000
    shown = picture(strip)
    thirds = np.array_split(shown, 3, axis=1)
    assert [int(third.reshape(-1, 3).mean(axis=0).argmax()) for third in thirds] == [0, 1, 2]


def test_a_filmstrip_gets_smaller_until_it_fits(make: Make, tmp_path: Path) -> None:
    noise = make(
        "noise.mkv", "-f", "lavfi", "-i", "nullsrc=s=160x120:r=25:d=2,geq=random(1)*255:128:128", "-c:v", "ffv1"
    )
    paths = [still.path for still in stills(noise, list(range(0, 2000, 100)), tmp_path)]
    assert len(filmstrip(paths, max_bytes=12_000)) <= 12_000
    with pytest.raises(ValueError, match="do not fit"):
        filmstrip(paths, max_bytes=900)
    with pytest.raises(ValueError, match="at least one"):
        filmstrip([])
