"""Runs ffmpeg commands that others built, and makes sure that none outlives its caller."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from moments_core.errors import MediaError, MomentsError, ResourceError, TransientError
from moments_resources.processes import dying_with_parent

ProgressCallback = Callable[[int], None]
"""Called with the milliseconds of output so far, in the caller's thread; what it raises ends ffmpeg."""

# ffmpeg repeats a complaint for every bad packet; the last ones tell the cause.
_STDERR_BYTES = 64 * 1024

# What a command may print on stdout where nobody consumes it on the way (captions of hours: under 2 MB).
_STDOUT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended well.

    `frames` and `out_time_ms`: pictures written, and the latest time of any output. `cpu_s` is user and system
    time of ffmpeg, `wall_s` what a clock showed.
    """

    stdout: bytes
    stderr_text: str
    frames: int
    out_time_ms: int
    cpu_s: float
    wall_s: float


class FfmpegRunner:
    """Runs one command at a time; holds no state, so one runner serves all threads."""

    def run(
        self,
        command: list[str],
        *,
        timeout_s: float,
        on_progress: ProgressCallback | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
    ) -> Finished:
        """Run `command` (ffmpeg's path first) to its end.

        `on_stdout` gets what the command prints, as it comes; without it that is kept in the result.

        Raises:
            MediaError: ffmpeg refused its input or could not do what was asked.
            ResourceError: the disk or the memory is full.
            TransientError: it took longer than `timeout_s`, or was killed from outside.
        """
        started = time.monotonic()
        stdout, stderr, progress = _Output(), _Tail(), _Progress(on_progress)
        with _Child(command) as child:
            sinks = {
                child.stdout: on_stdout or stdout.add,
                child.stderr: stderr.add,
                child.progress: progress.add,
            }
            _pump(sinks, deadline=started + timeout_s, timeout_s=timeout_s)
            exit_code, cpu_s = child.reap()
        if exit_code != 0:
            raise failure(exit_code, stderr.text())
        return Finished(
            stdout=bytes(stdout.data),
            stderr_text=stderr.text(),
            frames=progress.frames,
            out_time_ms=progress.out_time_ms,
            cpu_s=cpu_s,
            wall_s=time.monotonic() - started,
        )


def failure(exit_code: int, stderr: str) -> MomentsError:
    """The error that a command's end means; a negative `exit_code` is the signal that ended it."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    evidence: dict[str, object] = {"exit": exit_code, "stderr_tail": "\n".join(lines[-5:])[-1000:]}
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        return ResourceError("The disk is full: free some space, then run this again.", **evidence)
    if "Cannot allocate memory" in stderr:
        return ResourceError("ffmpeg got no memory: free some, or run fewer videos at once.", **evidence)
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return TransientError(f"ffmpeg was ended by {name}, as when memory runs out: run this again.", **evidence)
    last = lines[-1].strip() if lines else f"exit status {exit_code}"
    return MediaError(f"ffmpeg could not process the file ({last}): fetch it again, or convert it.", **evidence)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it becomes `target` if the block ends well, and goes away otherwise."""
    part = target.with_name(f"{target.name}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Child:
    """ffmpeg in a process group of its own, which is gone when the block is left, however it is left."""

    def __init__(self, command: list[str]) -> None:
        self.progress, progress_end = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a list of arguments that we built, no shell
                dying_with_parent(_reporting(command, progress_end)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(progress_end,),
                process_group=0,
            )
        except BaseException:
            os.close(self.progress)
            raise
        finally:
            os.close(progress_end)
        assert self._process.stdout is not None and self._process.stderr is not None  # noqa: S101, PT018
        self.stdout, self.stderr = self._process.stdout.fileno(), self._process.stderr.fileno()

    def __enter__(self) -> _Child:
        return self

    def reap(self) -> tuple[int, float]:
        """Wait for the end; exit code (negative: signal) and CPU seconds. `wait4` alone tells the latter."""
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, usage.ru_utime + usage.ru_stime

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.reap()
        os.close(self.progress)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class _Output:
    """All of a stream that is known to be short."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, chunk: bytes) -> None:
        self.data += chunk
        if len(self.data) > _STDOUT_BYTES:
            raise MediaError(
                f"ffmpeg wrote more than {_STDOUT_BYTES // 2**20} MB of text: the file is damaged, fetch it again."
            )


class _Tail:
    """The last part of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        self._data += chunk
        del self._data[: max(0, len(self._data) - _STDERR_BYTES)]

    def text(self) -> str:
        return self._data.decode("utf-8", errors="replace")


class _Progress:
    """Reads ffmpeg's `key=value` report, and passes on the time of the output."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self.frames = 0
        self.out_time_ms = 0
        self._callback = callback
        self._rest = b""

    def add(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            key, _, value = line.partition(b"=")
            if value.strip().isdigit():
                self._read(key, int(value))

    def _read(self, key: bytes, value: int) -> None:
        if key == b"frame":
            self.frames = value
        elif key == b"out_time_us":
            self.out_time_ms = value // 1000
            if self._callback is not None:
                self._callback(self.out_time_ms)


def _pump(sinks: dict[int, Callable[[bytes], None]], *, deadline: float, timeout_s: float) -> None:
    """Hand every chunk to its sink until all pipes are closed."""
    with selectors.DefaultSelector() as selector:
        for descriptor, sink in sinks.items():
            selector.register(descriptor, selectors.EVENT_READ, sink)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                raise TransientError(
                    f"ffmpeg was not done after {timeout_s:.0f} s: this machine is busy, or the file is damaged; "
                    "run this again.",
                    timeout_s=timeout_s,
                )
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if chunk:
                    key.data(chunk)
                else:
                    selector.unregister(key.fd)


def _reporting(command: list[str], descriptor: int) -> list[str]:
    return [command[0], "-nostats", "-stats_period", "0.5", "-progress", f"pipe:{descriptor}", *command[1:]]
