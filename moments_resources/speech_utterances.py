"""The sound cut into pieces that a recogniser can take: at pauses, never longer than asked, read as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core.errors import MediaError
from moments_core.time import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
BYTES_A_MS = 2 * SAMPLE_RATE // 1000

_MARGIN_MS = 300  # of the pause on each side: a recogniser that starts inside a word hears another one
_SILENT_MS = 300  # a word's faint beginning and end lie within 150 ms of what is loud
_QUIET_MS = 200  # the breath at which a piece that has no pause is cut


@dataclass(frozen=True, slots=True)
class Utterance:
    """Sound from `start_ms` of the video on: 16 kHz, mono, 16 bit, little endian."""

    start_ms: int
    pcm: bytes

    @property
    def end_ms(self) -> int:
        return self.start_ms + len(self.pcm) // BYTES_A_MS

    def samples(self) -> NDArray[np.float32]:
        """The sound in -1..1."""
        import numpy as np

        return np.frombuffer(self.pcm, "<i2").astype(np.float32) / np.float32(32768)


def utterances(
    audio: Path, *, duration_ms: int, silences: Sequence[Span], longest_ms: int, shortest_pause_ms: int
) -> Iterator[Utterance]:
    """The sound of a FLAC file between its pauses, in time order, each piece at most `longest_ms` long.

    Holds one piece in memory (30 s: 1 MB), whatever the length of the file. Raises MediaError for a file that is
    no readable FLAC.
    """
    tape = _Tape(_blocks(audio))
    for span in spoken_spans(duration_ms, silences, shortest_pause_ms=shortest_pause_ms):
        tape.skip_to(span.start_ms)
        while tape.at_ms < span.end_ms:
            held = tape.peek(min(span.end_ms - tape.at_ms, longest_ms))
            if not held:
                return
            whole = span.end_ms - tape.at_ms <= longest_ms
            start_ms = tape.at_ms
            yield Utterance(start_ms, tape.take(len(held) // BYTES_A_MS if whole else _quietest_ms(held)))


def chunks(
    audio: Path,
    *,
    duration_ms: int,
    silences: Sequence[Span],
    longest_ms: int,
    overlap_ms: int,
    shortest_pause_ms: int,
) -> Iterator[Utterance]:
    """As `utterances`, but cut in silences where there are any, for a recogniser that needs what is around a word.

    Where a cut has to be made in speech, both pieces hold `overlap_ms` on each side of it. That must be an eighth of
    `longest_ms` at most, or a third piece would reach into what two share.
    """
    tape = _Tape(_blocks(audio))
    for span in spoken_spans(duration_ms, silences, shortest_pause_ms=shortest_pause_ms):
        tape.skip_to(span.start_ms)
        while held := tape.peek(min(span.end_ms - tape.at_ms, longest_ms)):
            start_ms = tape.at_ms
            held_ms = len(held) // BYTES_A_MS
            if held_ms < longest_ms or start_ms + held_ms == span.end_ms:
                yield Utterance(start_ms, tape.take(held_ms))
                break
            window = Span(start_ms, start_ms + longest_ms - overlap_ms)
            end_ms, next_ms = _silent_cut(window, silences) or _spoken_cut(window, held, overlap_ms)
            yield Utterance(start_ms, held[: (end_ms - start_ms) * BYTES_A_MS])
            tape.skip_to(next_ms)


def _silent_cut(window: Span, silences: Sequence[Span]) -> tuple[int, int] | None:
    """Where a piece ends and the next begins: the middle of the longest silence in the window's second half."""
    late = Span(window.start_ms + window.length_ms // 2, window.end_ms)
    inside = [part for silence in silences if (part := silence.clamped(late)) and part.length_ms >= _SILENT_MS]
    if not inside:
        return None
    longest = max(inside, key=lambda part: (part.length_ms, part.start_ms))
    cut_ms = (longest.start_ms + longest.end_ms) // 2
    return cut_ms, cut_ms


def _spoken_cut(window: Span, held: bytes, overlap_ms: int) -> tuple[int, int]:
    """As `_silent_cut`, around the quietest moment."""
    cut_ms = window.start_ms + _quietest_ms(held[: window.length_ms * BYTES_A_MS])
    return cut_ms + overlap_ms, cut_ms - overlap_ms


def spoken_spans(duration_ms: int, silences: Iterable[Span], *, shortest_pause_ms: int) -> list[Span]:
    """What lies between pauses of at least `shortest_pause_ms`, with a margin on each side; none over another."""
    if duration_ms <= 0:
        return []
    video = Span(0, duration_ms)
    inside = (pause for silence in silences if (pause := silence.clamped(video)))
    at_ms, spans = 0, []
    for pause in (pause for pause in inside if pause.length_ms >= max(shortest_pause_ms, 2 * _MARGIN_MS)):
        if at_ms < pause.start_ms:
            spans.append(Span(at_ms, pause.start_ms))
        at_ms = pause.end_ms
    if at_ms < duration_ms:
        spans.append(Span(at_ms, duration_ms))
    return [span.padded(_MARGIN_MS, within=video) for span in spans]


class _Tape:
    """Blocks of sound that are read once, forwards, and cut at any millisecond."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._held = bytearray()
        self.at_ms = 0

    def peek(self, length_ms: int) -> bytes:
        """The next `length_ms`, or what is left."""
        while len(self._held) < length_ms * BYTES_A_MS and (block := next(self._blocks, b"")):
            self._held += block
        whole_ms = min(length_ms, len(self._held) // BYTES_A_MS)
        return bytes(self._held[: whole_ms * BYTES_A_MS])

    def take(self, length_ms: int) -> bytes:
        taken = self.peek(length_ms)
        del self._held[: len(taken)]
        self.at_ms += len(taken) // BYTES_A_MS
        return taken

    def skip_to(self, ms: int) -> None:
        while self.at_ms < ms and self.take(min(ms - self.at_ms, 1_000)):
            pass


def _blocks(audio: Path) -> Iterator[bytes]:
    import av

    unreadable = MediaError(f"The sound in {audio.name} can't be read: make the asset `audio` again.", file=audio.name)
    is_empty = True
    try:
        with av.open(f"file:{audio}", format="flac", options={"protocol_whitelist": "file"}) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(audio=0):
                is_empty = False
                for plain in resampler.resample(frame):
                    yield bytes(plain.planes[0])[: plain.samples * 2]
    except av.error.FFmpegError as error:
        raise unreadable from error
    if is_empty:  # ffmpeg's FLAC reader takes any bytes for a file that has no frame yet
        raise unreadable


def _quietest_ms(pcm: bytes) -> int:
    """The middle of the quietest moment in the last third, in ms from the start: the safest place to cut speech."""
    import numpy as np

    frame, window = 10 * SAMPLE_RATE // 1000, _QUIET_MS // 10
    frames = len(pcm) // 2 // frame
    first = (frames - window + 1) * 2 // 3
    samples = np.frombuffer(pcm, "<i2")[first * frame : frames * frame].astype(np.float64)
    power = (samples.reshape(-1, frame) ** 2).mean(axis=1)
    smooth = np.convolve(power, np.ones(window) / window, mode="valid")
    return int((first + np.argmin(smooth)) * 10 + _QUIET_MS // 2)
