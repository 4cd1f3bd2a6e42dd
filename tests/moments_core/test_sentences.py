"""Sentences out of words, words put in order, and the rules that a transcript keeps."""

from __future__ import annotations

import random

import pytest

from moments_core.sentences import (
    MOST_PROBLEMS,
    SHORTEST_PAUSE_MS,
    ends_sentence,
    ordered_words,
    pacing_of,
    sentences_from_words,
    transcript_problems,
)
from moments_core.transcript import Sentence, Transcript, TranscriptSource, Word


def said(*texts: str, gap_ms: int = 20, length_ms: int = 300) -> list[Word]:
    """Words one after the other, `gap_ms` apart; a number is a pause of so many ms more."""
    words, at = [], 0
    for text in texts:
        if text.isdigit():
            at += int(text)
            continue
        words.append(Word(start_ms=at, end_ms=at + length_ms, text=text))
        at += length_ms + gap_ms
    return words


def texts_of(words: list[Word]) -> list[str]:
    return [sentence.text for sentence in sentences_from_words(words)]


def test_written_full_stops_end_sentences() -> None:
    assert texts_of(said("So", "it", "is.", "Is", "it?", "Yes!", "Good")) == ["So it is.", "Is it?", "Yes!", "Good"]


def test_a_pause_in_a_punctuated_sentence_does_not_end_it() -> None:
    assert texts_of(said("It", "is", "900", "late.", "Go.")) == ["It is late.", "Go."]


def test_a_very_long_pause_ends_even_a_punctuated_sentence() -> None:
    assert texts_of(said("It", "is", "5000", "late.", "Go.")) == ["It is", "late.", "Go."]


def test_without_full_stops_a_pause_ends_a_sentence() -> None:
    assert texts_of(said("hello", "there", "700", "how", "are", "you")) == ["hello there", "how are you"]


def test_a_breath_ends_no_sentence() -> None:
    assert texts_of(said("hello", "there", "400", "how", "are", "you")) == ["hello there how are you"]


def test_a_speaker_who_rests_after_every_phrase_still_speaks_in_sentences() -> None:
    phrases = [word for _ in range(40) for word in ("one", "two", "three", "700")]
    slow = said(
        *(word for index, word in enumerate(phrases) for word in ([word, "900"] if index % 32 == 31 else [word]))
    )
    assert pacing_of(slow).pause_ms > SHORTEST_PAUSE_MS
    lengths = [len(text.split()) for text in texts_of(slow)]
    assert sum(lengths) / len(lengths) > 6


def test_a_sentence_has_at_most_25_words_and_parts_at_its_longest_pause() -> None:
    words = said(*["word"] * 17, "150", *["word"] * 13)
    assert [len(text.split()) for text in texts_of(words)] == [17, 13]


def test_a_sentence_lasts_at_most_20_seconds() -> None:
    sentences = sentences_from_words(said(*["word"] * 24, gap_ms=400, length_ms=1_000))
    assert len(sentences) > 1
    assert all(sentence.span.length_ms <= 20_000 for sentence in sentences)


def test_words_without_any_pause_part_evenly() -> None:
    assert [len(text.split()) for text in texts_of(said(*["word"] * 30, gap_ms=0))] == [15, 15]


def test_a_word_longer_than_any_sentence_may_be_stands_alone() -> None:
    words = [Word(start_ms=0, end_ms=60_000, text="aaah"), Word(start_ms=60_000, end_ms=60_300, text="well")]
    assert texts_of(words) == ["aaah", "well"]


@pytest.mark.parametrize("word", ["Mr.", "Dr.", "e.g.", "U.S.", "J.", "“Mrs."])
def test_an_abbreviation_ends_no_sentence(word: str) -> None:
    assert not ends_sentence(word, "Smith")


@pytest.mark.parametrize("word", ["end.", "end.”", "end?)", "I.", "終わり。", "so…", "3.", "end..."])
def test_a_stop_ends_a_sentence_even_inside_quotes(word: str) -> None:
    assert ends_sentence(word, "Next")


def test_an_ellipsis_before_a_small_letter_goes_on() -> None:
    assert not ends_sentence("well...", "maybe")


def test_no_words_make_no_sentences() -> None:
    assert sentences_from_words([]) == ()


def test_the_speaker_is_of_every_sentence_and_the_turn_of_the_first() -> None:
    sentences = sentences_from_words(said("One.", "Two."), speaker="Ann", turn_start=True)
    assert [(sentence.speaker, sentence.turn_start) for sentence in sentences] == [("Ann", True), ("Ann", False)]


def test_every_word_is_in_exactly_one_sentence_in_order() -> None:
    rng = random.Random(5)
    for _ in range(200):
        pieces = [rng.choice(("a", "b.", "c,", "Mr.", "300", "800", "3000")) for _ in range(rng.randrange(120))]
        words = said(*pieces, gap_ms=rng.choice((0, 30, 500)), length_ms=rng.choice((1, 300, 7_000)))
        sentences = sentences_from_words(words)
        assert " ".join(sentence.text for sentence in sentences) == " ".join(word.text for word in words)
        assert {s.start_ms for s in sentences} <= {w.start_ms for w in words}
        assert transcript_problems(transcript(words, sentences), 10**9) == []


def transcript(words: list[Word], sentences: tuple[Sentence, ...] = ()) -> Transcript:
    return Transcript(source=TranscriptSource.SPEECH_MODEL, model="test", words=tuple(words), sentences=sentences)


def test_a_word_that_begins_inside_the_one_before_is_a_problem() -> None:
    words = [Word(start_ms=0, end_ms=500, text="one"), Word(start_ms=499, end_ms=900, text="two")]
    assert transcript_problems(transcript(words), 1_000) == [
        'word 1 "two" (0.499–0.900 s) begins before the one ahead of it ends, at 0.500 s'
    ]


def test_words_that_touch_are_no_problem() -> None:
    words = [Word(start_ms=0, end_ms=500, text="one"), Word(start_ms=500, end_ms=900, text="two")]
    assert transcript_problems(transcript(words), 900) == []


def test_a_word_past_the_end_of_the_video_is_a_problem() -> None:
    words = [Word(start_ms=0, end_ms=901, text="one")]
    assert transcript_problems(transcript(words), 900) == [
        'word 0 "one" (0.000–0.901 s) lies outside the video, which ends at 0.900 s'
    ]


def test_a_sentence_past_the_end_or_out_of_order_is_a_problem() -> None:
    sentences = (Sentence(start_ms=500, end_ms=901, text="one"), Sentence(start_ms=0, end_ms=9, text="two" * 30))
    problems = transcript_problems(transcript([], sentences), 900)
    assert [problem.split('"')[0] for problem in problems] == ["sentence 0 ", "sentence 1 "]
    assert all(len(problem) < 120 for problem in problems)


def test_problems_are_named_up_to_a_limit_and_then_counted() -> None:
    words = [Word(start_ms=100, end_ms=200, text="one")] * 5_000
    problems = transcript_problems(transcript(words), 900)
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[-1] == f"and {4_999 - MOST_PROBLEMS} more"


def test_words_are_put_in_order_without_overlap_and_inside_the_video() -> None:
    words = [
        Word(start_ms=300, end_ms=800, text="b"),
        Word(start_ms=0, end_ms=5_000, text="a"),
        Word(start_ms=800, end_ms=2_000, text="c"),
        Word(start_ms=1_000, end_ms=1_100, text="past"),
    ]
    ordered = ordered_words(words, duration_ms=1_000)
    assert [(w.text, w.start_ms, w.end_ms) for w in ordered] == [("a", 0, 300), ("b", 300, 800), ("c", 800, 1_000)]


def test_any_words_become_a_transcript_without_problems() -> None:
    rng = random.Random(11)
    for _ in range(300):
        starts = [rng.randrange(0, 300) for _ in range(rng.randrange(60))]
        words = [Word(start_ms=start, end_ms=start + rng.randrange(1, 90), text="w") for start in starts]
        ordered = ordered_words(words, duration_ms=250)
        assert transcript_problems(transcript(list(ordered)), 250) == []
        assert all(word.start_ms < word.end_ms for word in ordered)
