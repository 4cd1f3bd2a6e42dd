"""Files that are no video, or an odd one, through the whole job: a clear end, and nothing lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moments.results import Results
from moments.services import Lakehouse
from moments_resources.media.container import ffmpeg_exe

Json = dict[str, Any]

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=6")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
MEGABYTES = 1.0  # the limit of this file's lakehouse

#: name -> (class, words of the reason)
REFUSED = {
    "empty.mp4": "empty.mp4 is empty, not a video: fetch it again.",
    "notes.mp4": "notes.mp4 is text, not a video: submit the video itself.",
    "zeros.mp4": "begins with zeros, not a video: the download did not finish, fetch it again.",
    "noise.mp4": "noise.mp4 can't be read as a video: its format is unknown or it is damaged; fetch it again",
    "cut.mp4": "cut.mp4 is cut off: its index (the moov box, at the end) is missing; fetch it again.",
    "cut_later.mp4": "cut_later.mp4 is cut off: ",
    "sound.m4a": "sound.m4a has sound but no picture: submit a video.",
    "no_length.mp4": "no_length.mp4 holds neither picture nor sound: submit a video.",
    "ten_hours.mp4": "ten_hours.mp4 lasts 10:00:00, over the limit of 6:00:00: submit it in shorter parts.",
    "large.mp4": "large.mp4 has 1.5 MB, over the limit of 1.0 MB: submit a smaller encoding of it.",
    "playlist.mp4": "playlist.mp4 is a playlist, not a video: submit the address that it stands at",
    "concat.mp4": "concat.mp4 is a playlist, not a video",
    "page.mp4": "page.mp4 is a web page, not a video: submit the address of the video itself.",
    "folder.mp4": "folder.mp4 is not a file: name the video files themselves.",
    "missing.mp4": "is neither a web address nor a file that exists",
}

NAMES = {
    "all at once": '-rf --exec=x it\'s "the" talk 🎬 100% %2e%2e\n\t\x1b[31mred.mp4',
    "very long": f"{'ü' * 120}.mp4",
}

#: The first has no sound, the second a silent track.
COMPLETED = (*NAMES.values(), "odd_and_uneven.mkv", "no_duration.webm")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad files")
    _ffmpeg(folder / "plain.mp4", *PICTURE, *X264)
    plain = (folder / "plain.mp4").read_bytes()
    _ffmpeg(folder / "faststart.mp4", "-i", folder / "plain.mp4", "-c", "copy", "-movflags", "+faststart")
    secret = folder / "secret.ts"
    _ffmpeg(secret, "-i", folder / "plain.mp4", "-c", "copy")
    contents = {
        "empty.mp4": b"",
        "notes.mp4": b"To do: buy milk.\n" * 40,
        "zeros.mp4": bytes(8192),
        "noise.mp4": bytes(range(1, 256)) * 40,
        "cut.mp4": plain[: len(plain) // 2],
        "cut_later.mp4": (folder / "faststart.mp4").read_bytes()[: len(plain) * 2 // 3],
        "large.mp4": plain + bytes(1_500_000 - len(plain)),
        "playlist.mp4": f"#EXTM3U\n#EXTINF:6,\n{secret}\n#EXT-X-ENDLIST\n".encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "page.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.mp4").mkdir()
    _ffmpeg(folder / "sound.m4a", "-f", "lavfi", "-i", "sine=d=2", "-c:a", "aac")
    _ffmpeg(folder / "no_length.mp4", *PICTURE, *X264, "-t", "0")
    _ffmpeg(folder / "ten_hours.mp4", "-f", "lavfi", "-i", "color=s=16x16:r=0.1:d=36000", *X264)
    (folder / NAMES["all at once"]).write_bytes(plain)
    _ffmpeg(folder / NAMES["very long"], *PICTURE, "-f", "lavfi", "-i", "anullsrc=d=6", *X264, "-c:a", "aac")
    uneven = ("-vf", "select='if(lt(t,3),1,not(mod(n,7)))'", "-fps_mode", "vfr")
    odd = ("-f", "lavfi", "-i", "testsrc2=s=161x121:r=30:d=6", *uneven, *X264[:-1], "yuv444p")
    _ffmpeg(folder / "odd_and_uneven.mkv", *odd)
    _ffmpeg(folder / "no_duration.webm", *PICTURE, "-c:v", "libvpx", "-deadline", "realtime", "-live", "1")
    return folder


def _ffmpeg(target: Path, *arguments: str | Path) -> None:
    command = [ffmpeg_exe(), "-nostdin", "-v", "error", *map(str, arguments), f"file:{target}"]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def taken(files: Path, shared_lakehouse: Lakehouse, take_all: Callable[..., dict[str, Json]]) -> dict[str, Json]:
    """All of them in one go: the good ones among the bad."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOMENTS_MAX_GIGABYTES", str(MEGABYTES / 1000))
        return take_all({name: files / name for name in (*REFUSED, *COMPLETED)})


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_fails_with_one_clear_sentence(
    name: str, taken: dict[str, Json], shared_lakehouse: Lakehouse, clear_failure: Callable[..., str]
) -> None:
    clear_failure(shared_lakehouse, taken[name], failure_class="permanent", words=REFUSED[name])


@pytest.mark.parametrize("name", COMPLETED)
def test_an_odd_video_completes(name: str, taken: dict[str, Json]) -> None:
    result = taken[name]
    assert result["status"] == "completed", result["error"]
    assert result["duration"] == pytest.approx(6, abs=0.15)
    assert result["moments"]
    assert all(moment["clip"] and moment["refined"] for moment in result["moments"])


@pytest.mark.parametrize("name", ["odd_and_uneven.mkv", "no_duration.webm"])
def test_clips_of_an_odd_video_last_what_they_should_within_a_frame(
    name: str, taken: dict[str, Json], shared_lakehouse: Lakehouse
) -> None:
    query = "select * from public.clips where video_id = :id"
    clips = Results(shared_lakehouse).rows(query, id=taken[name]["video_id"])
    assert clips
    for clip in clips:
        assert abs(clip["duration_ms"] - (clip["end_ms"] - clip["start_ms"])) <= 1000 / clip["fps"]
        assert clip["frames"] == pytest.approx(clip["duration_ms"] / 1000 * clip["fps"], abs=1)


@pytest.mark.parametrize(("name", "state"), [("all at once", "none"), ("very long", "silent")])
def test_a_video_in_which_nobody_speaks_has_moments_and_says_so(
    name: str, state: str, taken: dict[str, Json], shared_lakehouse: Lakehouse
) -> None:
    rows, video_id = Results(shared_lakehouse).rows, taken[NAMES[name]]["video_id"]
    assert taken[NAMES[name]]["moments"]
    assert rows("select state from public.audio where video_id = :id", id=video_id) == [{"state": state}]
    assert rows("select has_speech from public.transcripts where video_id = :id", id=video_id) == [
        {"has_speech": False}
    ]
    made = rows("select measures from public.artifacts where video_id = :id and asset = 'moments'", id=video_id)
    assert "No speech was found" in made[0]["measures"]["note"]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_file_is_known_by_the_name_it_had(name: str, taken: dict[str, Json], shared_lakehouse: Lakehouse) -> None:
    found = Results(shared_lakehouse).rows(
        "select v.title, i.name from public.videos v join public.url_intake i using (video_id) where video_id = :id",
        id=taken[name]["video_id"],
    )
    assert [row["name"] for row in found] == [name]


def test_bad_files_leave_nothing_behind(
    taken: dict[str, Json], shared_lakehouse: Lakehouse, left_running: Callable[[], list[str]]
) -> None:
    scratch = shared_lakehouse.settings.state / "scratch"
    assert list(scratch.glob("*")) == []
    assert left_running() == []
    failed = [result["video_id"] for result in taken.values() if result["status"] == "failed"]
    rows = Results(shared_lakehouse).rows
    assert (
        rows("select * from public.artifacts where video_id = any(:ids)", ids=[name for name in failed if name]) == []
    )
