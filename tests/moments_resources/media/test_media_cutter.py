from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from moments_core.errors import MediaError
from moments_core.time import Span
from moments_resources.media.cutter import check_clip, cut_clip, output_rate
from moments_resources.media.probe import probe_video
from moments_resources.media.runner import FfmpegRunner

Make = Callable[..., Path]

# Container, second of the first picture, second of the first sound.
STARTS = [
    *(("mp4", 0, 0), ("mp4", 0, 2), ("mp4", 2, 0)),
    *(("mkv", 0, 2), ("mkv", 2, 0)),
    *(("ts", 0, 0), ("ts", 0, 2), ("ts", 2, 0)),
    ("webm", 0, 0),
]

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def pictures(clip: Path) -> list[tuple[float, np.ndarray]]:
    """Time in seconds and RGB of each frame."""
    import av

    with av.open(str(clip)) as container:
        return [(frame.time or 0.0, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def colours_of(clip: Path, *seconds: float) -> list[str]:
    """What is on screen at each time."""
    shown = pictures(clip)
    at = [[picture for time, picture in shown if time <= second + 1e-6][-1] for second in seconds]
    return [("red", "green", "blue")[int(picture.reshape(-1, 3).mean(axis=0).argmax())] for picture in at]


def sound(clip: Path) -> np.ndarray:
    import av

    with av.open(str(clip)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def loud_s(clip: Path) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(sound(clip)) > 0.05) / 48_000
    return float(loud[0]), float(loud[-1])


def made(runner: FfmpegRunner, source: Path, span: Span, folder: Path) -> Path:
    """The clip, checked for what every clip must be."""
    import av

    clip, probe = folder / "clip.mp4", probe_video(source)
    report = cut_clip(runner, source, span, clip, probe)
    frame_ms = 1000 / output_rate(probe)
    assert abs(report.duration_ms - span.length_ms) <= frame_ms
    decoded = check_clip(runner, clip)
    assert decoded.frames == report.frames
    assert abs(decoded.duration_ms - span.length_ms) <= frame_ms + 1
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux() if packet.pts is not None]
        assert {stream.start_time for stream in container.streams} == {0}
        assert 0 in [packet.pts for packet in packets if packet.stream.type == "video"]
        assert all(packet.pts == packet.dts for packet in packets)
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height) == (report.width, report.height)
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"] * probe.has_audio
    assert report.bytes == clip.stat().st_size
    return clip


@pytest.mark.parametrize(("start_ms", "end_ms"), [(0, 5000), (3000, 9000), (3960, 4040), (7000, 12_000)])
def test_a_clip_shows_exactly_its_span(
    runner: FfmpegRunner, colours: Path, tmp_path: Path, start_ms: int, end_ms: int
) -> None:
    clip = made(runner, colours, Span(start_ms, end_ms), tmp_path)
    times = [time for time, _ in pictures(clip)]
    expected = [("red", "green", "blue")[min(2, (start_ms + round(time * 1000)) // 4000)] for time in times]
    assert colours_of(clip, *times) == expected


@pytest.mark.parametrize(("suffix", "video_from", "sound_from"), STARTS)
@pytest.mark.parametrize("start_ms", [1510, 3010])
def test_picture_and_sound_of_a_clip_stay_together(
    flash_beep: Make, runner: FfmpegRunner, tmp_path: Path, suffix: str, video_from: int, sound_from: int, start_ms: int
) -> None:
    source = flash_beep(suffix, video_from=video_from, sound_from=sound_from)
    clip = made(runner, source, Span(start_ms, 4100), tmp_path)
    flash = [time for time, picture in pictures(clip) if picture.mean() > 128]
    begin, end = loud_s(clip)
    expected = max(0.0, 3.0 - start_ms / 1000)
    assert flash[0] == pytest.approx(expected, abs=0.041)
    assert begin == pytest.approx(expected, abs=0.041)
    assert end == pytest.approx(3.2 - start_ms / 1000, abs=0.06)


def test_a_clip_from_the_middle_of_a_long_picture_begins_with_it(
    make: Make, runner: FfmpegRunner, tmp_path: Path
) -> None:
    """Slides with one frame each 4 s: at 3.0 s the red one is on screen, though its frame came at 0."""
    inputs = [("-f", "lavfi", "-i", f"color={colour}:s=160x120:r=25:d=4") for colour in ("red", "lime", "blue")]
    graph = "concat=n=3,select='eq(n,0)+eq(n,1)+eq(n,100)+eq(n,200)+eq(n,299)'"
    arguments = [part for each in inputs for part in each]
    source = make("slides.mkv", *arguments, "-filter_complex", graph, "-fps_mode", "vfr", *X264)
    assert probe_video(source).variable_frame_rate
    clip = made(runner, source, Span(3000, 9000), tmp_path)
    assert colours_of(clip, 0, 0.9, 1.1, 4.9, 5.1) == ["red", "red", "green", "green", "blue"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("start_ms", "end_ms"), [(1000, 3000), (4000, 5000), (5500, 6500)])
def test_the_last_picture_is_held_where_the_sound_outlasts_it(
    make: Make, runner: FfmpegRunner, tmp_path: Path, suffix: str, start_ms: int, end_ms: int
) -> None:
    inputs = ("-f", "lavfi", "-i", "color=lime:s=160x120:r=25:d=2", "-f", "lavfi", "-i", "sine=d=6")
    clip = made(runner, make(f"short.{suffix}", *inputs, *X264, "-c:a", "aac"), Span(start_ms, end_ms), tmp_path)
    assert set(colours_of(clip, *(time for time, _ in pictures(clip)))) == {"green"}
    last_s = (min(end_ms, 6000) - start_ms) / 1000
    assert list(loud_s(clip)) == pytest.approx([0, last_s], abs=0.03)
    assert len(sound(clip)) / 48_000 == pytest.approx((end_ms - start_ms) / 1000, abs=0.03)


@pytest.mark.parametrize(("size", "shown"), [("321x241", (322, 242)), ("2x2", (2, 2)), ("1x1", (2, 2))])
def test_odd_sizes_become_even(
    make: Make, runner: FfmpegRunner, tmp_path: Path, size: str, shown: tuple[int, int]
) -> None:
    source = make(f"size-{size}.mkv", "-f", "lavfi", "-i", f"color=red:s={size}:r=25:d=1", "-c:v", "ffv1")
    clip = made(runner, source, Span(200, 800), tmp_path)
    assert pictures(clip)[0][1].shape[:2] == shown[::-1]
    assert colours_of(clip, 0) == ["red"]


def test_a_turned_video_is_cut_upright(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    """Half red (left), half blue; turned by 90 degrees counterclockwise the red is at the bottom."""
    halves = "color=red:s=80x120:r=25:d=1[a];color=blue:s=80x120:r=25:d=1[b];[a][b]hstack"
    flat = make("halves.mp4", "-filter_complex", halves, *X264)
    turned = make("turned.mp4", "-display_rotation", "90", "-i", flat, "-c", "copy")
    _, picture = pictures(made(runner, turned, Span(0, 500), tmp_path))[0]
    assert picture.shape[:2] == (160, 120)
    assert picture[120:].reshape(-1, 3).mean(axis=0).argmax() == 0
    assert picture[:40].reshape(-1, 3).mean(axis=0).argmax() == 2


def test_pixels_that_are_not_square_become_square(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    source = make("wide.mp4", "-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=1", "-vf", "setsar=2", *X264)
    assert pictures(made(runner, source, Span(0, 500), tmp_path))[0][1].shape[:2] == (120, 320)


def test_ten_bits_become_eight(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    codec = ("-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")
    source = make("ten.mp4", "-f", "lavfi", "-i", "color=lime:s=160x120:r=25:d=1", *codec)
    assert colours_of(made(runner, source, Span(0, 500), tmp_path), 0) == ["green"]


def test_white_of_high_dynamic_range_is_white_in_the_clip(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    # 58 % of the signal is 203 cd/m2 in PQ, the white of graphics; shown as it is, it would be grey (148 of 255).
    luma = "geq=lum=64+876*0.58:cb=512:cr=512"
    tags = "setparams=color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc:range=tv"
    source = f"color=s=64x64:r=25:d=1,format=yuv420p10le,{luma},{tags}"
    codec = ("-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")
    clip = made(runner, make("hdr.mp4", "-f", "lavfi", "-i", source, *codec), Span(0, 500), tmp_path)
    assert pictures(clip)[0][1].mean() > 200


@pytest.mark.parametrize(("rate", "length_s"), [("5", 2), ("120", 1), ("30000/1001", 1)])
def test_slow_and_fast_pictures_keep_their_time(
    make: Make, runner: FfmpegRunner, tmp_path: Path, rate: str, length_s: int
) -> None:
    source = f"testsrc=s=64x64:r={rate}:d={length_s}"
    path = make(f"rate-{rate.replace('/', '-')}.mp4", "-f", "lavfi", "-i", source, *X264)
    assert 24 <= output_rate(probe_video(path)) <= 60
    made(runner, path, Span(100, length_s * 1000), tmp_path)


def test_rates_between_24_and_60_are_kept_and_others_multiplied_or_divided(make: Make) -> None:
    path = make("rate-5.mp4", "-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=2", *X264)
    assert output_rate(probe_video(path)) == Fraction(25)


@pytest.mark.parametrize("arguments", [("-frames:v", "1"), ("-t", "0.2")])
def test_a_video_of_one_frame_is_cut(
    make: Make, runner: FfmpegRunner, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    source = make(f"tiny{arguments[1]}.mp4", "-f", "lavfi", "-i", "color=red:s=64x64:r=25", *arguments, *X264)
    made(runner, source, Span(0, probe_video(source).duration_ms), tmp_path)


def test_a_file_without_a_length_or_an_index_is_cut(make: Make, runner: FfmpegRunner, tmp_path: Path) -> None:
    inputs = [("-f", "lavfi", "-i", f"color={colour}:s=64x64:r=25:d=2") for colour in ("red", "lime")]
    arguments = [part for each in inputs for part in each]
    codec = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-f", "webm", "-live", "1")
    clip = made(runner, make("live.webm", *arguments, "-filter_complex", "concat", *codec), Span(1500, 3500), tmp_path)
    assert colours_of(clip, 0, 0.45, 0.55, 1.9) == ["red", "red", "green", "green"]


def test_the_same_span_gives_the_same_bytes(runner: FfmpegRunner, colours: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        cut_clip(runner, colours, Span(3500, 4500), tmp_path / name, probe_video(colours))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_span_after_the_end_is_refused(runner: FfmpegRunner, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="after the end"):
        cut_clip(runner, colours, Span(12_000, 13_000), tmp_path / "clip.mp4", probe_video(colours))
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_does_not_decode_is_noticed(runner: FfmpegRunner, colours: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    cut_clip(runner, colours, Span(0, 5000), clip, probe_video(colours))
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 60] = b"\xff" * 60
    clip.write_bytes(data)
    with pytest.raises(MediaError):
        check_clip(runner, clip)
