"""PocketSphinx in a process of its own: sound comes in on stdin, what is heard goes out on stdout.

One piece after the other: its length in bytes (`LENGTH`) and its sound (16 kHz, mono, 16 bit, little endian) are
answered by one line of JSON, [[text, first frame, last frame, posterior], ...], where a frame is 10 ms of the piece.
Ends with stdin. It is started once a transcription, so it imports nothing that it does not need.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketsphinx import Decoder

LENGTH = struct.Struct("<I")


def main() -> None:
    decoder = _decoder()
    while header := sys.stdin.buffer.read(LENGTH.size):
        (length,) = LENGTH.unpack(header)
        print(json.dumps(_decoded(decoder, sys.stdin.buffer.read(length))), flush=True)  # noqa: T201 - the answer


def _decoder() -> Decoder:
    """The default search, narrowed to 3,000 states a frame and helped by ten frames of phones ahead.

    A third of the default's work (0.20 against 0.60 s a second on an old recording), and fewer errors: 23 % of the
    words against 27 %; clear speech has 2 % either way.
    """
    from pocketsphinx import Decoder

    return Decoder(maxhmmpf=3000, pl_window=10, loglevel="FATAL")


def _decoded(decoder: Decoder, pcm: bytes) -> list[tuple[str, int, int, float]]:
    # A decoder counts frames from its utterance's start, so no error adds up over a long video.
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return [(part.word, part.start_frame, part.end_frame, part.prob) for part in decoder.seg() or ()]


if __name__ == "__main__":
    main()
