"""The sound cut for a recogniser that hears it in pieces: in silences, or in speech with an overlap."""

from __future__ import annotations

import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from moments_core.time import Span
from moments_resources.media.flac import encoded_flac
from moments_resources.speech_utterances import BYTES_A_MS, Utterance, chunks

LONGEST_MS, OVERLAP_MS = 8_000, 1_000


def noise(path: Path, duration_ms: int, *, quiet: tuple[Span, ...] = (), quiet_level: float = 0.01) -> Path:
    """A FLAC of noise, softer in the `quiet` spans."""
    level = np.full(duration_ms * 16, 3_000.0)
    for span in quiet:
        level[span.start_ms * 16 : span.end_ms * 16] *= quiet_level
    samples = (np.random.default_rng(1).standard_normal(len(level)) * level).clip(-32_768, 32_767)
    path.write_bytes(encoded_flac(samples.astype("<i2").tobytes()))
    return path


def cut(audio: Path, duration_ms: int, silences: tuple[Span, ...] = ()) -> list[Utterance]:
    found = chunks(
        audio,
        duration_ms=duration_ms,
        silences=silences,
        longest_ms=LONGEST_MS,
        overlap_ms=OVERLAP_MS,
        shortest_pause_ms=10_000,
    )
    return list(found)


def spans(pieces: list[Utterance]) -> list[tuple[int, int]]:
    return [(piece.start_ms, piece.end_ms) for piece in pieces]


def test_a_short_sound_is_one_chunk(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", LONGEST_MS)
    assert spans(cut(audio, LONGEST_MS, (Span(3_000, 4_000),))) == [(0, LONGEST_MS)]


def test_chunks_part_in_the_longest_silence_of_their_second_half(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", 15_000)
    silences = (Span(2_000, 3_500), Span(4_000, 5_000), Span(6_000, 6_400), Span(10_000, 11_000))
    assert spans(cut(audio, 15_000, silences)) == [(0, 4_500), (4_500, 10_500), (10_500, 15_000)]


def test_where_there_is_no_silence_both_chunks_hear_the_quietest_moment(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", 12_000, quiet=(Span(5_700, 6_000),))
    first, second = cut(audio, 12_000)
    seam_ms = (first.end_ms + second.start_ms) // 2
    assert 5_750 <= seam_ms <= 5_950
    assert (first.end_ms - seam_ms, seam_ms - second.start_ms) == (OVERLAP_MS, OVERLAP_MS)


@pytest.mark.parametrize("silent_ms", [[], [9_000, 30_000, 36_000], [7_400, 14_000, 20_500, 27_100]])
def test_every_sample_is_in_a_chunk_and_a_third_never_reaches_into_an_overlap(
    silent_ms: list[int], tmp_path: Path
) -> None:
    audio = noise(tmp_path / "sound.flac", 45_000)
    (whole,) = chunks(
        audio, duration_ms=45_000, silences=(), longest_ms=60_000, overlap_ms=OVERLAP_MS, shortest_pause_ms=10_000
    )
    pieces = cut(audio, 45_000, tuple(Span(ms, ms + 400) for ms in silent_ms))
    assert (pieces[0].start_ms, pieces[-1].end_ms) == (0, 45_000)
    for piece in pieces:
        assert piece.pcm == whole.pcm[piece.start_ms * BYTES_A_MS : piece.end_ms * BYTES_A_MS]
        assert OVERLAP_MS < piece.end_ms - piece.start_ms <= LONGEST_MS
    for before, after in pairwise(pieces):
        assert before.end_ms - after.start_ms in {0, 2 * OVERLAP_MS}
    for before, after in zip(pieces, pieces[2:], strict=False):
        assert before.end_ms <= after.start_ms


def test_a_silence_that_reaches_into_the_second_half_is_enough(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", 10_000)
    assert spans(cut(audio, 10_000, (Span(2_000, 3_800),))) == [(0, 3_650), (3_650, 10_000)]
    assert cut(audio, 10_000, (Span(2_000, 3_799),))[0].end_ms > 3_650  # too little of it


def test_long_pauses_are_left_out(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", 30_000)
    silences = (Span(5_000, 14_999), Span(16_000, 27_000))
    assert spans(cut(audio, 30_000, silences)) == [(0, 6_000), (6_000, 11_250), (11_250, 16_300), (26_700, 30_000)]


def test_sound_that_ends_before_the_video_does_is_heard_to_its_end(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", 9_000)
    pieces = cut(audio, 60_000, (Span(20_000, 40_000),))
    assert len(pieces) == 2
    assert pieces[-1].end_ms == 9_000


def test_nothing_but_silence_has_no_chunks(tmp_path: Path) -> None:
    audio = noise(tmp_path / "sound.flac", 20_000)
    assert cut(audio, 20_000, (Span(0, 20_000),)) == []
    assert cut(audio, 0) == []


def test_flac_is_the_sound_itself_and_smaller(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    for count in (1, 1_000, 16_000, 40_001):
        pcm = np.cumsum(chance.standard_normal(count) * 20).astype("<i2").tobytes()
        with wave.open(str(tmp_path / "sound.wav"), "wb") as plain:
            plain.setparams((1, 2, 16_000, 0, "NONE", ""))
            plain.writeframes(pcm)
        audio = tmp_path / "sound.flac"
        audio.write_bytes(encoded_flac(pcm))
        duration_ms = count // 16
        assert b"".join(piece.pcm for piece in cut(audio, duration_ms)) == pcm[: duration_ms * BYTES_A_MS]
    assert audio.stat().st_size < 0.6 * (tmp_path / "sound.wav").stat().st_size
