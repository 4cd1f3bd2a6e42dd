from __future__ import annotations

import json

import pytest

from moments_core.errors import SourceError
from moments_core.finder.jsonl import parse_line, result_line
from moments_core.moment import Found, Moment
from moments_core.time import Span
from moments_core.transcript import Sentence

SENTENCE = [1.5, 2.25, "Ann", 1, "Hello there."]


def line(**changes: object) -> str:
    return json.dumps({"id": "a", "duration": 10, "sentences": [SENTENCE]} | changes)


def test_a_line_becomes_an_id_and_content_in_milliseconds() -> None:
    video_id, content = parse_line(line(), 1)
    assert video_id == "a"
    assert content.duration_ms == 10_000
    assert content.sentences == (
        Sentence(start_ms=1500, end_ms=2250, text="Hello there.", speaker="Ann", turn_start=True),
    )


def test_other_keys_are_ignored() -> None:
    assert parse_line(line(chapters=[1], title=None), 1) == parse_line(line(), 1)


def test_a_missing_duration_is_the_end_of_the_last_sentence() -> None:
    assert parse_line(line(duration=None), 1)[1].duration_ms == 2250


def test_a_line_without_sentences_is_a_video_without_speech() -> None:
    assert parse_line(line(sentences=[]), 1)[1].sentences == ()


def test_a_sentence_without_text_is_left_out_and_one_without_length_is_kept() -> None:
    content = parse_line(line(sentences=[[0, 1, None, 0, "  "], [3, 3, None, False, "Here."]]), 1)[1]
    assert [(s.start_ms, s.end_ms, s.text) for s in content.sentences] == [(3000, 3001, "Here.")]


def test_half_a_surrogate_pair_becomes_writable() -> None:
    content = parse_line(r'{"id": "a\ud800", "sentences": [[0, 1, null, 0, "b\udfff"]]}', 1)[1]
    assert content.sentences[0].text == "b?"


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, '{"id": ' + "9" * 5_000 + "}", "\x00"])
def test_what_is_not_json_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(SourceError, match="Line 7 is not JSON") as refused:
        parse_line(text, 7)
    assert refused.value.evidence["line"] == 7


@pytest.mark.parametrize("text", ["[]", "3", "null", '"id"'])
def test_json_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="Line 2 is not a JSON object"):
        parse_line(text, 2)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": 3}, "id"),
        ({"id": None}, "id"),
        ({"duration": "10"}, "duration"),
        ({"duration": True}, "duration"),
        ({"duration": -1}, "duration"),
        ({"duration": 10**400}, "duration"),
        ({"duration": float("nan")}, "duration"),
        ({"duration": float("inf")}, "duration"),
        ({"sentences": None}, "sentences"),
        ({"sentences": {}}, "sentences"),
        ({"sentences": [SENTENCE, "x"]}, "sentences[1]"),
        ({"sentences": [SENTENCE[:4]]}, "sentences[0]"),
        ({"sentences": [[-1, 2, None, 0, "x"]]}, "sentences[0][0]"),
        ({"sentences": [[None, 2, None, 0, "x"]]}, "sentences[0][0]"),
        ({"sentences": [[1, "2", None, 0, "x"]]}, "sentences[0][1]"),
        ({"sentences": [[3, 2, None, 0, "x"]]}, "sentences[0][1]"),
        ({"sentences": [[1, 2, 5, 0, "x"]]}, "sentences[0][2]"),
        ({"sentences": [[1, 2, None, "yes", "x"]]}, "sentences[0][3]"),
        ({"sentences": [[1, 2, None, [], "x"]]}, "sentences[0][3]"),
        ({"sentences": [[1, 2, None, 0, None]]}, "sentences[0][4]"),
    ],
)
def test_a_field_that_is_wrong_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(SourceError, match="Line 4: ") as refused:
        parse_line(line(**changes), 4)
    assert refused.value.evidence["field"] == field
    assert str(refused.value).startswith(f"Line 4: {field} must")
    assert len(str(refused.value.evidence["value"])) <= 80


def test_a_result_is_told_in_seconds() -> None:
    found = Found((Moment(Span(1500, 31_250), "Soil and compost", 0.7),), "1 moment from 9 sentences")
    assert result_line("a", found) == {
        "id": "a",
        "moments": [{"start_time": 1.5, "end_time": 31.25, "title": "Soil and compost", "score": 0.7}],
    }
