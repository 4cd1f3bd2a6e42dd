"""POST /transcribe as Parakeet answers it: sound is decoded for real, and its place in a known recording recognised."""

from __future__ import annotations

import io
import json
import random
import time
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from tests.stand_ins.http_exchange import Asked, Reply

Samples = NDArray[np.float32]

_RATE = 4000  # enough to tell one part from another, to a quarter of a millisecond
_PROBE_S = 20  # of a part are looked for: its loudest ones
_SILENT = 1e-3  # of full scale (-60 dB): nothing louder is no speech
_HEARD_SHARE = 0.2  # of a word that is cut; less is not heard at all


@dataclass(frozen=True)
class Spoken:
    """A word of a recording, in milliseconds of it."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class HeardSound:
    """A sound in a request: its multipart field, file name and type, and what was decoded. `place_ms`: where in the
    known recording it begins."""

    field: str
    name: str
    content_type: str
    bytes: int
    duration_ms: int
    place_ms: int | None


class Recording:
    """A sound file and all that is said in it. The sound must not repeat itself: speech and noise don't."""

    def __init__(self, path: Path, words: Sequence[Spoken]) -> None:
        self._path = path
        self.words = tuple(words)

    @cached_property
    def samples(self) -> Samples:
        return decoded(self._path.read_bytes())

    def place_of(self, part: Samples) -> int | None:
        """Millisecond at which `part` begins, or None where it is no part of this recording, or silent."""
        if len(part) == 0 or float(np.abs(part).max()) < _SILENT:
            return None
        first, probe = _loudest(part)
        likeness = oaconvolve(self.samples, probe[::-1], mode="full")
        best = int(likeness.argmax())
        at = best - len(probe) + 1
        there = self.samples[max(0, at) : at + len(probe)]
        if likeness[best] < 0.6 * float(np.linalg.norm(probe) * np.linalg.norm(there)) or likeness[best] <= 0:
            return None
        around = _RATE // 10
        likeness[max(0, best - around) : best + around] = 0
        if likeness.max() > 0.98 * float(np.dot(there, there)):
            raise RuntimeError("this recording repeats itself: the place of a part can't be told")
        return round((at - first) * 1000 / _RATE)

    def heard(self, place_ms: int, duration_ms: int) -> list[Spoken]:
        """The words in a part, in its own time. One that the part's end cuts is heard in part, as by a real model."""
        inside = [_cut(word, place_ms, place_ms + duration_ms) for word in self.words]
        return [Spoken(word.text, word.start_ms - place_ms, word.end_ms - place_ms) for word in inside if word]


@dataclass(frozen=True)
class SpeechServer:
    """How the server behaves. Without a `recording` it hears one word each half second of any sound."""

    recording: Recording | None = None
    longest_s: float = 3600.0

    def transcribe(self, asked: Asked) -> Reply:
        started = time.monotonic()
        part = file_part(asked)
        if part is None:
            return _refused(422, "Field required: a multipart field with the sound.")
        try:
            samples = decoded(part.data)
        except ValueError as error:
            return _refused(400, str(error))
        duration_ms = len(samples) * 1000 // _RATE
        place_ms = self.recording.place_of(samples) if self.recording else 0
        asked.seen[:] = [HeardSound(part.field, part.name, part.content_type, len(part.data), duration_ms, place_ms)]
        if duration_ms > self.longest_s * 1000:
            return _refused(413, f"The sound is longer than {self.longest_s:g} s.")
        return Reply(200, transcription(self._words(place_ms, duration_ms), time.monotonic() - started))

    def _words(self, place_ms: int | None, duration_ms: int) -> list[Spoken]:
        if self.recording is None:
            return [
                Spoken(f"word{at}" + "." * (at % 5000 == 4500), at, at + 400) for at in range(0, duration_ms - 400, 500)
            ]
        return [] if place_ms is None else self.recording.heard(place_ms, duration_ms)


def transcription(words: Sequence[Spoken], seconds: float) -> bytes:
    """Parakeet's reply; a segment ends with a full stop."""
    segments: list[list[Spoken]] = [[]]
    for word in words:
        segments[-1].append(word)
        if word.text[-1] in ".?!":
            segments.append([])
    reply = {
        "transcription": " ".join(word.text for word in words),
        "word_timestamps": [{"word": word.text, **_times(word, word)} for word in words],
        "segment_timestamps": [
            {"text": " ".join(word.text for word in segment), **_times(segment[0], segment[-1])}
            for segment in segments
            if segment
        ],
        "processing_time": round(seconds, 3),
    }
    return json.dumps(reply).encode()


def talk(duration_ms: int, *, seed: int = 1) -> list[Spoken]:
    """Sentences of 4 to 12 words, each word another one (so that a lost or doubled one shows), with short pauses
    between the words and longer ones, of 0.4 to 1 s, between the sentences."""
    chance = random.Random(seed)
    words: list[Spoken] = []
    at = 300
    while True:
        length = chance.randint(4, 12)
        for index in range(length):
            end = at + chance.randint(150, 450)
            if end > duration_ms - 300:
                return words
            words.append(Spoken(f"w{len(words)}" + "." * (index == length - 1), at, end))
            at = end + chance.randint(40, 120)
        at += chance.randint(400, 1000)


def record(path: Path, words: Sequence[Spoken], duration_ms: int, *, seed: int = 1) -> Recording:
    """Write a WAV file (16 kHz, mono) that is noise where a word is and all but silent elsewhere."""
    rate, chance = 16_000, np.random.default_rng(seed)
    level = np.full(duration_ms * rate // 1000, 0.0003)
    for word in words:
        level[word.start_ms * rate // 1000 : word.end_ms * rate // 1000] = 0.3
    # Smooth noise: what a codec for speech, or a lower sampling rate, leaves as it is.
    noise = np.convolve(chance.standard_normal(len(level)), np.ones(16) / 8, mode="same")
    samples = np.clip(noise * level * 0.5, -1, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return Recording(path, words)


def decoded(data: bytes) -> Samples:
    """Any sound as mono samples at 4 kHz, full scale 1. ValueError where it is none."""
    try:
        with av.open(io.BytesIO(data)) as container:
            resampler = av.AudioResampler("s16", "mono", _RATE)
            parts = [
                piece.to_ndarray()[0]
                for frame in [*container.decode(audio=0), None]
                for piece in resampler.resample(frame)
            ]
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError("The sound can't be decoded.") from error
    if not parts:
        raise ValueError("The file holds no sound.")
    return np.concatenate(parts).astype(np.float32) / 32768


@dataclass(frozen=True)
class _FilePart:
    field: str
    name: str
    content_type: str
    data: bytes


def file_part(asked: Asked) -> _FilePart | None:
    """The first file of a multipart body."""
    kind, _, boundary = asked.headers.get("content-type", "").partition("boundary=")
    if not kind.startswith("multipart/form-data") or not boundary:
        return None
    for piece in asked.body.split(b"--" + boundary.strip('"').encode())[1:]:
        head, _, data = piece.partition(b"\r\n\r\n")
        headers = _headers(head.decode("utf-8", "replace"))
        if 'filename="' in headers.get("content-disposition", ""):
            named = headers["content-disposition"]
            return _FilePart(
                field=named.partition(' name="')[2].partition('"')[0],
                name=named.partition('filename="')[2].partition('"')[0],
                content_type=headers.get("content-type", ""),
                data=data.removesuffix(b"\r\n"),
            )
    return None


def _headers(text: str) -> dict[str, str]:
    lines = [line.partition(":") for line in text.split("\r\n") if ":" in line]
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _loudest(part: Samples) -> tuple[int, Samples]:
    """Where the loudest part of a sound begins, and that part."""
    length = _PROBE_S * _RATE
    if len(part) <= length:
        return 0, part
    energy = np.cumsum(np.square(part, dtype=np.float64))
    first = int((energy[length:] - energy[:-length]).argmax())
    return first, part[first : first + length]


def _cut(word: Spoken, start_ms: int, end_ms: int) -> Spoken | None:
    start, end = max(start_ms, word.start_ms), min(end_ms, word.end_ms)
    share = (end - start) / (word.end_ms - word.start_ms)
    if share < _HEARD_SHARE:
        return None
    return word if share == 1 else Spoken(word.text[: max(1, round(len(word.text) * share * 0.9))], start, end)


def _times(first: Spoken, last: Spoken) -> dict[str, Any]:
    return {"start": first.start_ms / 1000, "end": last.end_ms / 1000}


def _refused(code: int, detail: str) -> Reply:
    return Reply(code, json.dumps({"detail": detail}).encode())
