"""How loud a sound is over time, and where it rests: pure arithmetic on 16-bit samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moments_core.time import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
FLOOR_DB = -120.0

# 20 ms is the frame of speech analysis: long enough for one period of a low voice, short enough for a pause's edge.
_FRAME_MS = 20
_FRAME_SAMPLES = SAMPLE_RATE * _FRAME_MS // 1000
_FRAMES_A_SECOND = 1000 // _FRAME_MS

# A closure inside a word lasts under 0.2 s, a pause at a comma 0.2-0.4 s, one between sentences 0.4 s and more.
MIN_SILENCE_MS = 350

# The threshold follows the recording: a fixed -35 dB finds no pause in a noisy hall, and calls a quiet voice
# silence. It stands at 30 % of the way (in dB) from the room to the voice. Room: 10th percentile of the frames,
# believed to at most 40 dB below the voice, so that digital silence does not drag it down. Voice: 95th percentile.
_ROOM_PERCENTILE, _VOICE_PERCENTILE = 10, 95
_DEEPEST_ROOM_DB = 40.0
_SHARE_OF_RANGE = 0.3
# Steady sound (music, a tone) has no pauses: what rests lies at least this far below the voice.
_LEAST_DROP_DB = 10.0
# Below -60 dBFS nothing is heard at normal volume: a frame there is silence in any recording.
INAUDIBLE_DB = -60.0
# EBU R 128 gates blocks below -70 as silence: a sound without a second that reaches it holds nothing that was heard.
_GATE_DB = -70.0


def nothing_is_heard(rms_db: Sequence[float]) -> bool:
    """Whether a sound is silent, by its level a second: what recognisers get decides, not what the channels held."""
    return all(level < _GATE_DB for level in rms_db)


class LevelMeter:
    """Takes samples as they come (s16le, mono, 16 kHz); keeps the mean square of every 20 ms (0.7 MB an hour)."""

    def __init__(self) -> None:
        self._rest = b""
        self._powers: list[NDArray[np.float32]] = []
        self._samples = 0

    def add(self, chunk: bytes) -> None:
        data = self._rest + chunk
        whole = len(data) - len(data) % (_FRAME_SAMPLES * 2)
        self._rest = data[whole:]
        if whole:
            self._measure(data[:whole])

    def finish(self) -> None:
        """Measure what is left of the last frame."""
        self._measure(self._rest[: len(self._rest) // 2 * 2])
        self._rest = b""

    @property
    def duration_ms(self) -> int:
        return round(self._samples * 1000 / SAMPLE_RATE)

    def rms_db(self) -> tuple[float, ...]:
        """Level of each second in dBFS, -120 for digital silence."""
        import numpy as np

        frames = self._frames()
        starts = np.arange(0, len(frames), _FRAMES_A_SECOND)
        if not len(starts):
            return ()
        counts = np.diff(np.append(starts, len(frames)))
        return tuple(round(float(level), 1) for level in _decibels(np.add.reduceat(frames, starts) / counts))

    def silences(self) -> tuple[Span, ...]:
        """Pauses of at least `MIN_SILENCE_MS`, in time order, inside the sound."""
        import numpy as np

        levels = _decibels(self._frames())
        if not len(levels):
            return ()
        quiet = np.concatenate(([False], levels < _threshold_db(levels), [False]))
        edges = np.flatnonzero(np.diff(quiet.astype(np.int8))) * _FRAME_MS
        runs = zip(edges[::2], np.minimum(edges[1::2], self.duration_ms), strict=True)
        return tuple(Span(int(start), int(end)) for start, end in runs if end - start >= MIN_SILENCE_MS)

    def _frames(self) -> NDArray[np.float32]:
        import numpy as np

        return np.concatenate(self._powers) if self._powers else np.zeros(0, np.float32)

    def _measure(self, data: bytes) -> None:
        import numpy as np

        samples = np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768
        if not len(samples):
            return
        self._samples += len(samples)
        starts = np.arange(0, len(samples), _FRAME_SAMPLES)
        counts = np.diff(np.append(starts, len(samples)))
        self._powers.append((np.add.reduceat(samples * samples, starts) / counts).astype(np.float32))


def _decibels(power: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    import numpy as np

    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10))), np.float32)


def _threshold_db(levels: NDArray[np.float32]) -> float:
    import numpy as np

    room, voice = (float(level) for level in np.percentile(levels, [_ROOM_PERCENTILE, _VOICE_PERCENTILE]))
    room = max(room, voice - _DEEPEST_ROOM_DB)
    between = min(room + _SHARE_OF_RANGE * (voice - room), voice - _LEAST_DROP_DB)
    return max(between, INAUDIBLE_DB)
