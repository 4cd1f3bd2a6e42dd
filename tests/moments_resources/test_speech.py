"""Speech to text on this machine: what is heard, when, and what is not mistaken for speech."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from moments_core.errors import MediaError, ServiceError, SettingsError
from moments_core.sentences import transcript_problems
from moments_core.time import Span
from moments_core.transcript import Transcript, TranscriptSource
from moments_resources import speech_whisper
from moments_resources.speech import LOCAL_SPEECH
from moments_resources.speech_pocketsphinx import LONGEST_WORD_MS, Heard, PocketSphinxSpeech, spoken_words
from moments_resources.speech_utterances import BYTES_A_MS, Utterance, spoken_spans, utterances
from moments_resources.speech_whisper import WhisperSpeech

SAMPLE = Path(__file__).parents[2] / "samples" / "sample.mp4"
HAS_WHISPER = importlib.util.find_spec("faster_whisper") is not None
FIRST_SENTENCE = Span(400, 4_032)  # "Everything in a community garden begins with the soil under our boots."

NO_SPEECH = {
    "tone": "sine=frequency=440:duration=3",
    "white noise": "anoisesrc=d=2:c=white:a=0.2:seed=1",
    "brown noise": "anoisesrc=d=2:c=brown:a=0.5:seed=1",
    "throbbing noise": "anoisesrc=d=6:c=pink:a=0.5:seed=1,tremolo=f=4:d=0.9",
    "silence": "anullsrc=r=16000:cl=mono:d=20",
    "clicks": r"aevalsrc=if(lt(mod(t\,0.5)\,0.02)\,0.8*(random(0)*2-1)\,0):d=6",
    "drums": r"aevalsrc=0.5*exp(-8*mod(t\,0.5))*sin(2*PI*60*t)+0.2*exp(-40*mod(t+0.25\,0.5))*(random(0)*2-1)"
    r"+0.1*sin(2*PI*110*floor(1+mod(t\,4))*t):d=5",
}


def flac(target: Path, *arguments: str) -> Path:
    """A FLAC as the asset `audio` makes it: 16 kHz, mono, 16 bit."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", *arguments]
    subprocess.run([*command, "-vn", "-ac", "1", "-ar", "16000", "-sample_fmt", "s16", str(target)], check=True)
    return target


def speech_of(target: Path, *, until_s: float, after_s: float = 0.0) -> Path:
    """The sample's first seconds, after as much silence as asked."""
    filters = f"atrim=0:{until_s},adelay={round(after_s * 1000)}"
    return flac(target, "-i", str(SAMPLE), "-af", filters)


def heard(audio: Path, duration_ms: int, silences: tuple[Span, ...] = ()) -> Transcript:
    result = PocketSphinxSpeech().transcribe(audio, duration_ms=duration_ms, silences=silences)
    assert transcript_problems(result, duration_ms) == []
    return result


# --- PocketSphinx


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_what_is_no_speech_has_no_words(kind: str, tmp_path: Path) -> None:
    result = heard(flac(tmp_path / "sound.flac", "-f", "lavfi", "-i", NO_SPEECH[kind]), 20_000)
    assert (result.has_speech, result.source, result.words) == (False, TranscriptSource.NONE, ())
    assert (result.word_timing, result.language) == ("none", None)


def test_words_are_heard_when_they_are_said(tmp_path: Path) -> None:
    """The sample's voice is synthetic and hard to make out, but these two words come through."""
    result = heard(speech_of(tmp_path / "speech.flac", until_s=4.2), 4_200)
    assert (result.source, result.language, result.word_timing) == (TranscriptSource.SPEECH_MODEL, "en", "measured")
    times = {word.text: word.span for word in result.words}
    assert FIRST_SENTENCE.contains(times["community"])
    assert times["community"].end_ms <= times["garden"].start_ms
    assert all(0.0 <= (word.confidence or -1.0) <= 1.0 for word in result.words)
    assert not any(set(word.text) & set("<[()") for word in result.words)


def test_a_minute_of_silence_moves_words_by_a_minute(tmp_path: Path) -> None:
    early = heard(speech_of(tmp_path / "early.flac", until_s=4.2), 4_200)
    late_sound = speech_of(tmp_path / "late.flac", until_s=4.2, after_s=60)
    late = heard(late_sound, 64_200, silences=(Span(0, 60_300),))
    first, second = ({word.text: word.start_ms for word in words} for words in (early.words, late.words))
    assert abs(second["garden"] - first["garden"] - 60_000) <= 30


def test_what_is_too_quiet_to_be_heard_is_not_transcribed(tmp_path: Path) -> None:
    audio = flac(tmp_path / "faint.flac", "-i", str(SAMPLE), "-af", "atrim=0:4.2,volume=-62dB")
    assert not heard(audio, 4_200).has_speech


def test_nothing_is_heard_after_the_end_of_the_video(tmp_path: Path) -> None:
    result = heard(speech_of(tmp_path / "speech.flac", until_s=4.2), 2_000)
    assert result.words
    assert result.words[-1].end_ms <= 2_000


def test_progress_runs_forward_to_the_end(tmp_path: Path) -> None:
    audio = flac(tmp_path / "sound.flac", "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=70")
    done: list[int] = []
    PocketSphinxSpeech().transcribe(audio, duration_ms=70_000, silences=(), on_progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 70_000
    assert len(done) >= 3


def piece(text: str, start_ms: int, end_ms: int, confidence: float = 0.8) -> Heard:
    return Heard(text, Span(start_ms, end_ms), confidence)


SPEECH = [piece("<s>", 0, 100), piece("and(2)", 100, 400), piece("so", 400, 700), piece("</s>", 700, 900)]


def test_words_lose_their_variant_and_fillers_are_no_words() -> None:
    words = spoken_words([*SPEECH, piece("[NOISE]", 900, 950), piece("++UH++", 950, 1_000)])
    assert [(word.text, word.start_ms, word.end_ms) for word in words] == [("and", 100, 400), ("so", 400, 700)]


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param([piece("<sil>", 900, 4_000)], id="words fill too little of the time"),
        pytest.param([piece("[SPEECH]", 900, 1_200)], id="too much of it is noise"),
    ],
)
def test_an_utterance_that_is_mostly_something_else_has_no_words(noise: list[Heard]) -> None:
    assert spoken_words(SPEECH)
    assert spoken_words([*SPEECH, *noise]) == []


def test_a_few_slow_words_are_no_speech() -> None:
    slow = [piece("the", 0, 1_900), piece("<sil>", 1_900, 6_000)]
    assert spoken_words(slow) == []
    assert spoken_words(slow[:1])


def test_words_that_the_decoder_does_not_believe_itself_are_no_speech() -> None:
    assert spoken_words([piece("the", 0, 300, 0.01), piece("end", 300, 600, 0.1)]) == []


def test_a_word_that_never_ends_is_left_out() -> None:
    said = [piece(f"word{at}", at, at + 300) for at in range(0, 6_000, 300)]
    assert len(spoken_words([*said, piece("thank", 6_000, 6_000 + LONGEST_WORD_MS)])) == 21
    assert len(spoken_words([*said, piece("thank", 6_000, 6_010 + LONGEST_WORD_MS)])) == 20


# --- cutting the sound


def pieces(audio: Path, duration_ms: int, silences: tuple[Span, ...] = (), longest_ms: int = 30_000) -> list[Utterance]:
    found = utterances(audio, duration_ms=duration_ms, silences=silences, longest_ms=longest_ms, shortest_pause_ms=600)
    return list(found)


def test_the_sound_between_pauses_is_cut_with_a_margin() -> None:
    silences = [Span(0, 2_000), Span(3_000, 3_599), Span(5_000, 6_000), Span(9_000, 12_000)]
    assert spoken_spans(10_000, silences, shortest_pause_ms=600) == [Span(1_700, 5_300), Span(5_700, 9_300)]


@pytest.mark.parametrize(
    ("duration_ms", "silences", "spans"),
    [
        (0, [], []),
        (5_000, [Span(0, 9_000)], []),
        (5_000, [], [Span(0, 5_000)]),
        (5_000, [Span(6_000, 8_000), Span(9_000, 9_900)], [Span(0, 5_000)]),
        (200, [], [Span(0, 200)]),
    ],
)
def test_sound_without_pauses_or_without_anything_else_is_one_span_or_none(
    duration_ms: int, silences: list[Span], spans: list[Span]
) -> None:
    assert spoken_spans(duration_ms, silences, shortest_pause_ms=600) == spans


def test_pieces_hold_every_sample_once_and_know_their_time(tmp_path: Path) -> None:
    audio = flac(tmp_path / "noise.flac", "-f", "lavfi", "-i", "anoisesrc=d=12:c=pink:a=0.5:seed=1")
    (whole,) = pieces(audio, 12_000)
    cut = pieces(audio, 12_000, longest_ms=1_500)
    assert b"".join(piece.pcm for piece in cut) == whole.pcm
    assert [piece.start_ms for piece in cut[1:]] == [piece.end_ms for piece in cut[:-1]]
    assert all(950 <= piece.end_ms - piece.start_ms <= 1_500 for piece in cut[:-1])
    (_, later) = pieces(audio, 12_000, silences=(Span(2_000, 8_000),))
    assert later.pcm == whole.pcm[7_700 * BYTES_A_MS :]
    assert later.start_ms == 7_700


def test_a_long_piece_is_cut_where_it_is_quietest(tmp_path: Path) -> None:
    source = "anoisesrc=d=4:c=pink:a=0.5:seed=1,volume=0.01:enable='between(t,2.5,2.8)'"
    first, _ = pieces(flac(tmp_path / "noise.flac", "-f", "lavfi", "-i", source), 4_000, longest_ms=3_000)
    assert 2_550 <= first.end_ms <= 2_750


def test_sound_that_ends_before_the_video_does_is_read_to_its_end(tmp_path: Path) -> None:
    audio = flac(tmp_path / "noise.flac", "-f", "lavfi", "-i", "anoisesrc=d=2:c=pink:a=0.5:seed=1")
    assert [piece.end_ms for piece in pieces(audio, 60_000, silences=(Span(4_000, 9_000),))] == [2_000]


def test_samples_are_floats_between_minus_one_and_one() -> None:
    samples = Utterance(0, np.array([-32768, 0, 16384], "<i2").tobytes()).samples()
    assert samples.dtype == np.dtype("float32")
    assert samples.tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    "content", [b"", b"this is no sound", b"ffconcat version 1.0\nfile other.flac\n", b"fLaC" + bytes(40)]
)
def test_a_file_that_is_no_flac_is_refused(content: bytes, tmp_path: Path) -> None:
    flac(tmp_path / "other.flac", "-f", "lavfi", "-i", "sine=duration=1")
    audio = tmp_path / "sound.flac"
    audio.write_bytes(content)
    with pytest.raises(MediaError, match="make the asset `audio` again"):
        pieces(audio, 1_000)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="can't be read"):
        pieces(tmp_path / "none.flac", 1_000)


# --- Whisper


@dataclass
class WhisperWord:
    start: float
    end: float
    word: str
    probability: float = 0.9


@dataclass
class WhisperSegment:
    words: list[WhisperWord] | None
    no_speech_prob: float = 0.0
    avg_logprob: float = -0.2


def test_whispers_seconds_in_a_stretch_become_milliseconds_of_the_video() -> None:
    segments = [
        WhisperSegment([WhisperWord(-0.01, 0.5, " Hello,"), WhisperWord(0.5, 0.5, " you"), WhisperWord(1, 2, " ")])
    ]
    words = speech_whisper.spoken_words(segments, offset_ms=300_000)
    found = [(word.text, word.start_ms, word.end_ms, word.confidence) for word in words]
    assert found == [("Hello,", 300_000, 300_500, 0.9), ("you", 300_500, 300_501, 0.9)]


def test_what_whisper_invents_in_silence_is_left_out() -> None:
    said = [WhisperWord(0, 1, " Thanks for watching!")]
    invented = WhisperSegment(said, no_speech_prob=0.9, avg_logprob=-1.5)
    sure = WhisperSegment(said, no_speech_prob=0.9, avg_logprob=-0.3)
    empty = WhisperSegment(None)
    assert len(list(speech_whisper.spoken_words([invented, sure, empty], offset_ms=0))) == 1


@pytest.mark.skipif(HAS_WHISPER, reason="the extra `whisper` is installed here")
def test_whisper_that_is_not_installed_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'pip install "moments\[whisper\]"'):
        WhisperSpeech().transcribe(tmp_path / "none.flac", duration_ms=1_000, silences=())


@pytest.mark.skipif(not HAS_WHISPER, reason="needs the extra `whisper`")
def test_whisper_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(ServiceError, match="HF_HOME"):
            WhisperSpeech(str(folder)).transcribe(tmp_path / "none.flac", duration_ms=1_000, silences=())


# --- choosing


def test_keys_name_the_local_recognisers() -> None:
    assert {key: type(make()) for key, make in LOCAL_SPEECH.items()} == {
        "local": PocketSphinxSpeech,
        "local-whisper": WhisperSpeech,
    }


def test_only_the_weak_recogniser_gives_way_to_captions() -> None:
    assert {key: make().yields_to_captions for key, make in LOCAL_SPEECH.items()} == {
        "local": True,
        "local-whisper": False,
    }


def test_a_recipe_names_its_model_and_version() -> None:
    assert PocketSphinxSpeech().recipe.startswith("pocketsphinx-5")
    assert WhisperSpeech("/models/large-v3").recipe == "whisper-large-v3-int8-1"
