from __future__ import annotations

import pytest
from pydantic import ValidationError

from moments_core.moment import MAX_TITLE_LENGTH, Moment, moment_id, overlapping_pairs
from moments_core.time import Span
from moments_core.transcript import Sentence, Transcript, TranscriptSource, Word


@pytest.mark.parametrize("title", ["", "   ", "\n", "x" * (MAX_TITLE_LENGTH + 1)])
def test_a_moment_has_a_title_that_fits_a_line(title: str) -> None:
    with pytest.raises(ValueError, match="a title has"):
        Moment(Span(0, 1), title, 0.5)


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_outside_0_to_1_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="a score lies in"):
        Moment(Span(0, 1), "x", score)


def test_the_limits_themselves_are_allowed() -> None:
    assert [Moment(Span(0, 1), "x" * MAX_TITLE_LENGTH, score).score for score in (0.0, 1.0)] == [0.0, 1.0]


def test_a_moment_keeps_its_name_as_long_as_video_span_and_title_stay() -> None:
    names = {
        moment_id("v", Span(0, 10), "x"),
        moment_id("w", Span(0, 10), "x"),
        moment_id("v", Span(1, 10), "x"),
        moment_id("v", Span(0, 11), "x"),
        moment_id("v", Span(0, 10), "y"),
    }
    assert len(names) == 5


def test_the_name_of_a_moment_is_the_same_on_every_machine() -> None:
    assert moment_id("youtube-x", Span(0, 1000), "Über uns") == "m_0d01b17141a01449"


def test_a_moment_found_twice_is_a_pair() -> None:
    first, again = Moment(Span(0, 100), "a", 1.0), Moment(Span(10, 100), "b", 1.0)
    apart = Moment(Span(100, 200), "c", 1.0)
    assert overlapping_pairs([first, again, apart]) == [(first, again)]


def test_half_an_overlap_is_not_yet_the_same_moment() -> None:
    assert overlapping_pairs([Moment(Span(0, 100), "a", 1.0), Moment(Span(0, 50), "b", 1.0)]) == []


@pytest.mark.parametrize(("start", "end", "text"), [(-1, 5, "x"), (5, 5, "x"), (6, 5, "x"), (0, 1, "")])
def test_timed_text_runs_forward_and_says_something(start: int, end: int, text: str) -> None:
    with pytest.raises(ValidationError):
        Word(start_ms=start, end_ms=end, text=text)


def test_a_transcript_reads_as_its_sentences() -> None:
    sentences = tuple(Sentence(start_ms=n, end_ms=n + 1, text=f"Sentence {n}.") for n in range(2))
    transcript = Transcript(source=TranscriptSource.SPEECH_MODEL, model="m", sentences=sentences)
    assert transcript.full_text == "Sentence 0. Sentence 1."
    assert transcript.has_speech
    assert sentences[1].span == Span(1, 2)


def test_a_video_in_which_nobody_speaks_has_a_transcript_all_the_same() -> None:
    transcript = Transcript(source=TranscriptSource.NONE, model="none")
    assert (transcript.has_speech, transcript.full_text) == (False, "")


def test_a_transcript_can_not_be_changed() -> None:
    transcript = Transcript(source=TranscriptSource.NONE, model="none")
    with pytest.raises(ValidationError):
        transcript.model = "other"  # type: ignore[misc]
