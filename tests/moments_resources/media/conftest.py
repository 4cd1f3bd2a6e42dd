"""Small videos with known content, made once a session by ffmpeg's own test sources."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from moments_resources.media.container import ffmpeg_exe
from moments_resources.media.runner import FfmpegRunner

Make = Callable[..., Path]

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "200k")
FLASH = "color=black:s=160x120:r=25:d=6,drawbox=c=white:t=fill:enable='between(t,{start},{end})'"
BEEP = "sine=f=1000:r=48000:d=6,volume=enable='not(between(t,{start},{end}))':volume=0"


@pytest.fixture
def runner() -> FfmpegRunner:
    return FfmpegRunner()


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`make(name, *arguments)`: the file that ffmpeg writes with these arguments, written once."""
    folder = tmp_path_factory.mktemp("media")

    def made(name: str, *arguments: str | Path) -> Path:
        target = folder / f"{crc32(repr(arguments).encode()):08x}" / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            command = [ffmpeg_exe(), "-nostdin", "-v", "error", *map(str, arguments), f"file:{target}"]
            subprocess.run(command, check=True, capture_output=True)
        return target

    return made


@pytest.fixture(scope="session")
def flash_beep(make: Make) -> Make:
    """`flash_beep(suffix, video_from=0, sound_from=0)`: 6 s, white and loud from 3.0 to 3.2 s, black and mute
    else; a stream may start late."""

    def made(suffix: str, *, video_from: int = 0, sound_from: int = 0) -> Path:
        flash = FLASH.format(start=2.99 - video_from, end=3.19 - video_from)
        beep = BEEP.format(start=3.0 - sound_from, end=3.2 - sound_from)
        video, sound = (VP8, "libopus") if suffix == "webm" else (X264, "aac")
        return make(
            f"flash-{video_from}-{sound_from}.{suffix}",
            *("-itsoffset", str(video_from), "-f", "lavfi", "-t", str(6 - video_from), "-i", flash),
            *("-itsoffset", str(sound_from), "-f", "lavfi", "-t", str(6 - sound_from), "-i", beep),
            *(*video, "-g", "50", "-c:a", sound),
        )

    return made


@pytest.fixture(scope="session")
def colours(make: Make) -> Path:
    """12 s, 25/s, no sound: red up to 4 s, green up to 8 s, blue up to 12 s; a key frame every 10 s."""
    inputs = [("-f", "lavfi", "-i", f"color={colour}:s=160x120:r=25:d=4") for colour in ("red", "lime", "blue")]
    return make(
        "colours.mp4",
        *(part for each in inputs for part in each),
        *("-filter_complex", "concat=n=3", *X264, "-g", "250", "-sc_threshold", "0"),
    )
