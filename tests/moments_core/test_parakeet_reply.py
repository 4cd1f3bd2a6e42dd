"""A Parakeet server's reply: read where it can be right, refused where it can't, and never with a guessed time."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from moments_core.errors import MomentsError, ReplyError, ServiceError
from moments_core.parakeet_reply import FRAME_MS, MOST_CHARS, HeardSpeech, parse_parakeet
from moments_core.scrubbing import scrubbed

LENGTH_MS = 10_000


def words(*items: tuple[str, Any, Any]) -> list[dict[str, Any]]:
    return [{"word": text, "start": start, "end": end} for text, start, end in items]


def segments(*items: tuple[str, Any, Any]) -> list[dict[str, Any]]:
    return [{"text": text, "start": start, "end": end} for text, start, end in items]


def reply(**fields: Any) -> str:
    return json.dumps(fields)


def of_words(*items: tuple[str, Any, Any]) -> str:
    said = " ".join(text for text, _, _ in items)
    return reply(transcription=said, word_timestamps=words(*items), segment_timestamps=[], processing_time=0.1)


def times(speech: HeardSpeech) -> list[tuple[str, int, int]]:
    return [(word.text, word.start_ms, word.end_ms) for word in speech.words]


def read(body: str, length_ms: int = LENGTH_MS) -> list[tuple[str, int, int]]:
    return times(parse_parakeet(body, length_ms=length_ms))


GOOD = {
    "transcription": "We dig. Then rest.",
    "word_timestamps": words(("We", 0.08, 0.24), ("dig.", 0.32, 0.8), ("Then", 1.2, 1.36), ("rest.", 1.44, 2.0)),
    "segment_timestamps": segments(("We dig.", 0.08, 0.8), ("Then rest.", 1.2, 2.0)),
    "processing_time": 0.31,
}


def test_words_have_their_times_and_segments_tell_where_sentences_end() -> None:
    speech = parse_parakeet(json.dumps(GOOD), length_ms=LENGTH_MS)
    assert times(speech) == [("We", 80, 240), ("dig.", 320, 800), ("Then", 1_200, 1_360), ("rest.", 1_440, 2_000)]
    assert [word.ends_segment for word in speech.words] == [False, True, False, True]
    assert speech.timing == "measured"


def test_a_servers_own_fields_beside_the_known_ones_do_no_harm() -> None:
    nemo = [{"segment": item["text"], **item, "start_offset": 1} for item in GOOD["segment_timestamps"]]  # type: ignore[index]
    for item in nemo:
        del item["text"]
    speech = parse_parakeet(
        json.dumps({**GOOD, "segment_timestamps": nemo, "char_timestamps": [1]}), length_ms=LENGTH_MS
    )
    assert [word.ends_segment for word in speech.words] == [False, True, False, True]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(segments(("We dug.", 0, 1), ("Then rest.", 1, 2)), id="another word"),
        pytest.param(segments(("We dig.", 0, 1)), id="a part is missing"),
        pytest.param(segments(("Then rest.", 0, 1), ("We dig.", 1, 2)), id="another order"),
        pytest.param(segments(*((text, 0, 1) for text in ("We", "dig.", "Then", "rest."))), id="a segment a word"),
    ],
)
def test_segments_that_disagree_with_the_words_are_not_followed(said: list[dict[str, Any]]) -> None:
    speech = parse_parakeet(json.dumps({**GOOD, "segment_timestamps": said}), length_ms=LENGTH_MS)
    assert [word.text for word in speech.words] == ["We", "dig.", "Then", "rest."]
    assert not any(word.ends_segment for word in speech.words)


@pytest.mark.parametrize(
    "body",
    [
        reply(transcription="", word_timestamps=[], segment_timestamps=[], processing_time=0.1),
        reply(transcription=""),
        reply(transcription=" \n", word_timestamps=None, segment_timestamps=None),
        reply(word_timestamps=[]),
        of_words(("", 0, 1), (" ", 1, 2)),
    ],
)
def test_where_nothing_was_said_there_are_no_words(body: str) -> None:
    assert read(body) == []


def test_words_of_a_server_without_word_times_are_spread_over_its_segments() -> None:
    said = segments(("Bees are", 1.0, 1.8), ("at work.", 2.0, 3.0))
    speech = parse_parakeet(reply(transcription="Bees are at work.", segment_timestamps=said), length_ms=LENGTH_MS)
    assert speech.timing == "interpolated"
    assert times(speech) == [
        ("Bees", 1_000, 1_457),
        ("are", 1_457, 1_800),
        ("at", 2_000, 2_285),
        ("work.", 2_285, 3_000),
    ]
    assert [word.ends_segment for word in speech.words] == [False, True, False, True]


def test_numbers_in_quotes_are_numbers() -> None:
    assert read(of_words(("a", "0.5", "1.25"))) == [("a", 500, 1_250)]


def test_a_word_of_no_length_lasts_one_frame() -> None:
    assert read(of_words(("a", 1, 1))) == [("a", 1_000, 1_000 + FRAME_MS)]


def test_words_a_few_frames_outside_of_the_sound_are_moved_into_it() -> None:
    body = of_words(("so", -0.16, 0.08), ("we", 9.84, 10.08), ("end", 10.08, 10.32))
    assert read(body) == [("so", 0, 80), ("we", 9_840, 10_000), ("end", 9_920, 10_000)]


def test_times_that_run_back_by_a_frame_keep_the_order_of_the_text() -> None:
    assert read(of_words(("one", 1.0, 1.4), ("two", 0.92, 1.5))) == [("one", 1_000, 1_400), ("two", 1_000, 1_500)]


def test_what_no_database_stores_is_taken_out_of_a_word() -> None:
    assert read(of_words(("a\0b\tc\ufeff", 0, 1))) == [("a b c", 0, 1_000)]


def refused(body: str, error: type[MomentsError]) -> str:
    with pytest.raises(error) as caught:
        parse_parakeet(body, length_ms=LENGTH_MS)
    assert type(caught.value) is error
    assert caught.value.evidence["reply"] == scrubbed(body)
    assert len(str(caught.value)) < 250
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        '"We dig."',
        "{}",
        '{"error": "CUDA out of memory"}',
        '{"detail": "Internal Server Error"}',
        '{"transcription": null, "word_timestamps": null}',
        "<html><body>It works!</body></html>",
        json.dumps(GOOD)[:100],
        "[" * 100_000,
        '{"transcription":' * 50_000,
        '{"transcription": "a", "word_timestamps": [{"word": "a", "start": ' + "9" * 5_000 + "}]}",
        '{"transcription": "\\ud800"}',
    ],
    ids=lambda body: body[:30],
)
def test_what_is_no_transcription_may_go_well_the_next_time(body: str) -> None:
    assert "run this again" in refused(body, ServiceError)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("NaN", "1"),
        ("0", "Infinity"),
        ("1e999", "1e999"),
        ("null", "1"),
        ("true", "1"),
        ('"soon"', "1"),
        ("[0]", "1"),
        ("2", "1"),
        ("-1", "1"),
        ("11", "12"),
        ("9", "12"),
        ("1000", "1500"),
        ("1e300", "1e300"),
        ("1e308", "1e308"),
        ("-1e308", "1"),
        ('"1e308"', "1"),
        ("9" * 400, "1"),
        ("0", '"' + "9" * 400 + '"'),
    ],
)
@pytest.mark.parametrize("kind", ["word", "text"])
def test_a_time_that_cant_be_is_refused(kind: str, start: str, end: str) -> None:
    field = "word_timestamps" if kind == "word" else "segment_timestamps"
    body = f'{{"transcription": "a", "{field}": [{{"{kind}": "a", "start": {start}, "end": {end}}}]}}'
    refused(body, ReplyError)


@pytest.mark.parametrize(
    "item",
    [None, "a", 1, [], {}, {"word": "a"}, {"word": "a", "start": 0}, {"word": None, "start": 0, "end": 1}],
)
def test_a_word_that_is_none_is_refused(item: object) -> None:
    assert "word_timestamps.0" in refused(reply(transcription="a", word_timestamps=[item]), ReplyError)


def test_text_without_times_is_refused_and_told_what_to_do() -> None:
    for body in (reply(transcription="We dig."), reply(transcription="We dig.", word_timestamps=[])):
        assert "start it with timestamps" in refused(body, ReplyError)


def test_times_for_less_than_half_of_the_text_are_refused() -> None:
    said = "one two three four five"
    short = words(("one", 0, 1), ("two", 1, 2))
    assert "without the times" in refused(reply(transcription=said, word_timestamps=short), ReplyError)
    assert len(read(reply(transcription=said, word_timestamps=[*short, *words(("3", 2, 3))]))) == 3


def test_words_out_of_order_are_refused() -> None:
    assert "out of order" in refused(of_words(("one", 2, 3), ("two", 1, 2)), ReplyError)


def test_more_words_than_anyone_can_say_are_refused() -> None:
    assert "heard 251 words in 10 s" in refused(of_words(*[("a", 1, 1)] * 251), ReplyError)
    assert len(read(of_words(*[("a", 1, 1)] * 250))) == 250


def test_a_flood_is_refused_unread() -> None:
    assert "characters" in refused(" " * MOST_CHARS + "{}", ReplyError)


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (ServiceError, {"error": "Bearer very-secret-value is not known"}),
        (ServiceError, {"error": "see http://host/a?X-Goog-Signature=very-secret-value"}),
        (ReplyError, {"transcription": "Bearer very-secret-value " * 20}),
        (ReplyError, {"transcription": "http://host/a?sig=very-secret-value", "word_timestamps": [1]}),
    ],
)
def test_no_secret_in_a_reply_stands_in_its_error(error: type[MomentsError], body: dict[str, Any]) -> None:
    with pytest.raises(error) as caught:
        parse_parakeet(json.dumps(body), length_ms=LENGTH_MS)
    assert "very-secret-value" not in f"{caught.value} {caught.value.evidence}"
    assert 10 < len(caught.value.evidence["reply"]) <= 300  # type: ignore[arg-type]


HOSTILE = [
    "1e308",
    "-1e308",
    "1e999",
    "NaN",
    "Infinity",
    "9" * 400,
    "-" + "9" * 400,
    "9" * 4_400,
    "5e-324",
    "1e6",
    "1e15",
]


def hostile_item(chance: random.Random, key: str) -> str:
    values = [chance.choice([*HOSTILE, "1", "true", "null", "[]"]) for _ in range(2)]
    start, end = (f'"{value}"' if chance.random() < 0.4 else value for value in values)
    return f'{{"{key}": "a b", "start": {start}, "end": {end}}}'


@pytest.mark.parametrize("seed", range(20))
def test_hostile_numbers_come_out_as_nothing_but_a_refusal(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        items = {
            key: ",".join(hostile_item(chance, key) for _ in range(chance.randint(0, 3))) for key in ("word", "text")
        }
        body = (
            f'{{"transcription": "a b", "word_timestamps": [{items["word"]}], "segment_timestamps": [{items["text"]}]}}'
        )
        body = body[: chance.choice([len(body), len(body), chance.randrange(len(body))])]
        try:
            speech = parse_parakeet(body, length_ms=LENGTH_MS)
        except (ReplyError, ServiceError):
            continue
        assert all(0 <= word.start_ms < word.end_ms <= LENGTH_MS for word in speech.words)
