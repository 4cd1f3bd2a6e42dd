"""Speech of the sample: every sentence synthesised apart, so that its place in the sound is known, not guessed."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moments_core.errors import MediaError, SettingsError
from moments_core.time import Span
from samples.talk import TOPICS

VOICE = "en-us"
WORDS_PER_MINUTE = 168
RATE_HZ = 22_050  # what espeak-ng makes
FRAMES_PER_SECOND = 25
FRAME = RATE_HZ // FRAMES_PER_SECOND  # samples a video frame: 22,050 is a multiple of 25, so nothing is rounded

LEAD_IN_MS = 400  # before the first word
SENTENCE_PAUSE_MS = 300
TOPIC_PAUSE_MS = 900
TAIL_MS = 1_200  # after the last word
AUDIBLE = 64  # of 32,768, -54 dBFS: espeak-ng is silent to the last bit around a sentence, so any low value will do

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Line:
    """One spoken sentence: its topic and its slide (both counted from 0 over the whole talk), and its time."""

    topic: int
    slide: int
    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Speech:
    """The whole sound, a whole number of video frames long, and when each sentence is heard in it."""

    samples: Samples
    lines: tuple[Line, ...]

    @property
    def frames(self) -> int:
        return len(self.samples) // FRAME


def speak(text: str) -> Samples:
    """`text` as sound, without the silence that the synthesiser puts around it.

    Raises SettingsError where espeak-ng is not installed, MediaError where it fails or says nothing.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise SettingsError("espeak-ng is not installed: run `apt-get install espeak-ng` (or your system's like).")
    command = [program, "-v", VOICE, "-s", str(WORDS_PER_MINUTE), "--stdout", text]
    reply = subprocess.run(command, capture_output=True, check=False)
    if reply.returncode:
        raise MediaError(f"espeak-ng failed: {reply.stderr.decode(errors='replace').strip()}", text=text)
    # espeak-ng can't know the length when it writes the header to a pipe; wave then reads to the end.
    with wave.open(io.BytesIO(reply.stdout)) as sound:
        if sound.getframerate() != RATE_HZ:
            raise MediaError(f"espeak-ng speaks at {sound.getframerate()} Hz: choose a voice of {RATE_HZ} Hz.")
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype=np.int16)
    return _trimmed(samples, text)


def _trimmed(samples: Samples, text: str) -> Samples:
    audible = np.flatnonzero(np.abs(samples.astype(np.int32)) > AUDIBLE)
    if not audible.size:
        raise MediaError("espeak-ng made no sound: check its voice data.", text=text)
    return samples[audible[0] : audible[-1] + 1]


def compose() -> Speech:
    """Speak all sentences of the talk, one after the other, each beginning on a video frame.

    A pause is stretched by less than 40 ms to reach that frame: a slide can change at the very sample where a
    sentence begins.
    """
    parts: list[Samples] = []
    lines: list[Line] = []
    position = 0
    for topic, slide, text in _sentences():
        start = _next_frame(position, _pause_ms(lines[-1].topic if lines else None, topic))
        sound = speak(text)
        parts += [_silence(start - position), sound]
        position = start + len(sound)
        lines.append(Line(topic, slide, text, _span(start, position)))
    parts.append(_silence(_next_frame(position, TAIL_MS) - position))
    return Speech(np.concatenate(parts), tuple(lines))


def _sentences() -> list[tuple[int, int, str]]:
    """Every sentence after the indices of its topic and its slide, both counted over the whole talk."""
    slides = [(topic, slide) for topic, of_topic in enumerate(TOPICS) for slide in of_topic.slides]
    return [(topic, index, text) for index, (topic, slide) in enumerate(slides) for text in slide.sentences]


def _pause_ms(topic_before: int | None, topic: int) -> int:
    if topic_before is None:
        return LEAD_IN_MS
    return SENTENCE_PAUSE_MS if topic == topic_before else TOPIC_PAUSE_MS


def _next_frame(position: int, pause_ms: int) -> int:
    """The first sample of the first frame that begins at least `pause_ms` after `position`."""
    return -(-(position + pause_ms * RATE_HZ // 1000) // FRAME) * FRAME


def _silence(length: int) -> Samples:
    return np.zeros(length, dtype=np.int16)


def _span(start: int, end: int) -> Span:
    return Span(round(start * 1000 / RATE_HZ), round(end * 1000 / RATE_HZ))


def share_of(first: str, second: str) -> float:
    """What share (0..1) of a sentence its first part takes: both are spoken apart and their lengths compared."""
    lengths = len(speak(first)), len(speak(second))
    return lengths[0] / sum(lengths)


def write_wav(samples: Samples) -> bytes:
    """The samples as a WAV file: mono, 16 bit."""
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE_HZ)
        sound.writeframes(samples.tobytes())
    return target.getvalue()
