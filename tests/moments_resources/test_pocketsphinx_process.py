"""The speech decoder works beside us: we stay alive and answer, it does not outlive us, its words are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import psutil
import pytest

from moments_core.errors import TransientError
from moments_core.transcript import Transcript
from moments_resources import pocketsphinx_decoder
from moments_resources.pocketsphinx_process import PocketSphinxProcess
from moments_resources.speech_pocketsphinx import PocketSphinxSpeech
from tests.stand_ins.leftovers import Leftovers

SAMPLE = Path(__file__).parents[2] / "samples" / "sample.mp4"
NOISE = ("-f", "lavfi", "-i", "anoisesrc=d=20:c=pink:a=0.5:seed=1,tremolo=f=4:d=0.9")  # 3 s of CPU
MUSIC = ("-f", "lavfi", "-i", "aevalsrc=0.2*(sin(2*PI*220*t)+sin(2*PI*277*t)+sin(2*PI*330*t)):d=20")  # 20 s of CPU
QUICKLY_S = 5.0

TRANSCRIBES = """
import sys
from pathlib import Path
from moments_resources.speech_pocketsphinx import PocketSphinxSpeech
PocketSphinxSpeech().transcribe(Path(sys.argv[1]), duration_ms=20_000, silences=())
"""


def recorded(target: Path, *arguments: str) -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", *arguments, "-vn", "-ac", "1"]
    subprocess.run([*command, "-ar", "16000", "-sample_fmt", "s16", str(target)], check=True)
    return target


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return recorded(tmp_path / "music.flac", *MUSIC)


def transcribe(audio: Path) -> Transcript:
    return PocketSphinxSpeech().transcribe(audio, duration_ms=20_000, silences=())


def decoder_below(pid: int) -> psutil.Process | None:
    """The decoder that this process has started, if it is at work on a piece: it is past the model's second."""
    for child in psutil.Process(pid).children():
        if pocketsphinx_decoder.__name__ in child.cmdline() and child.cpu_times().user > 1.5:
            return child
    return None


def decoder_at_work(pid: int) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := decoder_below(pid):
            return found
        time.sleep(0.02)
    raise AssertionError("no decoder")


@contextmanager
def once_at_work(act: Callable[[psutil.Process], None]) -> Iterator[list[psutil.Process]]:
    """Another thread does this when our decoder works; yields where the decoder will stand. Nothing may be left."""
    before = Leftovers()
    decoders: list[psutil.Process] = []

    def watch() -> None:
        decoders.append(decoder_at_work(os.getpid()))
        act(decoders[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield decoders
    finally:
        watcher.join()
    assert not decoders[0].is_running()
    before.assert_nothing_new()


def test_other_threads_go_on_while_sound_is_decoded(tmp_path: Path) -> None:
    audio = recorded(tmp_path / "noise.flac", *NOISE)
    ticks: list[float] = []
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.wait(0.02):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    started = time.monotonic()
    transcribe(audio)
    took = time.monotonic() - started
    is_over.set()
    ticker.join()
    gap = max(later - earlier for earlier, later in pairwise(ticks))
    assert gap < min(2.0, took / 2)


def test_an_interrupt_is_answered_at_once_and_ends_the_decoder(music: Path) -> None:
    interrupted_at: list[float] = []

    def interrupt(_: psutil.Process) -> None:
        interrupted_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with once_at_work(interrupt):
        with pytest.raises(KeyboardInterrupt):
            transcribe(music)
        assert time.monotonic() - interrupted_at[0] < QUICKLY_S


def test_an_error_of_the_caller_ends_the_decoder(tmp_path: Path) -> None:
    before = Leftovers()
    children: list[psutil.Process] = []

    def stop(_: int) -> None:
        children.extend(psutil.Process().children())
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the one above
        PocketSphinxSpeech().transcribe(
            recorded(tmp_path / "sound.flac", "-f", "lavfi", "-i", "sine=duration=1"),
            duration_ms=1_000,
            silences=(),
            on_progress=stop,
        )
    assert children
    assert not any(child.is_running() for child in children)
    before.assert_nothing_new()


def test_a_decoder_that_is_killed_may_be_tried_again(music: Path) -> None:
    with once_at_work(psutil.Process.kill), pytest.raises(TransientError, match="SIGKILL") as caught:
        transcribe(music)
    assert caught.value.evidence["exit"] == -signal.SIGKILL


def test_a_decoder_that_fails_tells_why_to_the_operator_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKETSPHINX_PATH", str(tmp_path))
    before = Leftovers()
    with PocketSphinxProcess() as decoder, pytest.raises(TransientError, match="exit status 1") as caught:
        decoder.decoded(bytes(1_000_000))
    assert caught.value.evidence["exit"] == 1
    assert "Error" in str(caught.value.evidence["stderr_tail"])
    assert capfd.readouterr() == ("", "")
    before.assert_nothing_new()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_decoder_dies_with_a_process_that_is_killed(music: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TRANSCRIBES, str(music)]) as parent:
        decoder = decoder_at_work(parent.pid)
        parent.kill()
        _, alive = psutil.wait_procs([decoder], timeout=QUICKLY_S)
    assert alive == []


def test_ctrl_c_in_the_terminal_reaches_us_alone() -> None:
    with PocketSphinxProcess():
        (child,) = psutil.Process().children()
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


def test_words_are_those_of_a_decoder_in_our_own_process(tmp_path: Path) -> None:
    pcm = recorded(tmp_path / "speech.wav", "-i", str(SAMPLE), "-t", "8").read_bytes()[-2 * 16_000 * 8 :]
    pieces = (pcm[: len(pcm) // 2], pcm[len(pcm) // 2 :])
    ours = pocketsphinx_decoder._decoder()
    expected = [pocketsphinx_decoder._decoded(ours, piece) for piece in pieces]  # the second depends on the first
    assert min(len(heard) for heard in expected) > 3
    with PocketSphinxProcess() as decoder:
        assert [decoder.decoded(piece) for piece in pieces] == expected


def test_a_module_in_the_folder_where_we_were_started_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pocketsphinx.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with PocketSphinxProcess() as decoder:
        assert decoder.decoded(bytes(3_200)) is not None


def test_the_decoder_loads_no_engine_that_it_does_not_need() -> None:
    loaded = "import sys, moments_resources.pocketsphinx_decoder, pocketsphinx; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    assert {"dagster", "pandas", "numpy", "sqlalchemy", "pydantic", "av"}.isdisjoint(modules)
