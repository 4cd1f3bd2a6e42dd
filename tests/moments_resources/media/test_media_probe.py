from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from moments_core.errors import MediaError
from moments_resources.media.container import compiled, guarded_input, opened
from moments_resources.media.probe import probe_video
from moments_resources.media.runner import FfmpegRunner

Make = Callable[..., Path]

TESTSRC = ("-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=2")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def film(make: Make) -> Path:
    """8 s of noise and tone, 400 kB, so that a cut takes seconds away."""
    noise = "testsrc2=s=160x120:r=25:d=8,noise=alls=40:allf=t"
    sound = ("-f", "lavfi", "-i", "sine=f=440:d=8")
    return make("film.mp4", "-f", "lavfi", "-i", noise, *sound, *X264, "-c:a", "aac", "-movflags", "+faststart")


def cut(source: Path, folder: Path, share: float) -> Path:
    target = folder / f"cut{source.suffix}"
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def test_a_healthy_video_is_described(film: Path) -> None:
    probe = probe_video(film)
    assert (probe.duration_ms, probe.width, probe.height) == (8000, 160, 120)
    assert (probe.frame_rate, probe.fps, probe.variable_frame_rate) == (Fraction(25), 25.0, False)
    assert (probe.video_codec, probe.audio_codec, probe.has_audio) == ("h264", "aac", True)
    assert probe.bytes == film.stat().st_size
    assert [stream.kind for stream in probe.streams] == ["video", "audio"]


@pytest.mark.parametrize("suffix", ["mkv", "webm", "avi", "ts", "mpg", "flv", "mov", "ogv", "wmv"])
def test_every_common_container_is_read(make: Make, suffix: str) -> None:
    codec = {"webm": "libvpx", "ogv": "libtheora"}.get(suffix, "mpeg2video" if suffix == "mpg" else "mpeg4")
    codec = "flv1" if suffix == "flv" else codec
    path = make(f"container.{suffix}", *TESTSRC, "-c:v", "flv" if codec == "flv1" else codec)
    probe = probe_video(path)
    assert abs(probe.duration_ms - 2000) <= 60
    assert probe.fps == pytest.approx(25, abs=0.1)
    assert not probe.variable_frame_rate


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"just words\n" * 9, "is text"),
        (b"#EXTM3U\n#EXTINF:1,\nvideo.ts\n", "is a playlist"),
        (b"\xef\xbb\xbf\n#EXTM3U\n", "is a playlist"),
        (b"ffconcat version 1.0\nfile video.mp4\n", "is a playlist"),
        (b"<?xml version='1.0'?><MPD></MPD>", "is a playlist"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 99, "is a picture"),
        (b"\0" * 5000, "download did not finish"),
        (b"\x93\x01\xfe" * 3000, "format is unknown"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "video.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=said):
        probe_video(tmp_path / "video.mp4")


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="There is no file"):
        probe_video(tmp_path / "video.mp4")


@pytest.mark.parametrize("listing", ["#EXTM3U\n#EXTINF:2,\nother.ts\n", "ffconcat version 1.0\nfile other.ts\n"])
def test_no_reader_follows_a_playlist_to_another_file(
    make: Make, runner: FfmpegRunner, tmp_path: Path, listing: str
) -> None:
    shutil.copy(make("other.ts", *TESTSRC, *X264), tmp_path)
    disguise = tmp_path / "video.mp4"
    disguise.write_text(listing)
    with pytest.raises(MediaError), opened(disguise):
        pass
    with pytest.raises(MediaError):
        runner.run(compiled([guarded_input(disguise).output("-", format="null")]), timeout_s=60)


def test_sound_without_picture_is_said_so(make: Make, tmp_path: Path) -> None:
    sound = make("sound.m4a", "-f", "lavfi", "-i", "sine=d=1")
    cover = make("cover.png", "-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", "1")
    art = make(
        "art.mp4", "-i", sound, "-i", cover, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"
    )
    for path in (sound, art):
        with pytest.raises(MediaError, match="has sound but no picture"):
            probe_video(path)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_mp4_says_what_is_there(film: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(MediaError, match="is cut off") as caught:
        probe_video(cut(film, tmp_path, share))
    assert abs(int(str(caught.value.evidence["end_ms"])) - share * 8000) < 1500
    assert caught.value.evidence["missing_bytes"]


def test_the_header_and_the_end_of_the_data_stand_in_the_sentence(film: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"header says 0:08 and its data ends at 0:0[34]; fetch it again"):
        probe_video(cut(film, tmp_path, 0.5))


def test_an_mp4_whose_index_was_at_its_lost_end_is_cut_off(make: Make, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="moov"):
        probe_video(cut(make("moov_last.mp4", *TESTSRC, *X264), tmp_path, 0.7))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "flv"])
def test_other_truncated_containers_are_cut_off(make: Make, film: Path, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(MediaError, match="is cut off"):
        probe_video(cut(make(f"whole.{suffix}", "-i", film, "-c", "copy"), tmp_path, 0.5))


def test_a_length_that_the_header_lacks_is_measured(make: Make) -> None:
    live = make("live.webm", *TESTSRC, "-c:v", "libvpx", "-f", "webm", "-live", "1", "-cluster_time_limit", "500")
    with opened(live) as container:
        assert container.duration is None
    assert abs(probe_video(live).duration_ms - 2000) <= 40


def test_an_absurd_length_in_the_header_is_not_believed(make: Make, tmp_path: Path) -> None:
    data = bytearray(make("known.mkv", *TESTSRC, *X264).read_bytes())
    value = data.index(b"\x44\x89\x88") + 3  # Matroska's Duration: a float of 8 bytes, in ms
    data[value : value + 8] = struct.pack(">d", 1000 * 3600 * 1000)
    (tmp_path / "absurd.mkv").write_bytes(data)
    with opened(tmp_path / "absurd.mkv") as container:
        assert container.duration == 1000 * 3600 * 10**6
    assert abs(probe_video(tmp_path / "absurd.mkv").duration_ms - 2000) <= 40


def test_a_container_that_cannot_be_wound_back_is_read(make: Make) -> None:
    sound = ("-f", "lavfi", "-i", "sine=d=2")
    probe = probe_video(make("flat.flv", *TESTSRC, *sound, *X264, "-c:a", "aac"))
    assert abs(probe.duration_ms - 2000) <= 60


def test_limits_are_named_when_they_are_passed(film: Path) -> None:
    with pytest.raises(MediaError, match="over the limit of 0:05"):
        probe_video(film, max_duration_ms=5000)
    with pytest.raises(MediaError, match=r"has 2\.3 MB, over the limit of 1\.0 MB"):
        probe_video(film, max_bytes=1_000_000)
    with pytest.raises(MediaError, match="over the limit of 10000 pixels"):
        probe_video(film, max_pixels=10_000)


def test_pictures_that_would_fill_the_memory_are_refused_unread(make: Make, runner: FfmpegRunner) -> None:
    huge = make("huge.mkv", "-f", "lavfi", "-i", "color=s=6100x6100:r=1:d=1", "-c:v", "mjpeg")
    with pytest.raises(MediaError, match="over the limit"):
        probe_video(huge)
    with pytest.raises(MediaError):
        runner.run(compiled([guarded_input(huge).output("-", format="null")]), timeout_s=60)


def test_an_encrypted_video_is_said_to_be_encrypted(make: Make) -> None:
    key = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "7" * 32, "-encryption_kid", "a" * 32)
    with pytest.raises(MediaError, match="is encrypted"):
        probe_video(make("encrypted.mp4", *TESTSRC, *X264, *key))


def test_a_codec_that_nobody_knows_is_refused(make: Make, tmp_path: Path) -> None:
    data = make("known.mkv", *TESTSRC, *X264).read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX")
    (tmp_path / "unknown.mkv").write_bytes(data)
    with pytest.raises(MediaError, match="can't be decoded here"):
        probe_video(tmp_path / "unknown.mkv")


def test_a_picture_that_does_not_decode_is_refused(make: Make, tmp_path: Path) -> None:
    data = bytearray(make("moov_last.mp4", *TESTSRC, *X264).read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    (tmp_path / "noise.mp4").write_bytes(data)
    with pytest.raises(MediaError, match="no picture that can be decoded"):
        probe_video(tmp_path / "noise.mp4")


@pytest.mark.parametrize(("size", "shown"), [("321x241", (321, 241)), ("2x2", (2, 2)), ("160x284", (160, 284))])
def test_odd_small_and_portrait_sizes_are_read(make: Make, size: str, shown: tuple[int, int]) -> None:
    path = make(f"size-{size}.mkv", "-f", "lavfi", "-i", f"testsrc=s={size}:r=25:d=1", "-c:v", "ffv1")
    probe = probe_video(path)
    assert (probe.width, probe.height) == shown


def test_the_shown_size_counts_rotation_and_the_shape_of_pixels(make: Make) -> None:
    flat = make("flat.mp4", *TESTSRC, *X264)
    turned = probe_video(make("turned.mp4", "-display_rotation", "90", "-i", flat, "-c", "copy"))
    assert (turned.width, turned.height, turned.rotation) == (120, 160, 90)
    wide = probe_video(make("wide.mp4", *TESTSRC, "-vf", "setsar=2", *X264))
    assert (wide.width, wide.height) == (320, 120)


def test_a_varying_frame_rate_is_noticed(make: Make) -> None:
    choose = "select='lt(n,10)+eq(n,20)+eq(n,45)'"
    assert probe_video(make("vfr.mp4", *TESTSRC, "-vf", choose, "-fps_mode", "vfr", *X264)).variable_frame_rate


def test_one_frame_and_a_fifth_of_a_second_are_videos(make: Make) -> None:
    one = probe_video(make("one.mp4", *TESTSRC, "-frames:v", "1", *X264))
    assert one.duration_ms == 40
    assert probe_video(make("fifth.mp4", *TESTSRC, "-t", "0.2", *X264)).duration_ms == 200


def test_high_dynamic_range_is_noticed(make: Make) -> None:
    colours = ("-vf", "setparams=color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc")
    ten_bit = ("-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")
    assert probe_video(make("hdr.mp4", *TESTSRC, *ten_bit, *colours)).hdr == "smpte2084"
    assert probe_video(make("ten.mp4", *TESTSRC, *ten_bit)).hdr is None


def test_a_start_that_is_not_zero_does_not_count_as_length(make: Make) -> None:
    probe = probe_video(make("late.ts", *TESTSRC, *X264))
    assert probe.start_us > 1_000_000
    assert abs(probe.duration_ms - 2000) <= 40


@pytest.mark.parametrize("name", ["a b'\"😀.mp4", "-dash.mp4", "%d%03d.mp4", "http:colon.mp4", "a|b,c;[d].mp4"])
def test_any_name_is_opened(make: Make, runner: FfmpegRunner, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copy(make("flat.mp4", *TESTSRC, *X264), path)
    assert probe_video(path).duration_ms == 2000
    output = guarded_input(path).output(f"file:{tmp_path / 'out'}{name}", format="mp4", c="copy")
    runner.run(compiled([output]), timeout_s=60)
    assert probe_video(tmp_path / f"out{name}").duration_ms == 2000


def test_a_broken_byte_in_a_title_does_no_harm(make: Make, tmp_path: Path) -> None:
    data = make("titled.mkv", *TESTSRC, *X264, "-metadata", "title=AAAAAAAA").read_bytes()
    (tmp_path / "titled.mkv").write_bytes(data.replace(b"AAAAAAAA", b"\xff\xfeAAAAAA"))
    assert probe_video(tmp_path / "titled.mkv").duration_ms == 2000
