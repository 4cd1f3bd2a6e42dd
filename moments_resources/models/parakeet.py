"""Speech to text by a Parakeet server: the sound goes there in chunks, side by side, and the words come back as one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from moments_core.errors import PermanentError
from moments_core.heard import Timing, transcript_from_heard
from moments_core.parakeet_reply import HeardSpeech, parse_parakeet
from moments_core.seams import HeardChunk, joined
from moments_core.time import Span
from moments_core.transcript import Transcript
from moments_resources.media.flac import encoded_flac
from moments_resources.models.batch import Call
from moments_resources.models.caller import ModelCaller
from moments_resources.models.calls import StoredReply
from moments_resources.models.reading import all_read
from moments_resources.models.wire import reply_body
from moments_resources.speech_utterances import Utterance, chunks

if TYPE_CHECKING:
    import httpx2

# Parakeet attends to all of a sound at once: 24 minutes fill a GPU of 80 GB, 8 one of 24 GB. Five leave room beside
# other models, are 6 MB of FLAC (9.6 at worst, where 25 is a usual limit for uploads), and lose less than a second of
# the model's time where a call has to be repeated.
LONGEST_MS = 300_000
OVERLAP_MS = 2_000  # on each side of a cut in speech: a long word and what the model needs around it
PAUSE_MS = 10_000  # only long pauses are left out: what counts as silence in a loud room may be a quiet voice
SHORTEST_MS = 100  # no word is as short, and a server's filters fail on less


class ParakeetSpeech:
    """The language that the server's model knows, with punctuation. Chunks last `longest_ms` at most, 2 s at least."""

    yields_to_captions = False
    takes_turns = True

    def __init__(self, caller: ModelCaller, *, longest_ms: int = LONGEST_MS) -> None:
        self._caller = caller
        self._longest_ms = longest_ms
        self._overlap_ms = min(OVERLAP_MS, longest_ms // 8)

    @property
    def recipe(self) -> str:
        return f"parakeet {self._caller.entry.key} chunks-1"

    @property
    def parameters(self) -> Mapping[str, object]:
        served = self._caller.entry.served_name
        return {"longest_ms": self._longest_ms, "overlap_ms": self._overlap_ms, "served_name": served}

    def transcribe(
        self,
        audio: Path,
        *,
        duration_ms: int,
        silences: Sequence[Span],
        on_progress: Callable[[int], None] | None = None,
    ) -> Transcript:
        """What is said in `audio` (16 kHz mono FLAC), in the video's milliseconds; source NONE where nobody speaks.

        Holds one chunk in memory (80 MB with all that is made of it), however long the sound is; the others lie as
        FLAC in an unnamed file of the temporary folder, 73 MB an hour.
        Raises MediaError for a sound that can't be read, and the errors of a call to a model.
        """
        with tempfile.TemporaryFile() as kept:  # it has no name, so it is gone however this process ends
            pieces = list(self._cut(audio, duration_ms, silences, kept))
            replies = self._heard(pieces, _in_ms(on_progress, pieces, duration_ms))
        heard = all_read(self._read, zip(replies, pieces, strict=True))
        words = joined([HeardChunk(piece.span, said.words) for piece, said in zip(pieces, heard, strict=True)])
        return transcript_from_heard(words, duration_ms=duration_ms, model=self.recipe, timing=_timing(heard))

    def _cut(self, audio: Path, duration_ms: int, silences: Sequence[Span], kept: IO[bytes]) -> Iterator[_Piece]:
        cut = chunks(
            audio,
            duration_ms=duration_ms,
            silences=silences,
            longest_ms=self._longest_ms,
            overlap_ms=self._overlap_ms,
            shortest_pause_ms=PAUSE_MS,
        )
        for chunk in cut:
            if chunk.end_ms - chunk.start_ms >= SHORTEST_MS:
                yield _Piece.kept_in(kept, chunk)

    def _heard(self, pieces: Sequence[_Piece], on_done: Callable[[int], None] | None) -> list[StoredReply]:
        if not pieces:
            return []
        key = self._caller.link.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        calls = [
            Call(piece.identity, partial(partial, _send, piece, headers), weight=piece.span.length_ms)
            for piece in pieces
        ]
        with _advice(pieces):
            return self._caller.call_all(calls, on_done=on_done)

    def _read(self, heard: tuple[StoredReply, _Piece]) -> HeardSpeech:
        reply, piece = heard
        with self._caller.reading(reply):
            return parse_parakeet(reply.body, length_ms=piece.span.length_ms)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk of the sound, its FLAC kept in a file from `offset` on."""

    span: Span
    pcm_sha256: str
    file: IO[bytes]
    offset: int
    size: int

    @classmethod
    def kept_in(cls, file: IO[bytes], chunk: Utterance) -> _Piece:
        flac, offset = encoded_flac(chunk.pcm), file.tell()
        file.write(flac)
        file.flush()
        digest = hashlib.sha256(chunk.pcm).hexdigest()
        return cls(Span(chunk.start_ms, chunk.end_ms), digest, file, offset, len(flac))

    @property
    def identity(self) -> Mapping[str, object]:
        """Of the sound itself: an encoder of another version writes other bytes for it."""
        return {"sound_sha256": self.pcm_sha256, "start_ms": self.span.start_ms}

    def flac(self) -> bytes:
        return os.pread(self.file.fileno(), self.size, self.offset)  # at a place of its own: calls go side by side


async def _send(piece: _Piece, headers: Mapping[str, str], client: httpx2.AsyncClient, address: str) -> bytes:
    files = {"file": ("sound.flac", piece.flac(), "audio/flac")}
    async with client.stream("POST", address, files=files, headers=headers) as response:
        return await reply_body(response)


def _in_ms(
    on_progress: Callable[[int], None] | None, pieces: Sequence[_Piece], duration_ms: int
) -> Callable[[int], None] | None:
    """Milliseconds of the video for milliseconds of its chunks, which overlap and leave out pauses."""
    total_ms = sum(piece.span.length_ms for piece in pieces)
    return (lambda done_ms: on_progress(duration_ms * done_ms // total_ms)) if on_progress else None


def _timing(heard: Sequence[HeardSpeech]) -> Timing:
    return "interpolated" if any(said.timing == "interpolated" for said in heard) else "measured"


@contextmanager
def _advice(pieces: Sequence[_Piece]) -> Iterator[None]:
    """Say what to do about a server that refuses the sound itself."""
    try:
        yield
    except PermanentError as error:
        status, key = error.evidence.get("status"), error.evidence.get("model")
        seconds = max(piece.span.length_ms for piece in pieces) / 1000
        megabytes = max(piece.size for piece in pieces) / 1e6
        if status == 413:
            raise PermanentError(
                f"The server of the model {key} takes no sound of {seconds:.0f} s or {megabytes:.1f} MB (status 413): "
                "raise its limit, and that of a proxy ahead of it.",
                **error.evidence,
            ) from error
        if status in {400, 415, 422}:
            raise PermanentError(
                f"The server of the model {key} refused the sound (status {status}): it must take FLAC of "
                f"{seconds:.0f} s as the multipart field `file`; see its log.",
                **error.evidence,
            ) from error
        raise
