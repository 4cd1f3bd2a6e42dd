"""Starts `pocketsphinx_decoder`, asks it, and makes sure that it does not outlive the transcription.

PocketSphinx decodes a piece in one call that holds the interpreter's lock: 15–30 s for 30 s of music. In our own
process no other thread ran meanwhile and Ctrl-C was not answered: the heart stood still, and a healthy run was taken
for dead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import NamedTuple

from moments_core.errors import TransientError
from moments_resources import pocketsphinx_decoder
from moments_resources.processes import dying_with_parent

_STDERR_CHARACTERS = 1_000  # the last lines of a traceback


class Segment(NamedTuple):
    """A word, or "<sil>", "[NOISE]" and so on; frames of 10 ms from the piece's start, both included."""

    word: str
    start_frame: int
    end_frame: int
    prob: float


class PocketSphinxProcess:
    """A decoder in a process group of its own, which is gone when the block is left, however it is left.

    Costs 0.1–0.25 s of CPU a transcription, for Python's start as launcher and as decoder, beside the 0.6 s that
    reading the model takes anywhere (measured).
    """

    def __init__(self) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed below; a pipe that nobody reads could fill up
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                # -P: no file in the folder where we were started may stand in for a module.
                dying_with_parent([sys.executable, "-P", "-m", pocketsphinx_decoder.__name__]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                process_group=0,  # Ctrl-C in the terminal is ours to pass on
            )
        except BaseException:
            self._stderr.close()
            raise
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def __enter__(self) -> PocketSphinxProcess:
        return self

    def decoded(self, pcm: bytes) -> list[Segment]:
        """What is heard in one piece. Waits on a pipe, which a signal interrupts and other threads don't notice.

        Raises TransientError where the process ends instead.
        """
        with suppress(BrokenPipeError):  # no answer will come: that is told below
            self._stdin.write(pocketsphinx_decoder.LENGTH.pack(len(pcm)) + pcm)
            self._stdin.flush()
        reply = self._stdout.readline()
        if not reply.endswith(b"\n"):
            raise self._ended()
        return [Segment(*segment) for segment in json.loads(reply)]

    def _ended(self) -> TransientError:
        self._kill()  # should it have closed its pipes and live on; the status of one that is over stays as it was
        code = self._process.wait()
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"over with exit status {code}"
        self._stderr.seek(0)
        tail = self._stderr.read().decode("utf-8", errors="replace").strip()[-_STDERR_CHARACTERS:]
        return TransientError(
            f"The speech decoder was {how} before it was done, as when memory runs out: run this again.",
            exit=code,
            stderr_tail=tail,
        )

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._kill()
            self._process.wait()
        self._stdout.close()
        with suppress(BrokenPipeError):  # half a piece, where we were interrupted while it was written
            self._stdin.close()
        self._stderr.close()
