"""What models say, read where it is safe and refused with the reply where it is not."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from moments_core.errors import ReplyError
from moments_core.json_in_text import KEPT_CHARACTERS, MAX_CHARACTERS, json_answers
from moments_core.moment import MAX_TITLE_LENGTH, Moment
from moments_core.numbered import Window
from moments_core.replies import NEUTRAL_SCORE, Boundaries, ReadMoments, read_boundaries, read_moments
from moments_core.time import Span
from moments_core.transcript import Sentence

TALK = [Sentence(start_ms=at * 10_000, end_ms=at * 10_000 + 9_000, text=f"Sentence {at + 1}.") for at in range(20)]
DURATION_MS = 200_500
WHOLE = Window(1, 20)
ONE = {"first_sentence": 2, "last_sentence": 4, "title": "A title", "score": 0.8}
MOMENT = Moment(Span(10_000, 39_000), "A title", 0.8)


def read(reply: str, window: Window = WHOLE) -> ReadMoments:
    return read_moments(reply, sentences=TALK, window=window, duration_ms=DURATION_MS)


def read_one(**fields: object) -> ReadMoments:
    """Beside a second moment that is sound, so that a refusal of the first is not one of the reply."""
    return read(json.dumps([fields, {**ONE, "first_sentence": 20, "last_sentence": 20}]))


def in_seconds(start: object, end: object, names: tuple[str, str] = ("start_time", "end_time")) -> dict[str, object]:
    return {names[0]: start, names[1]: end, "title": "A title", "score": 0.8}


PLAIN = json.dumps([ONE])
TWO = [ONE, {**ONE, "first_sentence": 7, "last_sentence": 9}]


@pytest.mark.parametrize(
    "reply",
    [
        PLAIN,
        json.dumps({"moments": [ONE]}),
        json.dumps({"highlights": [ONE]}),
        json.dumps({"moments": [ONE], "language": "en"}),
        json.dumps({"moments": ONE}),
        json.dumps(ONE),
        f"```json\n{PLAIN}\n```",
        f"```\n{PLAIN}\n```",
        f"```JSON\n{PLAIN}",
        f"Here are the moments [2-4], as asked {{so}}:\n\n{PLAIN}\n\nLet me know [if] you want more!",
        f'<think>Maybe [{{"first_sentence": 1}}]? No.</think>\n{PLAIN}',
        f"I look for highlights: {json.dumps([{**ONE, 'title': 'Draft'}])}\n</think>\n\n{PLAIN}",
        f"<think>one</think><think>two {{}}</think>{PLAIN}",
        f"<THINKING>one</THINKING>{PLAIN}",
        f"{PLAIN}\n<think>Was that right? [{{",
        f"<think>\n{PLAIN}",
        f"<think>\n```json\n{PLAIN}\n```",
        f"{PLAIN}\nAgain, in a fence:\n```json\n{json.dumps(ONE)}\n```",
        json.dumps([{**ONE, "why": {"because": ["it", {"is": "good"}]}}]),
        json.dumps([{**ONE, "first_sentence": "2", "last_sentence": " 4 ", "score": "0.8"}]),
        json.dumps([{**ONE, "first_sentence": 2.0}]),
        '[{"first_sentence": 2, "last_sentence": 4, "title": "A\n title\t", "score": 0.8},]',
        json.dumps([ONE, ONE]),
        json.dumps([{"start_sentence": 2, "end_sentence": 4, "title": "A title", "score": 0.8}]),
        json.dumps([{**ONE, "start_time": 999, "end_time": 1}]),  # sentences are what was asked for
        json.dumps([in_seconds(10, 39)]),
        json.dumps([in_seconds(10.0, "39")]),
        json.dumps([in_seconds("10.0s", "39 sec")]),
        json.dumps([in_seconds("0:10", "00:39")]),
        json.dumps([in_seconds("0:00:10", "00:00:39,000")]),
        json.dumps([in_seconds("10 seconds", "0:39.0")]),
        json.dumps([in_seconds(10, 39, ("start_seconds", "end_seconds"))]),
        json.dumps([in_seconds(10, 39, ("startTime", "endTime"))]),
        json.dumps([in_seconds("0:10", 39, ("start", "end"))]),
    ],
)
def test_an_answer_is_read_in_whatever_it_is_wrapped(reply: str) -> None:
    assert read(reply) == ReadMoments((MOMENT,))


@pytest.mark.parametrize(
    "reply", ["[]", '{"moments": []}', "```json\n[ ]\n```", "<think>Nothing.</think>[]", "Sorry: []", '"[]"']
)
def test_an_empty_array_is_an_answer(reply: str) -> None:
    assert read(reply) == ReadMoments(())


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("I found three moments: 2-4, 7-9 and 12.", "holds no answer in JSON"),
        ("null", "holds no answer in JSON"),
        ("{}", "holds no moments"),
        ('{"error": "out of memory"}', "holds no moments"),
        ('{"moments": null}', "holds no moments"),
        ("[1, 2, 3]", "holds no answer in JSON"),
        ("[{'first_sentence': 2}]", "holds broken JSON"),
        ('[{"first_sentence": 2 "last_sentence": 4}]', "holds broken JSON"),
        ('[{"first_sentence": 2}, oops, {"first_sentence": 3}]', "holds broken JSON"),
        (f"{PLAIN[:-1]} oops", "holds broken JSON"),
        (f"{PLAIN[:-1]} {PLAIN[1:]}", "holds broken JSON"),
        (PLAIN[:40], "breaks off before its first object ends"),
        ('{"moments": [' + PLAIN[1:40], "breaks off before its first object ends"),
        (f"<think>Perhaps {PLAIN}", "holds no answer in JSON"),
        (f"<think>{PLAIN} or rather", "holds no answer in JSON"),
        (f"{PLAIN}\n{json.dumps(TWO)}", "holds 2 different answers"),
        (f"{PLAIN} or nothing: []", "holds 2 different answers"),
        (json.dumps([{**ONE, "title": ""}]), r"has no usable moment \(1 without a title\)"),
        (json.dumps([ONE] * 1_001), "holds more than 1,000 moments"),
        ("[{" * 300_000, "breaks off|holds broken JSON"),
        ("[]" * 300_000, "holds more than 1,000 answers"),
        ("x" * (MAX_CHARACTERS + 1), "is 1,000,001 characters long"),
    ],
)
def test_what_cannot_be_read_is_refused_and_kept(reply: str, says: str) -> None:
    with pytest.raises(ReplyError, match=f"The reply ({says})") as refused:
        read(reply)
    assert refused.value.evidence["reply"] == reply[:KEPT_CHARACTERS]
    assert refused.value.evidence["reply_characters"] == len(reply)
    assert "run this again, or choose another model" in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"first_sentence": 5, "last_sentence": 4}, "with an end before its start"),
        ({"first_sentence": 0, "last_sentence": 4}, "with sentences that were not shown"),
        ({"first_sentence": 2, "last_sentence": 21}, "with sentences that were not shown"),
        ({"first_sentence": -2, "last_sentence": 4}, "with sentences that were not shown"),
        ({"first_sentence": 2.5, "last_sentence": 4}, "without readable sentence numbers or times"),
        ({"first_sentence": True, "last_sentence": 4}, "without readable sentence numbers or times"),
        ({"first_sentence": None, "last_sentence": 4}, "without readable sentence numbers or times"),
        ({"first_sentence": "two", "last_sentence": 4}, "without readable sentence numbers or times"),
        ({"first_sentence": "٢", "last_sentence": 4}, "without readable sentence numbers or times"),
        ({"first_sentence": [2], "last_sentence": {"n": 4}}, "without readable sentence numbers or times"),
        ({"first_sentence": 2}, "without readable sentence numbers or times"),
        ({"first_sentence": 1e300, "last_sentence": 1e300}, "without readable sentence numbers or times"),
        ({"first_sentence": 10**300, "last_sentence": 10**300}, "without readable sentence numbers or times"),
        (in_seconds(39, 10), "with an end before its start"),
        (in_seconds(10, 10), "with an end before its start"),
        (in_seconds(10, 200.501), "outside of the video"),
        (in_seconds(-1, 10), "outside of the video"),
        (in_seconds(float("nan"), 10), "without readable sentence numbers or times"),
        (in_seconds(0, float("inf")), "without readable sentence numbers or times"),
        (in_seconds(False, True), "without readable sentence numbers or times"),
        (in_seconds("1:75", "2:00"), "without readable sentence numbers or times"),
        (in_seconds("soon", "later"), "without readable sentence numbers or times"),
        (in_seconds(3, 12, ("start", "end")), "without readable sentence numbers or times"),
        (in_seconds("3", "12", ("start", "end")), "without readable sentence numbers or times"),
        (in_seconds(3.0, 12.0, ("start", "end")), "without readable sentence numbers or times"),
        ({**ONE, "title": "\u202e\u200b \x07"}, "without a title"),
        ({**ONE, "title": "\u200d"}, "without a title"),
        ({**ONE, "title": None}, "without a title"),
        ({**ONE, "title": 2024}, "without a title"),
    ],
)
def test_a_moment_with_a_wrong_time_or_no_title_is_refused_and_counted_and_never_repaired(
    fields: dict[str, object], why: str
) -> None:
    given = {"title": "A title", "score": 0.8, **fields}
    assert read_one(**given) == ReadMoments((Moment(Span(190_000, 199_000), "A title", 0.8),), (why,))


def test_what_is_no_object_is_refused_and_counted() -> None:
    assert read(json.dumps([ONE, "two", None, 3, [ONE]])).refused == ("that are no objects",) * 4


def test_a_key_that_stands_twice_with_two_values_is_no_time() -> None:
    doubtful = '{"first_sentence": 1, "first_sentence": 3, "last_sentence": 4, "title": "A title"}'
    assert read(f"[{json.dumps(ONE)}, {doubtful}]").refused == ("without readable sentence numbers or times",)
    assert read(PLAIN.replace('"score"', '"title": "A title", "score"')) == ReadMoments((MOMENT,))


def test_a_model_may_only_speak_of_what_it_was_shown() -> None:
    window = Window(5, 8)
    inside, before = {**ONE, "first_sentence": 5, "last_sentence": 6}, ONE
    assert read(json.dumps([inside, before]), window).refused == ("with sentences that were not shown",)
    assert read(json.dumps([inside, in_seconds(10, 39)]), window).refused == ("at times that were not shown",)
    assert read(json.dumps([in_seconds(40.0, 79.0)]), window).moments[0].span == Span(40_000, 79_000)


def test_a_moment_ends_with_the_last_of_its_sentences_to_end() -> None:
    crossing = [*TALK[:2], Sentence(start_ms=20_000, end_ms=45_000, text="Long."), *TALK[3:]]
    reply = json.dumps([{**ONE, "first_sentence": 3, "last_sentence": 4}])
    found = read_moments(reply, sentences=crossing, window=WHOLE, duration_ms=DURATION_MS)
    assert found.moments[0].span == Span(20_000, 45_000)


def test_a_transcript_that_is_longer_than_its_video_gives_no_moment_behind_its_end() -> None:
    reply = json.dumps(
        [{**ONE, "first_sentence": 1, "last_sentence": 20}, {**ONE, "first_sentence": 20, "last_sentence": 20}]
    )
    found = read_moments(reply, sentences=TALK, window=WHOLE, duration_ms=100_000)
    assert (found.moments[0].span, found.refused) == (Span(0, 100_000), ("outside of the video",))


@pytest.mark.parametrize("score", [None, "high", 8, -0.1, float("nan"), True, "0.8 s", [0.8]])
def test_a_moment_without_a_readable_score_ranks_in_the_middle(score: object) -> None:
    result = read(json.dumps([{**ONE, "score": score}]))
    assert (result.moments[0].score, result.unscored) == (NEUTRAL_SCORE, 1)


def test_a_reply_that_breaks_off_keeps_what_came_whole() -> None:
    text = json.dumps([*TWO, {**ONE, "first_sentence": 11, "last_sentence": 12, "title": "Cut"}])
    second_ends = text.index("}", text.index("}") + 1) + 1
    for cut in range(second_ends, len(text) - 2):
        for broken in (text[:cut], f"```json\n{text[:cut]}\n```", '{"moments": ' + text[:cut]):
            result = read(broken)
            assert len(result.moments) == 2
            assert result.cut_off
    assert len(read(text[:-1]).moments) == 3


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("  Why\r\n the\t\u2028launch   failed ", "Why the launch failed"),
        ("\u202eevil\u202c \u200bzero\ufeff\x1b[31m\x00", "evil zero[31m"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("half \ud83d pair", "half pair"),
        ("火箭为什么失败", "火箭为什么失败"),
        ("word " * 40, ("word " * 24).strip() + "…"),
        ("x" * 500, "x" * (MAX_TITLE_LENGTH - 1) + "…"),
    ],
)
def test_a_title_is_one_line_that_shows_all_it_holds(given: str, shown: str) -> None:
    (found,) = read(json.dumps([{**ONE, "title": given}])).moments
    assert found.title == shown
    assert len(found.title) <= MAX_TITLE_LENGTH


@pytest.mark.parametrize("seed", range(200))
def test_a_reply_that_was_damaged_anywhere_gives_sound_moments_or_a_reply_error(seed: int) -> None:
    rng = random.Random(seed)
    text = list(rng.choice((json.dumps({"moments": TWO}), f"<think>x</think>```json\n{json.dumps(TWO)}```")))
    for _ in range(rng.choice((1, 2, 5, 20))):
        at = rng.randrange(len(text))
        text[at : at + rng.choice((0, 1, 3, 30))] = rng.choice(
            ("", "[", "]", "{", "}", '"', "\\", ",", "1e999", "NaN", "<think>", "</think>", "\x00", "-", "9" * 5_000)
        )
        text = text or ["x"]
    try:
        result = read("".join(text))
    except ReplyError:
        return
    for moment in result.moments:
        assert 0 <= moment.span.start_ms < moment.span.end_ms <= DURATION_MS


HOSTILE = {
    "50 MB of brackets": "[" * 50_000_000,
    "brackets": "[" * MAX_CHARACTERS,
    "braces": '{"a":' * (MAX_CHARACTERS // 5),
    "nested arrays of objects": '[{"a":' * (MAX_CHARACTERS // 6),
    "nested and closed": '[{"a":' + "[" * 400_000 + "]" * 400_000 + "}]",
    "deep but legal": '[{"a":' + "[" * 900 + "]" * 900 + "}]" + '[{"a":' + "[" * 900 + "]" * 900 + "}]",
    "an open string": '[{"title": "' + "\\" * (MAX_CHARACTERS - 100),
    "quotes": '[{"' * (MAX_CHARACTERS // 3),
    "spaces": "[" + " " * (MAX_CHARACTERS - 2) + "x",
    "spaces in front of brackets": "[  " * (MAX_CHARACTERS // 3),
    "thoughts": "<think>" * (MAX_CHARACTERS // 7),
    "ends of thoughts": "</think>" * (MAX_CHARACTERS // 8),
    "fences": "```" * (MAX_CHARACTERS // 3),
    "white space behind a fence": "```json" + "\n" * (MAX_CHARACTERS - 7),
    "a number without an end": '[{"first_sentence": ' + "9" * (MAX_CHARACTERS - 100) + "}]",
    "many keys": "[{" + ",".join(f'"k{at}":{at}' for at in range(50_000)) + "}]",
    "many small objects": '[{"a":1},' * (MAX_CHARACTERS // 9),
    "a million zeros": '[{"first_sentence": 0.' + "0" * 900_000 + "}]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_reply_hangs_or_exhausts_the_reader(name: str) -> None:
    started = time.monotonic()
    for reading in (read, read_boundaries):
        with pytest.raises(ReplyError):
            reading(HOSTILE[name])
    assert time.monotonic() - started < 20  # a bound against hangs: quadratic work takes minutes


@pytest.mark.parametrize(
    ("reply", "given"),
    [
        ('{"start_time": 1.84, "end_time": 30.2}', Boundaries(1_840, 30_200)),
        ('[{"start_time": 1.84, "end_time": "0:30.2"}]', Boundaries(1_840, 30_200)),
        (
            '<think>hm {"start_time": 0}</think>```json\n{"start_time": "1.84 s", "end_time": 30.2}\n```',
            Boundaries(1_840, 30_200),
        ),
        ('{"boundaries": {"start_time": 1.84, "end_time": 30.2}}', Boundaries(1_840, 30_200)),
        ('{"start_time": 1.84, "end_time": 30.2, "reason": "It [ends] {there}."}', Boundaries(1_840, 30_200)),
        ('{"start": 1.84, "end": 30}', Boundaries(1_840, 30_000)),
        ('{"start_time": -3, "end_time": 900}', Boundaries(-3_000, 900_000)),
        ('{"start_time": 9, "end_time": 3}', Boundaries(9_000, 3_000)),
    ],
)
def test_boundaries_are_read_as_given_and_judged_elsewhere(reply: str, given: Boundaries) -> None:
    assert read_boundaries(reply) == given


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("Start at 1.84, end at 30.2.", "holds no answer in JSON"),
        ('{"start_time": 1.84}', "holds no times"),
        ('{"start_time": null, "end_time": 3}', "holds no times"),
        ('{"start_time": NaN, "end_time": Infinity}', "holds no times"),
        ('{"start_time": 1e300, "end_time": 1e301}', "holds no times"),
        ('{"start_time": true, "end_time": 3}', "holds no times"),
        ('{"start": 1, "end": 3}', "holds no times"),
        ('{"start_time": 1, "start_time": 2, "end_time": 3}', "holds no times"),
        ("[]", "holds no times"),
        ('{"start_time": 1.84, "end_', "breaks off"),
        ('{"start_time": 1, "end_time": 3} or {"start_time": 2, "end_time": 3}', "holds 2 pairs of times"),
    ],
)
def test_a_reply_without_boundaries_is_refused_and_kept(reply: str, says: str) -> None:
    with pytest.raises(ReplyError, match=f"The reply {says}") as refused:
        read_boundaries(reply)
    assert refused.value.evidence["reply"] == reply


def test_answers_inside_of_one_another_are_one() -> None:
    (answer,) = json_answers('{"moments": [{"a": [{}]}]}')
    inner: Any = answer.value
    assert inner == {"moments": [{"a": [{}]}]}
