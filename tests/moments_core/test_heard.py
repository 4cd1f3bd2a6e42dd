"""Words that were heard become a transcript; its sentences follow the recogniser's segments where they are right."""

from __future__ import annotations

from moments_core.heard import HeardWord, transcript_from_heard
from moments_core.seams import HeardChunk, joined
from moments_core.sentences import transcript_problems
from moments_core.time import Span
from moments_core.transcript import Transcript, TranscriptSource


def spoken(text: str, *, closes: str = "/", each_ms: int = 300) -> list[HeardWord]:
    """Words one after the other; a slash behind one: the recogniser closes a segment there."""
    return [
        HeardWord(at * each_ms, (at + 1) * each_ms - 50, word.rstrip(closes), ends_segment=word.endswith(closes))
        for at, word in enumerate(text.split())
    ]


def made(words: list[HeardWord], duration_ms: int = 600_000) -> Transcript:
    result = transcript_from_heard(words, duration_ms=duration_ms, model="test")
    assert transcript_problems(result, duration_ms) == []
    return result


def sentences(words: list[HeardWord]) -> list[str]:
    return [sentence.text for sentence in made(words).sentences]


def test_a_transcript_of_nothing_says_that_nobody_speaks() -> None:
    result = made([])
    assert (result.source, result.has_speech, result.word_timing, result.model) == (
        TranscriptSource.NONE,
        False,
        "none",
        "test",
    )


def test_words_are_measured_and_their_language_is_not_guessed() -> None:
    result = made(spoken("we dig"))
    assert (result.source, result.language, result.word_timing) == (TranscriptSource.SPEECH_MODEL, None, "measured")
    assert [(word.text, word.start_ms, word.end_ms, word.confidence) for word in result.words] == [
        ("we", 0, 250, None),
        ("dig", 300, 550, None),
    ]


def test_segments_tell_sentences_that_no_punctuation_tells() -> None:
    assert sentences(spoken("we dig deep/ then we water/ and rest")) == ["we dig deep", "then we water", "and rest"]


def test_a_segment_that_closes_after_an_abbreviation_ends_no_sentence() -> None:
    assert sentences(spoken("I met Mr./ Smith in the U.S./ Army yesterday.")) == [
        "I met Mr. Smith in the U.S. Army yesterday."
    ]


def test_a_segment_that_never_ends_is_cut_as_any_words_are() -> None:
    result = made(spoken(" ".join(["word"] * 100)))
    assert len(result.sentences) >= 4
    assert result.full_text == " ".join(["word"] * 100)


def test_a_sentence_that_a_cut_in_silence_divides_stays_one() -> None:
    first, second = spoken("we dig deep so/"), spoken("that water stays.")
    words = joined([HeardChunk(Span(0, 1_200), tuple(first)), HeardChunk(Span(1_200, 3_000), tuple(second))])
    assert sentences(words) == ["we dig deep so that water stays."]


def test_words_whose_times_run_back_a_little_keep_their_order() -> None:
    words = [HeardWord(100, 400, "one"), HeardWord(90, 200, "two"), HeardWord(80, 90, "three")]
    assert [word.text for word in made(words).words] == ["one", "two", "three"]


def test_words_behind_the_end_of_the_video_are_left_out_with_their_segments() -> None:
    result = made(spoken("we dig/ then rest/"), duration_ms=700)
    assert [sentence.text for sentence in result.sentences] == ["we dig", "then"]
