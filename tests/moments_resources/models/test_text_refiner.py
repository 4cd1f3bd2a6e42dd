"""A chat model moves boundaries by what is said: one request a moment, and no clip is opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from moments_core.clip_plan import plan_clip
from moments_core.content import ShownMoment, VideoContent
from moments_core.errors import MomentsError, ReplyError, SettingsError
from moments_core.moment import Moment, Refined
from moments_core.numbered import TEMPLATE_TOKENS, estimated_tokens
from moments_core.prompts import REFINE_FROM_TEXT
from moments_core.sentences import sentences_from_words
from moments_core.time import Span
from moments_core.transcript import Word
from moments_resources.models.chat import ChatModel
from moments_resources.models.text_refiner import TextRefiner
from moments_resources.step import Step
from tests.stand_ins.chat_completions import text_of
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

RefinerFor = Callable[..., Any]
Sql = Callable[..., list[dict[str, Any]]]

WORDS = [Word(start_ms=at * 500, end_ms=at * 500 + 400, text=f"w{at}") for at in range(600) if not 200 <= at < 300]
TALK = VideoContent(duration_ms=300_000, words=WORDS, sentences=sentences_from_words(WORDS))
SILENT = Span(110_000, 140_000)  # between the words 200 and 300


def shown(*spans: Span) -> list[ShownMoment]:
    video = Span(0, TALK.duration_ms)
    clip = Path("/nowhere/clip.mp4")  # opening it would fail
    return [
        ShownMoment(Moment(span, f"At {span}", 0.5), plan_clip(span, video=video), clip, "0" * 64) for span in spans
    ]


class CrashError(MomentsError):
    """Ends a step before its commit."""


@pytest.fixture
def refiner_for(new_step: Callable[..., Step], chat_for: Callable[..., ChatModel]) -> RefinerFor:
    """`with refiner_for(server, **fields) as refiner`: for a step that never commits."""

    @contextmanager
    def make(server: ModelServer, **fields: Any) -> Iterator[TextRefiner]:
        with suppress(CrashError), new_step("refined_moments") as step:
            yield TextRefiner(chat_for(server.entry(**{"kind": "chat", **fields}), step))
            raise CrashError("a crash")

    return make


def refine(
    refiner_for: RefinerFor, server: ModelServer, moments: Sequence[ShownMoment], **fields: Any
) -> list[Refined]:
    refined: list[Refined] = []
    with refiner_for(server, **fields) as refiner:
        refined.extend(refiner.refine_all(moments, TALK))
    return refined


def saying(start: object, end: object) -> Callable[[Asked], str]:
    return lambda _: json.dumps({"start_time": start, "end_time": end})


def test_boundaries_come_back_in_the_video_s_time(refiner_for: RefinerFor) -> None:
    with ModelServer(answer=saying(1.58, 33.1)) as server:
        refined = refine(refiner_for, server, shown(Span(20_000, 50_000)))
    assert refined == [Refined(Span(19_580, 51_100), "start −0.42 s; end +1.10 s by stand-in")]
    text = text_of(server.asked[0].json)
    assert "The clip is 34.00 seconds long and begins at 0." in text
    assert "\n2.00–2.40 w40\n" in text


def test_each_moment_is_a_request_of_its_own_and_answers_keep_their_order(refiner_for: RefinerFor) -> None:
    def by_place(asked: Asked) -> str:
        """A boundary that depends on which moment it is."""
        moved = 0.5 if "At 0:20" in text_of(asked.json) else 1.0
        return json.dumps({"start_time": 2 + moved, "end_time": 32})

    spans = [Span(at, at + 30_000) for at in (20_000, 60_000, 150_000, 200_000)]
    shares: list[float] = []
    with ModelServer(answer=by_place) as server, refiner_for(server, parallel=2) as refiner:
        refined = refiner.refine_all(shown(*spans), TALK, on_progress=shares.append)
    assert [one.span.start_ms for one in refined] == [20_500, 61_000, 151_000, 201_000]
    assert len(server.asked) == 4
    assert sorted(shares) == [0.25, 0.5, 0.75, 1.0]


def test_a_server_that_fills_the_schema_keeps_every_moment_in_its_clip(refiner_for: RefinerFor) -> None:
    moments = shown(Span(0, 10_000), Span(60_000, 90_000), Span(250_000, 300_000))
    with ModelServer() as server:
        refined = refine(refiner_for, server, moments)
    for one, before in zip(refined, moments, strict=True):
        assert before.plan.clip.contains(one.span)


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (saying(99, 120), "unchanged: stand-in gave 99.00–120.00 s in a clip of 34.00 s"),
        (saying(30, 3), "unchanged: stand-in gave 30.00–3.00 s, which ends before it starts"),
        (saying(2, 15), "unchanged: stand-in moved an end by 17.00 s, and at most 12.00 s are taken"),
        (saying(2, 32), "unchanged by stand-in"),
        (lambda _: "Fine as it is.", "unchanged: The reply holds no answer in JSON: run this again, or choose"),
    ],
)
def test_a_moment_stays_where_its_answer_is_wrong_and_the_note_says_why(
    refiner_for: RefinerFor, answer: Callable[[Asked], str], note: str
) -> None:
    span = Span(20_000, 50_000)
    with ModelServer(answer=answer) as server:
        (refined,) = refine(refiner_for, server, shown(span))
    assert refined.span == span
    assert refined.note.startswith(note)


def test_one_unreadable_reply_of_several_costs_its_own_moment_alone(refiner_for: RefinerFor, sql: Sql) -> None:
    def once(asked: Asked) -> str:
        return "prose" if "At 0:20" in text_of(asked.json) else '{"start_time": 2.5, "end_time": 32}'

    spans = [Span(20_000, 50_000), Span(60_000, 90_000)]
    with ModelServer(answer=once) as server:
        first, second = refine(refiner_for, server, shown(*spans))
    assert first.span == spans[0]
    assert first.note.startswith("unchanged: The reply holds no answer")
    assert second == Refined(Span(60_500, 90_000), "start +0.50 s by stand-in")
    assert sorted(row["outcome"] for row in sql("select outcome from model_calls")) == ["refused", "replied"]


def test_a_model_none_of_whose_replies_can_be_read_fails_the_step(refiner_for: RefinerFor, sql: Sql) -> None:
    spans = [Span(20_000, 50_000), Span(60_000, 90_000)]
    with ModelServer(answer=lambda _: "prose") as server, pytest.raises(ReplyError) as refused:
        refine(refiner_for, server, shown(*spans))
    assert str(refused.value).startswith(
        "stand-in was asked about 2 moments, and no reply can be read. The reply holds"
    )
    assert refused.value.evidence["reply"] == "prose"
    assert sql("select distinct outcome from model_calls") == [{"outcome": "refused"}]


def test_where_nothing_is_said_in_a_clip_its_moment_stays_and_no_model_is_asked(refiner_for: RefinerFor) -> None:
    with ModelServer(answer=saying(2.5, 32)) as server:
        refined = refine(refiner_for, server, shown(SILENT, Span(60_000, 90_000), SILENT))
        assert refine(refiner_for, server, shown(SILENT)) == [Refined(SILENT, "unchanged: nothing is said in its clip")]
    assert [one.note for one in refined] == [
        "unchanged: nothing is said in its clip",
        "start +0.50 s by stand-in",
        "unchanged: nothing is said in its clip",
    ]
    assert len(server.asked) == 1


def test_what_is_said_fits_into_the_model_s_context_and_the_prompt_says_what_is_left_out(
    refiner_for: RefinerFor,
) -> None:
    """What lies near the moment's boundaries stays."""
    span = Span(10_000, 90_000)
    with ModelServer() as server:
        refine(refiner_for, server, shown(span), context_tokens=1500, defaults={"max_tokens": 200})
        refine(refiner_for, server, shown(span), context_tokens=8000, defaults={"max_tokens": 200})
    cut, whole = (asked.json["messages"] for asked in server.asked)
    assert sum(estimated_tokens(message["content"]) for message in cut) + TEMPLATE_TOKENS <= 1300
    assert "\n…\n" in cut[1]["content"]
    assert "words that are said in the clip are left out" in cut[1]["content"]
    for word in ("w20", "w180"):  # at 10 and at 90 s
        assert f" {word}\n" in cut[1]["content"]
    assert "left out" not in whole[1]["content"]
    assert cut[0] == whole[0]


def test_a_context_without_room_is_named_before_any_call(refiner_for: RefinerFor, model_server: ModelServer) -> None:
    with pytest.raises(SettingsError, match="leave no room for a transcript"):
        refine(refiner_for, model_server, shown(Span(20_000, 50_000)), context_tokens=600)
    assert model_server.asked == []


def test_no_moments_are_no_calls(refiner_for: RefinerFor, model_server: ModelServer) -> None:
    assert refine(refiner_for, model_server, []) == []
    assert (model_server.asked, model_server.looked) == ([], [])


def test_what_decides_the_boundaries_is_recorded(refiner_for: RefinerFor, model_server: ModelServer, sql: Sql) -> None:
    with refiner_for(model_server, defaults={"top_p": 0.9}) as refiner:
        assert refiner.recipe == "stand-in refine_from_text-1"
        assert refiner.takes_turns
        assert refiner.parameters == {
            "served_name": "stand-in",
            "top_p": 0.9,
            "context_tokens": None,
            "prompt": "refine_from_text-1",
            "prompt_sha256": REFINE_FROM_TEXT.sha256,
        }
        refiner.refine_all(shown(Span(20_000, 50_000)), TALK)
    (row,) = sql("select name, asset from model_calls join prompts on prompts.sha256 = prompt_sha256")
    assert row == {"name": "refine_from_text", "asset": "refined_moments"}
