"""Speech to text without a download: PocketSphinx, whose English model is in its wheel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core.sentences import ordered_words, sentences_from_words
from moments_core.time import Span
from moments_core.transcript import Transcript, TranscriptSource, Word
from moments_resources.pocketsphinx_process import PocketSphinxProcess, Segment
from moments_resources.speech_utterances import Utterance, utterances

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_MS = 30_000  # a decoder's memory and its guesses grow with the utterance; nobody speaks 30 s without a breath
PAUSE_MS = 600
FRAME_MS = 10

# What is no speech is heard as a few words between noises, or as one word that never ends. Measured on tones, chords,
# drums, melodies, clicks and noises of five kinds against speech, clear and old:  speech      the rest
LEAST_SHARE = 0.25  # of the utterance's time that is words                       0.44–0.90   0–0.17, drums 0.49
LEAST_WORDS_A_SECOND = 0.4  #                                                     0.9–3.0     0–0.2, drums 1.1
LEAST_TIMES_NOISE = 4  # words' time over the time of [NOISE], [SPEECH], …        30 and more drums 2.9
LEAST_CONFIDENCE = 0.1  # mean of the words                                       0.29–0.92   0–0.4
LONGEST_WORD_MS = 2_000
INAUDIBLE_PEAK = 33  # of 32,768: -60 dBFS, below the noise of any room that was recorded

_VARIANT = re.compile(r"\(\d+\)$")  # "and(2)" is the second pronunciation of "and"


@dataclass(frozen=True, slots=True)
class Heard:
    """A piece of the decoder's answer: a word, or "<sil>", "[NOISE]" and so on. `confidence`: posterior, 0..1."""

    text: str
    span: Span
    confidence: float

    @property
    def is_word(self) -> bool:
        return self.text[0] not in "<[+"

    @property
    def is_noise(self) -> bool:
        return self.text[0] in "[+"


class PocketSphinxSpeech:
    """English only; near perfect on clear studio speech, a rough guess on anything else."""

    yields_to_captions = True

    @property
    def recipe(self) -> str:
        return f"pocketsphinx-{version('pocketsphinx')}-en-us-1"

    def transcribe(
        self,
        audio: Path,
        *,
        duration_ms: int,
        silences: Sequence[Span],
        on_progress: Callable[[int], None] | None = None,
    ) -> Transcript:
        """What is said in `audio` (16 kHz mono FLAC), in the video's milliseconds; source NONE where nobody speaks.

        Takes 0.06–0.25 s of one core a second of sound. `on_progress` gets the milliseconds that are done.
        Raises MediaError where `audio` is no readable FLAC, TransientError where the decoder's process is killed.
        """
        heard: list[Word] = []
        with PocketSphinxProcess() as decoder:
            for piece in utterances(
                audio, duration_ms=duration_ms, silences=silences, longest_ms=LONGEST_MS, shortest_pause_ms=PAUSE_MS
            ):
                if _is_audible(piece):
                    heard += spoken_words(list(_heard(piece, decoder.decoded(piece.pcm))))
                if on_progress:
                    on_progress(min(piece.end_ms, duration_ms))
        words = ordered_words(heard, duration_ms=duration_ms)
        if not words:
            return Transcript(source=TranscriptSource.NONE, model=self.recipe)
        return Transcript(
            language="en",
            source=TranscriptSource.SPEECH_MODEL,
            model=self.recipe,
            word_timing="measured",
            words=words,
            sentences=sentences_from_words(words),
        )


def spoken_words(heard: Sequence[Heard]) -> list[Word]:
    """The words of one utterance, or none where it is music or noise that only sounds like some."""
    words = [piece for piece in heard if piece.is_word and piece.span.length_ms <= LONGEST_WORD_MS]
    if not words:
        return []
    total_ms = heard[-1].span.end_ms - heard[0].span.start_ms
    worded_ms = sum(piece.span.length_ms for piece in words)
    noise_ms = sum(piece.span.length_ms for piece in heard if piece.is_noise)
    is_speech = (
        worded_ms >= LEAST_SHARE * total_ms
        and worded_ms >= LEAST_TIMES_NOISE * noise_ms
        and len(words) * 1000 >= LEAST_WORDS_A_SECOND * total_ms
        and sum(piece.confidence for piece in words) >= LEAST_CONFIDENCE * len(words)
    )
    return [_word(piece) for piece in words] if is_speech else []


def _word(heard: Heard) -> Word:
    return Word(
        start_ms=heard.span.start_ms,
        end_ms=heard.span.end_ms,
        text=_VARIANT.sub("", heard.text),
        confidence=round(min(heard.confidence, 1.0), 3),
    )


def _is_audible(piece: Utterance) -> bool:
    import numpy as np

    samples: NDArray[np.int16] = np.frombuffer(piece.pcm, "<i2")
    return bool(len(samples)) and int(np.abs(samples.astype(np.int32)).max()) > INAUDIBLE_PEAK


def _heard(piece: Utterance, segments: Iterable[Segment]) -> Iterator[Heard]:
    for segment in segments:
        start_ms = piece.start_ms + segment.start_frame * FRAME_MS
        length_ms = (segment.end_frame + 1 - segment.start_frame) * FRAME_MS
        if segment.word and length_ms > 0:
            yield Heard(segment.word, Span(start_ms, start_ms + length_ms), segment.prob)
