"""The small copy of a clip that models watch, read by a decoder that knows no edit lists, as theirs."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from moments_core.errors import MediaError
from moments_core.time import Span
from moments_resources.media.cutter import cut_clip
from moments_resources.media.probe import probe_video
from moments_resources.media.proxy import ProxyReport, make_proxy, shape_of
from moments_resources.media.runner import FfmpegRunner
from tests.stand_ins.watched_video import WatchedVideo, watch

Make = Callable[..., Path]

_PARENTS = {"moov", "trak", "edts", "mdia", "minf", "stbl"}


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each ISO box, those inside others too, in their order."""
    position = 0
    while position + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        content = data[position + 8 : position + length]
        yield name.decode(), content
        if name.decode() in _PARENTS:
            yield from boxes(content)
        position += length


def watched(path: Path) -> WatchedVideo:
    return watch("data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode(), longest_s=3600)


def clip_of(source: Path, span: Span, folder: Path, runner: FfmpegRunner) -> Path:
    cut_clip(runner, source, span, folder / "clip.mp4", probe_video(source))
    return folder / "clip.mp4"


@pytest.fixture
def proxy_of(runner: FfmpegRunner, tmp_path: Path) -> Callable[[Path], tuple[Path, ProxyReport]]:
    def make(clip: Path) -> tuple[Path, ProxyReport]:
        target = tmp_path / "proxy.mp4"
        return target, make_proxy(runner, clip, target)

    return make


Proxy = Callable[[Path], tuple[Path, ProxyReport]]


def test_a_proxy_has_no_edit_list_no_sound_and_its_index_in_front(
    runner: FfmpegRunner, flash_beep: Make, tmp_path: Path, proxy_of: Proxy
) -> None:
    path, _ = proxy_of(clip_of(flash_beep("mp4"), Span(0, 5000), tmp_path, runner))
    names = [name for name, _ in boxes(path.read_bytes())]
    assert "edts" not in names
    assert "elst" not in names
    assert names.index("moov") < names.index("mdat")
    assert not watched(path).has_sound
    assert names.count("trak") == 1


def test_no_picture_of_a_proxy_waits_for_a_later_one(
    runner: FfmpegRunner, make: Make, tmp_path: Path, proxy_of: Proxy
) -> None:
    import av

    source = make("moving.mp4", "-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=6", "-c:v", "libx264")
    path, report = proxy_of(clip_of(source, Span(500, 5500), tmp_path, runner))
    assert "ctts" not in [name for name, _ in boxes(path.read_bytes())]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
        assert [packet.pts * packet.time_base for packet in packets] == [Fraction(n, 4) for n in range(len(packets))]
        assert stream.average_rate == report.fps == 4
    assert len(packets) == report.frames == 20


def test_every_picture_of_a_proxy_is_what_the_clip_shows_at_that_time(
    runner: FfmpegRunner, colours: Path, tmp_path: Path, proxy_of: Proxy
) -> None:
    """The clip turns from red to green at 2.6 s: 2.5 is red, though 2.6 is nearer to it than 2.4."""
    path, _ = proxy_of(clip_of(colours, Span(1400, 11_000), tmp_path, runner))
    seen = watched(path)
    shown = [("red", "green", "blue")[rgb.index(max(rgb))] for rgb in seen.mean_rgb]
    clip_ms = [1400 + time for time in seen.picture_ms]
    assert shown == [("red", "green", "blue")[time // 4000] for time in clip_ms]
    assert seen.change_ms == 2750


@pytest.mark.parametrize("length_ms", [40, 240, 1000, 4240, 4960])
def test_a_proxy_is_as_long_as_its_clip_less_at_most_one_picture(
    runner: FfmpegRunner, colours: Path, tmp_path: Path, proxy_of: Proxy, length_ms: int
) -> None:
    path, report = proxy_of(clip_of(colours, Span(1000, 1000 + length_ms), tmp_path, runner))
    assert watched(path).duration_ms == report.duration_ms
    assert report.duration_ms == max(250, length_ms // 250 * 250)
    assert len(watched(path).picture_ms) == report.frames


@pytest.mark.parametrize(
    ("width", "height", "shown"),
    [
        (1920, 1080, (480, 270)),
        (1080, 1920, (270, 480)),
        (1280, 544, (480, 204)),
        (4000, 20, (480, 2)),
        (320, 240, (320, 240)),
        (2, 2, (2, 2)),
    ],
)
def test_the_longest_side_is_480_and_nothing_is_enlarged(width: int, height: int, shown: tuple[int, int]) -> None:
    shape = shape_of(10_000, width, height)
    assert (shape.width, shape.height) == shown


def test_a_tall_clip_stays_tall(runner: FfmpegRunner, make: Make, tmp_path: Path, proxy_of: Proxy) -> None:
    source = make("tall.mp4", "-f", "lavfi", "-i", "color=red:s=540x960:r=25:d=2", "-c:v", "libx264")
    path, report = proxy_of(clip_of(source, Span(0, 2000), tmp_path, runner))
    assert (report.width, report.height) == (270, 480) == (watched(path).width, watched(path).height)


@pytest.mark.parametrize(
    ("minutes", "rate", "frames"), [(5, 4, 1200), (6, 2, 720), (20, 1, 1200), (30, Fraction(1, 2), 900)]
)
def test_a_long_clip_gets_fewer_pictures_a_second_still_at_quarters(minutes: int, rate: Fraction, frames: int) -> None:
    shape = shape_of(minutes * 60_000, 640, 360)
    assert (shape.rate, shape.frames) == (rate, frames)
    assert Fraction(4) % shape.rate == 0


def test_a_proxy_at_a_lower_rate_keeps_its_times(
    runner: FfmpegRunner, make: Make, tmp_path: Path, proxy_of: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moments_resources.media.proxy._MOST_FRAMES", 3)
    halves = "color=red:s=64x64:r=25:d=4[a];color=lime:s=64x64:r=25:d=4[b];[a][b]concat"
    source = make("halves.mp4", "-filter_complex", halves, "-c:v", "libx264")
    path, report = proxy_of(clip_of(source, Span(0, 8000), tmp_path, runner))
    assert (report.fps, report.frames, report.duration_ms) == (Fraction(1, 4), 2, 8000)
    assert watched(path).change_ms == 4000


def test_the_same_clip_gives_the_same_bytes(
    runner: FfmpegRunner, colours: Path, tmp_path: Path, proxy_of: Proxy
) -> None:
    clip = clip_of(colours, Span(0, 3000), tmp_path, runner)
    first, second = proxy_of(clip)[0].read_bytes(), proxy_of(clip)[0].read_bytes()
    assert first == second
    assert re.search(rb"Lav[fc] ?\d", first) is None  # the version of ffmpeg


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_clip_is_refused_and_nothing_is_left(
    runner: FfmpegRunner, tmp_path: Path, content: bytes, proxy_of: Proxy
) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(MediaError):
        proxy_of(tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_clip_that_does_not_decode_to_its_end_is_refused_and_nothing_is_left(
    runner: FfmpegRunner, make: Make, tmp_path: Path, proxy_of: Proxy, kept: float
) -> None:
    source = make("moving.mp4", "-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=6", "-c:v", "libx264")
    clip = clip_of(source, Span(0, 6000), tmp_path, runner)
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    zeros = int((len(data) - start) * (1 - kept))
    data[-zeros:] = bytes(zeros)
    clip.write_bytes(data)
    with pytest.raises(MediaError):
        proxy_of(clip)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
