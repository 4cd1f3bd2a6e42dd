"""A chat model finds moments, over real sockets and for a real step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from moments_core.content import VideoContent
from moments_core.errors import MomentsError, ReplyError, SettingsError
from moments_core.moment import Found, overlapping_pairs
from moments_core.options import Options
from moments_core.prompts import GENERATION
from moments_core.transcript import Sentence
from moments_resources.models.chat import ChatModel
from moments_resources.models.chat_finder import ChatFinder
from moments_resources.step import Step
from tests.stand_ins.chat_completions import text_of
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

Sql = Callable[..., list[dict[str, Any]]]
FinderFor = Callable[..., Any]

SMALL = {"context_tokens": 2_400, "defaults": {"max_tokens": 700}}  # the hour below needs several windows


def talk(count: int) -> VideoContent:
    sentences = [
        Sentence(start_ms=at * 10_000, end_ms=at * 10_000 + 9_000, text=f"This is what is said in place {at + 1}.")
        for at in range(count)
    ]
    return VideoContent(duration_ms=count * 10_000, sentences=sentences)


def saying(*moments: dict[str, object]) -> Callable[[Asked], str]:
    return lambda _: json.dumps({"moments": moments})


def moment(first: int, last: int, score: float = 0.5, title: str = "A title") -> dict[str, object]:
    return {"first_sentence": first, "last_sentence": last, "title": title, "score": score}


class CrashError(MomentsError):
    """Ends a step before its commit."""


@pytest.fixture
def finder_for(new_step: Callable[..., Step], chat_for: Callable[..., ChatModel]) -> FinderFor:
    """`with finder_for(server, **fields) as finder`: for a step that never commits."""

    @contextmanager
    def make(server: ModelServer, **fields: Any) -> Iterator[ChatFinder]:
        with suppress(CrashError), new_step("moments") as step:
            yield ChatFinder(chat_for(server.entry(**fields), step))
            raise CrashError("a crash")

    return make


def find(
    finder_for: FinderFor, server: ModelServer, content: VideoContent, options: Options | None = None, **fields: Any
) -> Found:
    found: list[Found] = []
    with finder_for(server, **fields) as finder:
        found.append(finder.find(content, options or Options()))
    return found[0]


def test_moments_are_found_by_the_numbers_of_their_sentences(finder_for: FinderFor) -> None:
    with ModelServer(answer=saying(moment(7, 9, 0.9, "Later"), moment(2, 4))) as server:
        found = find(finder_for, server, talk(20))
    assert [(one.span.start_ms, one.span.end_ms, one.title, one.score) for one in found.moments] == [
        (10_000, 39_000, "A title", 0.5),
        (60_000, 89_000, "Later", 0.9),
    ]
    assert found.note == "2 moments by stand-in from 20 sentences"
    (asked,) = server.asked
    assert "20 [3:10] This is what is said in place 20.\n</transcript>" in text_of(asked.json)
    assert asked.json["response_format"]["json_schema"]["schema"]["properties"]["moments"]["maxItems"] == 3


def test_a_server_that_fills_the_schema_gives_sound_moments(finder_for: FinderFor) -> None:
    with ModelServer() as server:
        found = find(finder_for, server, talk(200), parallel=3, **SMALL)
    assert len(server.asked) > 2
    assert len(found.moments) > 2
    assert overlapping_pairs(found.moments) == []


def test_a_long_transcript_is_read_in_windows_and_every_sentence_is_shown(finder_for: FinderFor) -> None:
    content = talk(200)
    shares: list[float] = []
    with ModelServer(answer=saying()) as server, finder_for(server, parallel=4, **SMALL) as finder:
        found = finder.find(content, Options(), on_progress=shares.append)
    asked = [text_of(call.json) for call in server.asked]
    for at in range(200):
        assert any(f"\n{at + 1} [" in text for text in asked)
    assert found == Found((), f"No moment: stand-in found none in 200 sentences in {len(asked)} windows")
    assert sorted(shares) == pytest.approx([done / len(asked) for done in range(1, len(asked) + 1)])
    assert server.most_at_once <= 4


def test_a_moment_that_two_windows_found_stands_there_once(finder_for: FinderFor) -> None:
    def both(asked: Asked) -> str:
        """The same passage from each window that shows it."""
        schema = asked.json["response_format"]["json_schema"]["schema"]["properties"]["moments"]["items"]
        bounds = schema["properties"]["first_sentence"]
        return json.dumps(
            [moment(n, n + 3) for n in range(1, 190, 10) if bounds["minimum"] <= n <= bounds["maximum"] - 3]
        )

    with ModelServer(answer=both) as server:
        found = find(finder_for, server, talk(200), Options(max_moments=1_000), **SMALL)
    assert len({one.span for one in found.moments}) == len(found.moments)
    assert len(found.moments) > 10
    assert "found twice" in found.note


def test_the_options_reach_the_model_and_bound_what_it_answers(finder_for: FinderFor) -> None:
    answers = [moment(1, 1), moment(3, 6, 0.2), moment(8, 11, 0.9), moment(12, 20)]
    options = Options(query="rockets", max_moments=3, min_seconds=20, max_seconds=60)
    with ModelServer(answer=saying(*answers)) as server:
        found = find(finder_for, server, talk(20), options)
    text = text_of(server.asked[0].json)
    assert "at most 3 moments, each between 20 and 60 seconds long" in text
    assert '"rockets"' in text
    assert [one.span.start_ms for one in found.moments] == [70_000]
    assert found.note == (
        "1 moment by stand-in from 20 sentences; 1 beyond what was asked for; 1 shorter than 20 s; 1 longer than 60 s"
    )


@pytest.mark.parametrize(
    ("answers", "options", "note"),
    [
        ((), Options(), "No moment: stand-in found none in 20 sentences"),
        ((), Options(query="rockets"), 'No moment: stand-in found none about "rockets" in 20 sentences'),
        (
            (moment(1, 1), moment(3, 20)),
            Options(min_seconds=20, max_seconds=60),
            "No moment: none of the 2 that stand-in found is between 20 and 60 seconds long; 1 shorter than 20 s; "
            "1 longer than 60 s",
        ),
    ],
)
def test_no_moment_is_an_outcome_with_a_reason(
    finder_for: FinderFor, answers: tuple[dict[str, object], ...], options: Options, note: str
) -> None:
    with ModelServer(answer=saying(*answers)) as server:
        assert find(finder_for, server, talk(20), options) == Found((), note)


def test_where_nothing_is_said_no_model_is_asked(finder_for: FinderFor, model_server: ModelServer) -> None:
    found = find(finder_for, model_server, VideoContent(duration_ms=60_000))
    assert found == Found((), "No moment: nothing is said in the video, so stand-in was not asked")
    assert (model_server.asked, model_server.looked) == ([], [])


def test_what_was_left_out_of_an_answer_is_said(finder_for: FinderFor) -> None:
    broken = json.dumps([moment(2, 4), moment(9, 5), {**moment(15, 16), "score": "high"}])[:-1] + ', {"first_sen'
    with ModelServer(answer=lambda _: f"<think>Hm.</think>```json\n{broken}\n```") as server:
        found = find(finder_for, server, talk(20))
    assert found.note == (
        "2 moments by stand-in from 20 sentences; 1 refused (1 with an end before its start); "
        "1 without a score, taken as 0.5; 1 of the replies broke off and gave 2 whole moments"
    )


def test_a_reply_that_cannot_be_read_fails_the_step_and_names_its_window(finder_for: FinderFor, sql: Sql) -> None:
    """The other windows' replies are kept: only what failed is asked again."""
    content = talk(200)

    def prose_at_times(asked: Asked) -> str:
        return "I liked it." if is_broken and "\n100 [" in text_of(asked.json) else json.dumps({"moments": []})

    is_broken = True
    with ModelServer(answer=prose_at_times) as server:
        with pytest.raises(ReplyError) as refused:
            find(finder_for, server, content, **SMALL)
        first_round = len(server.asked)
        is_broken = False
        found = find(finder_for, server, content, **SMALL)
    broken = sum("\n100 [" in text_of(asked.json) for asked in server.asked[:first_round])
    assert str(refused.value).startswith("stand-in on sentences ")
    assert f"of {first_round}): The reply holds no answer in JSON" in str(refused.value)
    assert refused.value.evidence["reply"] == "I liked it."
    assert str(refused.value.evidence["window"]).startswith("sentences ")
    assert found.moments == ()
    assert len(server.asked) == first_round + broken
    assert sql("select count(*) as n from model_calls where outcome = 'refused'") == [{"n": broken}]


def test_every_reply_that_failed_is_asked_for_again_at_once(finder_for: FinderFor, sql: Sql) -> None:
    with ModelServer(answer=lambda _: "prose") as server, pytest.raises(ReplyError):
        find(finder_for, server, talk(200), **SMALL)
    assert sql("select distinct outcome from model_calls") == [{"outcome": "refused"}]
    assert len(server.asked) > 2


def test_a_step_that_is_tried_again_asks_nothing_twice(finder_for: FinderFor) -> None:
    with ModelServer(answer=saying(moment(2, 4))) as server:
        first = find(finder_for, server, talk(20))
        assert find(finder_for, server, talk(20)) == first
        assert len(server.asked) == 1
        find(finder_for, server, talk(20), Options(query="rockets"))
    assert len(server.asked) == 2


def test_every_call_leads_to_its_prompt(finder_for: FinderFor, sql: Sql) -> None:
    with ModelServer(answer=saying()) as server:
        find(finder_for, server, talk(20))
    (row,) = sql("select name, version, text from model_calls join prompts on prompts.sha256 = prompt_sha256")
    assert row == {"name": "generation", "version": "1", "text": GENERATION.text}


def test_what_decides_the_moments_is_recorded(finder_for: FinderFor, model_server: ModelServer) -> None:
    with finder_for(model_server, context_tokens=9_000, defaults={"temperature": 0.3}) as finder:
        assert finder.recipe == "stand-in generation-1"
        assert finder.takes_turns
        assert finder.parameters == {
            "served_name": "stand-in",
            "temperature": 0.3,
            "context_tokens": 9_000,
            "prompt": "generation-1",
            "prompt_sha256": GENERATION.sha256,
        }


def test_a_context_without_room_is_a_setting_that_is_wrong(finder_for: FinderFor, model_server: ModelServer) -> None:
    with pytest.raises(SettingsError, match="set context_tokens higher"):
        find(finder_for, model_server, talk(20), context_tokens=1_000)
    assert model_server.asked == []


def test_a_sentence_that_is_longer_than_a_window_is_shown_cut(finder_for: FinderFor) -> None:
    monster = Sentence(start_ms=0, end_ms=9_000, text="字" * 100_000)
    content = VideoContent(duration_ms=200_000, sentences=[monster, *talk(20).sentences])
    with ModelServer(answer=saying(moment(1, 1))) as server:
        found = find(finder_for, server, content, **SMALL)
    assert found.moments[0].span.end_ms == 9_000
    assert all(len(asked.body) < 20_000 for asked in server.asked)
