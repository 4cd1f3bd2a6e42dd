from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from moments_core.errors import MediaError, ResourceError, TransientError
from moments_resources.media import runner as runner_module
from moments_resources.media.container import compiled, ffmpeg_exe, guarded_input
from moments_resources.media.runner import FfmpegRunner, failure, whole_file

needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")


def endless(marker: str) -> list[str]:
    """Runs in real time and never ends; `marker` stands in its arguments."""
    source = ["-re", "-f", "lavfi", "-i", "testsrc=s=32x32"]
    return [ffmpeg_exe(), "-nostdin", "-v", "error", *source, "-metadata", f"title={marker}", "-f", "null", "-"]


def ffmpegs(marker: str) -> list[int]:
    """Processes that are ffmpeg and bear `marker`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue
        if marker.encode() in command and command.startswith(os.fsencode(ffmpeg_exe())):
            found.append(int(folder.name))
    return found


def wait_for(condition: object, *, seconds: float = 10) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not (done := bool(condition())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return done


def test_a_command_reports_progress_and_what_it_used(runner: FfmpegRunner, colours: Path) -> None:
    seen: list[int] = []
    output = guarded_input(colours).output("-", format="null")
    finished = runner.run(compiled([output]), timeout_s=60, on_progress=seen.append)
    assert seen[-1] == 12_000
    assert finished.frames == 300
    assert finished.cpu_s > 0
    assert finished.stderr_text == ""


def test_what_a_command_prints_is_kept_or_handed_on(runner: FfmpegRunner, colours: Path) -> None:
    command = compiled([guarded_input(colours).output("pipe:1", format="rawvideo", pix_fmt="gray", vframes=2)])
    chunks: list[bytes] = []
    assert len(runner.run(command, timeout_s=60).stdout) == 2 * 160 * 120
    assert runner.run(command, timeout_s=60, on_stdout=chunks.append).stdout == b""
    assert len(b"".join(chunks)) == 2 * 160 * 120


def test_output_that_nobody_takes_is_bounded(runner: FfmpegRunner) -> None:
    command = [ffmpeg_exe(), "-f", "lavfi", "-i", "color=s=2000x2000", "-v", "error", "-f", "rawvideo", "pipe:1"]
    with pytest.raises(MediaError, match="more than 32 MB"):
        runner.run(command, timeout_s=60)


def test_a_full_disk_is_a_lack_of_resources(runner: FfmpegRunner, colours: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(ResourceError, match="disk is full"):
        runner.run(compiled([guarded_input(colours).output("file:/dev/full", format="mpegts")]), timeout_s=60)


def test_a_file_that_ffmpeg_refuses_is_a_media_error_with_evidence(runner: FfmpegRunner, tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"\x93\x01\xfe" * 3000)
    with pytest.raises(MediaError) as caught:
        runner.run(compiled([guarded_input(tmp_path / "noise.mp4").output("-", format="null")]), timeout_s=60)
    assert "fetch it again" in str(caught.value)
    assert caught.value.evidence["exit"] not in {0, None}
    assert "Invalid data" in str(caught.value.evidence["stderr_tail"])


def test_memory_that_runs_out_is_a_lack_of_resources() -> None:
    assert isinstance(failure(1, "Error while opening decoder: Cannot allocate memory"), ResourceError)


@needs_proc
def test_a_command_that_takes_too_long_is_ended(runner: FfmpegRunner) -> None:
    marker = uuid4().hex
    with pytest.raises(TransientError, match="not done after"):
        runner.run(endless(marker), timeout_s=0.5)
    assert ffmpegs(marker) == []


@needs_proc
def test_an_error_in_the_progress_callback_ends_ffmpeg(runner: FfmpegRunner) -> None:
    marker = uuid4().hex
    alive: list[list[int]] = []

    def stop(_: int) -> None:
        alive.append(ffmpegs(marker))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(endless(marker), timeout_s=60, on_progress=stop)
    assert len(alive[0]) == 1
    assert ffmpegs(marker) == []


@needs_proc
def test_ffmpeg_that_is_killed_from_outside_may_be_tried_again(runner: FfmpegRunner) -> None:
    marker = uuid4().hex

    def kill_it() -> None:
        if wait_for(lambda: ffmpegs(marker)):
            os.kill(ffmpegs(marker)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(TransientError, match="SIGKILL"):
        runner.run(endless(marker), timeout_s=60)
    killer.join()


@needs_proc
@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not end children with their parent")
def test_no_ffmpeg_outlives_a_process_that_is_killed() -> None:
    marker = uuid4().hex
    code = (
        "import json, sys; from moments_resources.media.runner import FfmpegRunner; "
        "FfmpegRunner().run(json.loads(sys.argv[1]), timeout_s=60)"
    )
    project = Path(runner_module.__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code, json.dumps(endless(marker))], cwd=project)
    try:
        assert wait_for(lambda: ffmpegs(marker))
    finally:
        parent.kill()
        parent.wait()
    gone = wait_for(lambda: not ffmpegs(marker))
    for orphan in ffmpegs(marker):
        os.kill(orphan, signal.SIGKILL)
    assert gone


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"

    def break_off() -> None:
        with whole_file(target) as part:
            part.write_bytes(b"half")
            raise MediaError("broken off")

    with pytest.raises(MediaError):
        break_off()
    assert list(tmp_path.iterdir()) == []
    with whole_file(target) as part:
        part.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_ffmpeg_that_can_not_be_started_just_now_may_be_the_next_time() -> None:
    program = """if True:
        import os
        import resource
        import imageio_ffmpeg
        from moments_core.errors import ResourceError
        from moments_resources.media.container import ffmpeg_exe
        free = os.dup(0)  # and one more: enough to look for the program, too few for the pipes of a child
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            ffmpeg_exe()
        except ResourceError as error:
            print(error)
    """
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.startswith("ffmpeg could not be started: ")
