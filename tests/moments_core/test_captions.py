"""WebVTT and SubRip as they are found in the wild."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from moments_core.captions import parse_captions, transcript_from_captions
from moments_core.cues import MOST_CHARS, MOST_CUES
from moments_core.errors import MediaError
from moments_core.sentences import transcript_problems
from moments_core.transcript import Transcript, TranscriptSource

# As YouTube writes automatic captions: each line shown twice or three times, words stamped, a blank line of one space.
ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.389 align:start position:0%
 
hello<00:00:00.320><c> dear</c><00:00:01.640><c> world</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello dear world
 

00:00:02.399 --> 00:00:05.030 align:start position:0%
hello dear world
this<00:00:02.879><c> is</c><00:00:03.100><c> me</c>

00:00:05.030 --> 00:00:05.040 align:start position:0%
this is me
 

00:00:05.040 --> 00:00:08.030 align:start position:0%
this is me
[Music]

00:00:09.040 --> 00:00:11.030 align:start position:0%
 
&gt;&gt; and<00:00:10.000><c> me</c>
"""  # noqa: W293


def vtt(*cues: str) -> str:
    """Cues of "start end text", one second a unit."""
    blocks = []
    for cue in cues:
        start, end, text = cue.split(" ", 2)
        blocks.append(f"00:{int(start):02}.000 --> 00:{int(end):02}.000\n{text}\n")
    return "\n".join(["WEBVTT\n", *blocks])


def transcript(text: str, *, duration_ms: int = 100_000) -> Transcript:
    source = TranscriptSource.HUMAN_CAPTIONS
    return transcript_from_captions(text, language=None, source=source, model="captions", duration_ms=duration_ms)


def texts(text: str) -> list[str]:
    return [sentence.text for sentence in transcript(text).sentences]


def cues(text: str) -> list[tuple[int, int, str]]:
    return [(cue.start_ms, cue.end_ms, cue.text) for cue in parse_captions(text)]


# --- the file


def test_subrip_with_a_byte_order_mark_and_windows_line_ends_is_read() -> None:
    text = (
        "\ufeff1\r\n00:00:01,500 --> 00:00:02,000\r\nOne\r\nline.\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\nTwo.\r\n"
    )
    assert cues(text) == [(1_500, 2_000, "One line."), (3_000, 4_000, "Two.")]


def test_webvtt_with_names_settings_and_blocks_is_read() -> None:
    text = """WEBVTT - a title

STYLE
::cue { color: red }

REGION
id:fred

NOTE 00:09.000 --> 00:10.000
this was left out
00:11.000 --> 00:12.000
and this

intro
00:01.000 --> 01:00:02.5 line:0 position:20%
Spoken.

NOTE a remark

00:02.000-->00:03
Also spoken.
"""
    assert cues(text) == [(1_000, 2_000, "Spoken."), (2_000, 3_000, "Also spoken.")]


@pytest.mark.parametrize(
    ("written", "start_ms"),
    [
        ("00:01.5", 1_500),
        ("0:0:1,050", 1_050),
        ("100:00:01.000", 360_001_000),
        ("00:01", 1_000),
        ("75:00.1234", 4_500_123),
    ],
)
def test_times_are_read_however_they_are_written(written: str, start_ms: int) -> None:
    assert cues(f"WEBVTT\n\n{written} --> 999:00:00.000\nHi\n")[0][0] == start_ms


def test_junk_between_cues_is_left_out() -> None:
    first, second = "1\n00:00:01,000 --> 00:00:02,000\nOne.\n", "2\n00:00:03,000 --> 00:00:04,000\nTwo.\n"
    text = f"advert!\n\n{first}\nwww.example.org\n\n{second}"
    assert texts(text) == ["One.", "Two."]


def test_a_number_that_is_said_is_kept_and_one_that_counts_cues_is_not() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n1984\n2\n00:00:03,000 --> 00:00:04,000\n42\n"
    assert [cue[2] for cue in cues(text)] == ["1984", "42"]


def test_cues_without_a_blank_line_between_them_are_told_apart() -> None:
    assert cues("00:01 --> 00:02\nOne\nline.\n00:03 --> 00:04\nTwo.") == [
        (1_000, 2_000, "One line."),
        (3_000, 4_000, "Two."),
    ]


def test_an_empty_cue_says_nothing() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n\n2\n00:00:03,000 --> 00:00:04,000\n\nNOTE not this\n"
    assert cues(text) == []


def test_cues_out_of_order_are_sorted() -> None:
    assert texts(vtt("5 6 Later.", "1 2 Sooner.")) == ["Sooner.", "Later."]


def test_a_cue_ends_where_the_next_one_begins() -> None:
    assert cues(vtt("1 9 One.", "3 4 Two.")) == [(1_000, 3_000, "One."), (3_000, 4_000, "Two.")]


def test_cues_that_begin_together_are_one_and_say_each_thing_once() -> None:
    assert cues(vtt("1 2 One.", "1 3 Two.", "1 2 One.")) == [(1_000, 3_000, "One. Two.")]


@pytest.mark.parametrize("end", ["1", "0"])
def test_a_cue_that_does_not_last_gets_the_time_to_say_it(end: str) -> None:
    ((start_ms, end_ms, _),) = cues(vtt(f"1 {end} Hello there."))
    assert start_ms == 1_000
    assert 2_000 < end_ms < 3_000


def test_a_webvtt_file_without_cues_is_a_transcript_without_speech() -> None:
    result = transcript("WEBVTT\n")
    assert (result.has_speech, result.source, result.word_timing) == (False, TranscriptSource.NONE, "none")


@pytest.mark.parametrize(
    "text", ["", "<!DOCTYPE html><html>", "a --> b", "PK\x03\x04", '{"events": []}', "1\n00:00:01\nHi"]
)
def test_what_is_not_captions_is_refused(text: str) -> None:
    with pytest.raises(MediaError, match="isn't captions"):
        parse_captions(text)


def test_more_cues_than_a_day_of_speech_has_are_refused() -> None:
    with pytest.raises(MediaError, match="200,000"):
        parse_captions("00:00 --> 00:01\n" * (MOST_CUES + 1))


def test_more_text_than_a_day_of_speech_has_is_refused() -> None:
    with pytest.raises(MediaError, match="characters"):
        parse_captions("WEBVTT\n" + " " * MOST_CHARS)


# --- markup


def test_tags_entities_and_positions_are_no_text() -> None:
    text = vtt(r"1 2 {\an8}<i>Tom</i> <font color='#fff'>&amp;</font> Jerry <c.loud.red>R&amp;B</c> wo<b>r</b>d")
    assert [cue[2] for cue in cues(text)] == ["Tom & Jerry R&B word"]


def test_what_only_looks_like_a_tag_is_text() -> None:
    assert [cue[2] for cue in cues(vtt("1 2 1 < 2 > 0 and <3"))] == ["1 < 2 > 0 and <3"]


def test_characters_that_nobody_sees_are_left_out() -> None:
    (word,) = transcript(vtt("1 2 a\u200bb\x00c&#8203;d\ud800\u202ee&#0;")).words
    assert word.text.encode() == "abcde\ufffd".encode()


def test_a_line_separator_that_is_no_line_break_does_not_break_a_cue() -> None:
    assert [cue[2] for cue in cues(vtt("1 2 a\u2028b\x85c"))] == ["a b c"]


def test_voice_tags_name_the_speaker_until_the_next() -> None:
    text = vtt("1 2 <v Ann>Hi.</v>", "2 3 <v Ann>Hello.", "3 4 Yes.", "4 5 <v.loud Bob  Ray>Hi, Ann.")
    said = [(s.text, s.speaker, s.turn_start) for s in transcript(text).sentences]
    assert said == [
        ("Hi.", "Ann", True),
        ("Hello.", "Ann", False),
        ("Yes.", "Ann", False),
        ("Hi, Ann.", "Bob Ray", True),
    ]


@pytest.mark.parametrize("mark", [">> ", "&gt;&gt; ", "- ", "-", "– ", ">>> [laughs] ", "- <i>"])
def test_a_mark_begins_a_turn(mark: str) -> None:
    sentences = transcript(vtt("1 2 Well.", f"2 3 {mark}Yes.")).sentences
    assert [(s.text, s.turn_start) for s in sentences] == [("Well.", False), ("Yes.", True)]


def test_a_turn_begins_in_the_middle_of_a_cue() -> None:
    sentences = transcript(vtt("1 2 and so >> NEWS ANCHOR: thank you\n- bye")).sentences
    assert [(s.text, s.speaker) for s in sentences] == [("and so", None), ("thank you", "NEWS ANCHOR"), ("bye", None)]


def test_a_minus_is_no_turn() -> None:
    assert transcript(vtt("1 2 -5 degrees")).words[0].text == "-5"


# --- sounds


@pytest.mark.parametrize(
    "text", ["[Music]", "(applause)", "♪", "♪ ♪", "[dramatic\nnoise]", "- [Ann laughs]", "[ __ ]", "(I forgot)"]
)
def test_a_cue_that_only_describes_a_sound_says_nothing(text: str) -> None:
    assert not transcript(vtt(f"1 2 {text}")).has_speech


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Music] hello", "hello"),
        ("Thanks (soft laughter) a lot", "Thanks a lot"),
        ("♪ We will rock you ♪", "We will rock you"),
        ("♪We will♪", "We will"),
        ("call f(x) (or g)", "call f(x) (or g)"),
        ("this (despite all the noise) works", "this (despite all the noise) works"),
        ("an open (bracket", "an open (bracket"),
        ("well – yes ...", "well yes ..."),
        ("Quoi ?", "Quoi ?"),
    ],
)
def test_only_sounds_and_signs_are_left_out_of_what_is_said(text: str, said: str) -> None:
    assert transcript(vtt(f"1 2 {text}")).full_text == said


# --- automatic captions


def test_lines_that_roll_up_are_said_once() -> None:
    assert texts(ROLLING) == ["hello dear world this is me", "and me"]


def test_lines_that_roll_up_are_said_once_when_an_editor_removed_the_spaces() -> None:
    assert texts(ROLLING.replace("\n \n", "\n\n")) == ["hello dear world this is me", "and me"]


def test_lines_that_roll_up_without_stamps_are_said_once() -> None:
    text = vtt("1 2 one two", "2 3 one two\nthree four", "3 4 three four\nfive", "4 5 five\nsix", "5 6 six\nseven")
    assert texts(text) == ["one two three four five six seven"]


def test_a_line_that_grows_word_by_word_is_said_once() -> None:
    assert texts(vtt("1 2 one", "2 3 one two", "3 4 one two three", "4 5 one two three\nfour")) == [
        "one two three four"
    ]


def test_people_may_say_the_same_twice() -> None:
    assert texts(vtt("1 2 No.", "2 3 No.", "3 4 Why?", "4 5 Because.", "5 6 I say so.")) == [
        "No.", "No.", "Why?", "Because.", "I say so.",
    ]  # fmt: skip


def test_a_line_that_returns_after_a_while_is_said_again() -> None:
    again = ROLLING + "\n00:20.000 --> 00:21.000\nand me\n"
    assert texts(again)[-1] == "and me"
    assert len(texts(again)) == len(texts(ROLLING)) + 1


def test_stamped_words_have_measured_times() -> None:
    result = transcript(ROLLING)
    assert result.word_timing == "measured"
    assert [(w.text, w.start_ms) for w in result.words][:6] == [
        ("hello", 0), ("dear", 320), ("world", 1_640), ("this", 2_399), ("is", 2_879), ("me", 3_100),
    ]  # fmt: skip


def test_a_stamped_word_ends_before_the_silence_after_it() -> None:
    me = transcript(ROLLING).words[5]
    assert (me.text, me.start_ms) == ("me", 3_100)
    assert me.end_ms < 3_700  # its cue is shown until 5.03 s


def test_a_stamp_outside_its_cue_is_not_believed() -> None:
    text = vtt("1 3 aa<00:00:09.000> bb<00:00:02.000> cc<00:00:01.500> dd")
    assert [word.start_ms for word in transcript(text).words] == [1_000, 1_500, 2_000, 2_500]


# --- words and sentences


def test_words_without_stamps_share_their_cue_by_letters() -> None:
    result = transcript(vtt("1 3 I am here"))
    assert result.word_timing == "interpolated"
    assert [(w.start_ms, w.end_ms) for w in result.words] == [(1_000, 1_285), (1_285, 1_857), (1_857, 3_000)]


def test_a_sentence_runs_over_several_cues() -> None:
    assert texts(vtt("1 2 This goes", "2 3 on. And", "3 4 ends.")) == ["This goes on.", "And ends."]


def test_captions_of_a_longer_video_end_with_this_one() -> None:
    result = transcript(vtt("1 3 one two", "5 6 three"), duration_ms=2_500)
    assert [(w.text, w.end_ms) for w in result.words] == [("one", 2_000), ("two", 2_500)]
    assert result.sentences[-1].end_ms == 2_500


def test_the_language_is_the_one_asked_for_or_the_one_that_the_file_names() -> None:
    assert transcript(ROLLING).language == "en"
    named = transcript_from_captions(
        ROLLING, language="de", source=TranscriptSource.AUTOMATIC_CAPTIONS, model="x", duration_ms=9_000
    )
    assert (named.language, named.source, named.model) == ("de", TranscriptSource.AUTOMATIC_CAPTIONS, "x")


def test_a_script_without_spaces_is_cut_at_its_full_stops() -> None:
    assert texts(vtt("1 5 猫です。犬です。")) == ["猫です。", "犬です。"]


def test_whatever_the_captions_the_transcript_keeps_the_rules() -> None:
    rng = random.Random(2)
    parts = [
        "hello",
        "world.",
        "<v Ann>",
        ">> ",
        "[Music]",
        "(so",
        "♪",
        "<00:00:03.000>",
        "\n",
        "- ",
        "&amp;",
        "<",
        "\n\n",
    ]
    for _ in range(400):
        count = rng.randrange(1, 12)
        lines = [f"{rng.randrange(30)} {rng.randrange(30)} {' '.join(rng.choices(parts, k=9))}" for _ in range(count)]
        result = transcript(vtt(*lines), duration_ms=20_000)
        assert transcript_problems(result, 20_000) == []
        assert Transcript.model_validate(result.model_dump()) == result
        assert result.full_text == " ".join(word.text for word in result.words)


# --- bounds


def calls_during(work: Callable[[], object]) -> int:
    count = 0

    def on_event(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "cue",
    [
        "00:01.000 --> 00:02.000\nhello there\n\n",
        "00:{0:02}.000 --> 00:59.000\nword{0}\n\n",
        "{0:02}:01.000 --> {0:02}:01.500\n>> [a\nb c]\n\n",
    ],
)
def test_ten_times_the_cues_cost_ten_times_the_work(cue: str) -> None:
    def work(count: int) -> int:
        text = "WEBVTT\n\n" + "".join(cue.format(index % 60) for index in range(count))
        return calls_during(lambda: transcript(text))

    assert work(2_000) < 12 * work(200)


@pytest.mark.parametrize(
    "text", ["<", "<a ", "[a ", ">>", " >> A", "{\\", "&gt;", " " * 9 + "x", "1:", "<v.", "<00:", "-", "♪", "。"]
)
def test_hostile_text_does_not_run_away(text: str) -> None:
    """A pattern that backtracks would take minutes here, and the timeout of the suite would end it."""
    transcript("WEBVTT\n\n00:00.000 --> 00:01.000\n" + text * 15_000)
    with pytest.raises(MediaError):
        parse_captions(text * 15_000 + "->")
