"""Previews are short, and safe to render whatever the text says."""

from __future__ import annotations

from moments_assets.previews import moments_preview, picture, refined_preview, transcript_preview
from moments_core.moment import Moment, Refined
from moments_core.time import Span
from moments_core.transcript import Sentence, Transcript, TranscriptSource

HOSTILE = "![x](https://evil.example/p.png) | <script>alert(1)</script> [a](b) `c`\nnext"


def moment(title: str = "Bees", start_ms: int = 0) -> Moment:
    return Moment(Span(start_ms, start_ms + 60_000), title, 0.5)


def spoken(*texts: str) -> Transcript:
    sentences = [Sentence(start_ms=1000 * n, end_ms=1000 * n + 900, text=text) for n, text in enumerate(texts)]
    return Transcript(source=TranscriptSource.SPEECH_MODEL, model="test", sentences=tuple(sentences))


def test_a_transcript_shows_its_sentences_with_their_times() -> None:
    assert transcript_preview(spoken("Hello.", "World.")) == "**0:00** Hello.\n\n**0:01** World."


def test_a_video_without_speech_says_so() -> None:
    assert "No speech" in transcript_preview(Transcript(source=TranscriptSource.NONE, model="none"))


def test_a_long_transcript_is_cut_and_says_how_much_is_missing() -> None:
    preview = transcript_preview(spoken(*["Again."] * 100))
    assert preview.count("Again") == 30
    assert "70 more sentences" in preview


def test_moments_are_a_table() -> None:
    assert moments_preview([moment(start_ms=61_000)]).splitlines()[2] == "| 1:01 | 2:01 | Bees | 0.50 |"


def test_many_moments_are_cut_and_say_how_many_are_missing() -> None:
    preview = moments_preview([moment(start_ms=n * 60_000) for n in range(100)])
    assert "60 more rows" in preview
    assert len(preview) < 4000


def test_hostile_text_becomes_no_picture_no_link_no_html_no_column() -> None:
    for preview in (transcript_preview(spoken(HOSTILE)), moments_preview([moment(HOSTILE[:100])])):
        assert "![" not in preview
        assert "](" not in preview
        assert "<script" not in preview.replace("\\<", "")
    row = moments_preview([moment(HOSTILE[:100])]).splitlines()[2]
    assert row.replace("\\|", "").count("|") == 5


def test_refinement_shows_what_moved() -> None:
    preview = refined_preview([(moment(start_ms=1000), Refined(Span(400, 61_000), "start to a sentence"))])
    assert preview.splitlines()[2] == "| Bees | -0.60 s | – | start to a sentence |"


def test_nothing_found_is_said_in_words() -> None:
    assert moments_preview([]) == refined_preview([]) == "_No moments._"


def test_a_picture_travels_inside_the_text() -> None:
    assert picture(b"\xff\xd8", "filmstrip") == "![filmstrip](data:image/jpeg;base64,/9g=)"
    assert picture(b"", "filmstrip") == "_No picture._"
