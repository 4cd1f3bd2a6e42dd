"""Chat completions over real sockets: what is sent, what is kept, and what each fault of a server becomes."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from moments_core.errors import MomentsError, NetworkError, PermanentError, ReplyError, ServiceError, SettingsError
from moments_resources.models import breaker, call_failures
from moments_resources.models.caller import ModelCaller
from moments_resources.models.chat import ChatModel, ChatRequest
from moments_resources.step import Step
from tests.stand_ins import faults
from tests.stand_ins.chat_completions import text_of
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

Sql = Callable[..., list[dict[str, Any]]]
NewStep = Callable[..., Step]
ChatFor = Callable[..., ChatModel]
Question = Callable[..., ChatRequest]


def echo(asked: Asked) -> str:
    return json.dumps({"word": text_of(asked.json)})


def ask(
    server: ModelServer, questions: Sequence[ChatRequest], new_step: NewStep, chat_for: ChatFor, **fields: Any
) -> list[str]:
    """What the model said, in a step of its own that is not committed."""
    said: list[str] = []
    with suppress(UncommittedError), new_step("moments") as step:
        chat = chat_for(server.entry(**fields), step)
        for reply in chat.ask_all(questions):
            with chat.reading(reply):
                said.append(reply.text)
        raise UncommittedError("a crash")
    return said


class UncommittedError(MomentsError):
    """Ends a step after its replies came and before its commit."""


def failure(
    server: ModelServer, question: ChatRequest, new_step: NewStep, chat_for: ChatFor, **fields: Any
) -> MomentsError:
    """The error with which asking ends."""
    with pytest.raises(MomentsError) as raised:
        ask(server, [question], new_step, chat_for, **fields)
    return raised.value


def calls(sql: Sql, column: str = "outcome") -> list[Any]:
    return [row[column] for row in sql("select * from model_calls order by call_id")]


def test_replies_come_in_the_order_of_the_questions(new_step: NewStep, chat_for: ChatFor, question: Question) -> None:
    def slow_at_first(asked: Asked) -> str:
        time.sleep(0.3 if "number 0" in text_of(asked.json) else 0)
        return echo(asked)

    with ModelServer(answer=slow_at_first) as server:
        said = ask(server, [question(f"number {n}") for n in range(5)], new_step, chat_for, parallel=3)
    assert [json.loads(text)["word"] for text in said] == [f"number {n}" for n in range(5)]


def test_every_call_is_a_row_with_tokens_seconds_cost_and_prompt(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    price = {"input_per_million": 1_000_000, "output_per_million": 10_000, "per_hour": 3600}
    ask(model_server, [question()], new_step, chat_for, price=price)
    (row,) = sql("select * from model_calls join prompts on prompts.sha256 = prompt_sha256")
    assert (row["outcome"], row["status"], row["model"], row["asset"]) == ("replied", 200, "stand-in", "moments")
    assert row["tokens_in"] > 0
    assert row["tokens_out"] > 0
    assert row["cost"] == pytest.approx(row["tokens_in"] + row["tokens_out"] / 100 + row["seconds"])
    assert json.loads(row["reply"])["object"] == "chat.completion"
    assert row["text"] == "Say what you are asked for."


def test_the_request_holds_schema_and_sampling_parameters_and_nothing_of_the_environment(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, f"leaked-{name}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    defaults = {"temperature": 0.3, "top_p": 0.9, "top_k": 40, "max_tokens": 500}
    ask(model_server, [question()], new_step, chat_for, defaults=defaults)
    (asked,) = model_server.asked
    assert {name: asked.json[name] for name in defaults} == defaults
    assert asked.json["response_format"]["json_schema"]["schema"]["required"] == ["word"]
    assert "leaked" not in str(asked.headers)
    assert "authorization" not in asked.headers


def test_a_key_goes_to_its_own_server_as_a_bearer(
    new_step: NewStep, chat_for: ChatFor, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_KEY", "right-key")
    with ModelServer(api_key="right-key") as server:
        fields = {"base_url": f"{server.url}/v1", "api_key_env": "STAND_IN_KEY"}
        assert ask(server, [question()], new_step, chat_for, **fields)


@pytest.mark.parametrize("parallel", [1, 2])
def test_two_steps_together_never_pass_the_models_limit(
    new_step: NewStep, chat_for: ChatFor, question: Question, parallel: int
) -> None:
    with ModelServer(service_s=0.05) as server, ThreadPoolExecutor(2) as pool:
        entry = server.entry(parallel=parallel)

        def work(video_id: str) -> None:
            with suppress(UncommittedError), new_step("moments", video_id) as step:
                chat_for(entry, step).ask_all([question(f"{n} of {video_id}") for n in range(5)])
                raise UncommittedError("a crash")

        list(pool.map(work, ["web-a", "web-b"]))
        assert len(server.asked) == 10
        assert server.most_at_once == parallel


def test_a_step_that_is_tried_again_takes_the_replies_that_came_and_needs_no_server(
    new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    with ModelServer() as server:
        first = ask(server, [question("a"), question("b")], new_step, chat_for)
        entry_server = server
    assert ask(entry_server, [question("a"), question("b")], new_step, chat_for) == first
    assert calls(sql) == ["replied", "replied"]


def test_a_process_that_is_killed_between_reply_and_commit_has_paid_once(
    model_server: ModelServer,
    new_step: NewStep,
    chat_for: ChatFor,
    question: Question,
    elsewhere: Callable[[str], Any],
    video_id: str,
) -> None:
    dying = elsewhere(f"""
from pathlib import Path
from moments_core.model_entry import parse_entry
from moments_core.prompts import Prompt
from moments_resources.catalogue import Catalogue
from moments_resources.history import History
from moments_resources.models.caller import ModelCaller
from moments_resources.models.calls import CallLedger
from moments_resources.models.chat import ChatModel, ChatRequest, chat_parameters
from moments_resources.models.link import ModelLink
from moments_resources.step import Step, StepRequest
entry = parse_entry("stand-in", {{"kind": "vision", "served_name": "stand-in", "remote_host": "127.0.0.1",
                                 "remote_port": {model_server.port}}})
with Step(Catalogue(History(database)), Path("/nowhere"), StepRequest("{video_id}", "moments", "run")) as step:
    caller = ModelCaller(entry, link=step.hold(ModelLink(entry)), database=database,
                         ledger=CallLedger(database, step.attempt), decided_by=chat_parameters(entry))
    ChatModel(caller).ask_all([ChatRequest(Prompt("test", "1", "Say what you are asked for."),
        [{{"role": "user", "content": "a word"}}],
        {{"type": "object", "properties": {{"word": {{"type": "string"}}}}, "required": ["word"]}})])
    print("replied", flush=True)
    time.sleep(600)
""")
    dying.kill()
    dying.wait()
    assert ask(model_server, [question("a word")], new_step, chat_for)
    assert len(model_server.asked) == 1


def test_after_a_commit_the_same_question_is_a_new_one(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, moment_rows: Any
) -> None:
    for _ in range(2):
        with new_step("moments") as step:
            chat_for(model_server.entry(), step).ask_all([question()])
            step.commit(moment_rows(step.recipe))
    assert len(model_server.asked) == 2


def test_who_forces_a_step_gets_new_replies_and_its_retries_reuse_them(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    ask(model_server, [question()], new_step, chat_for)

    def forced(asset: str) -> Step:
        step = new_step(asset, run_id="forced")
        step.is_forced = True
        return step

    ask(model_server, [question()], forced, chat_for)
    ask(model_server, [question()], forced, chat_for)
    assert len(model_server.asked) == 2


def test_a_reply_that_breaks_its_reader_is_not_taken_again(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    def read() -> None:
        with new_step("moments") as step:
            chat = chat_for(model_server.entry(), step)
            (reply,) = chat.ask_all([question()])
            with chat.reading(reply):
                raise OverflowError("a defect of the reader")

    with pytest.raises(OverflowError):
        read()
    assert calls(sql) == ["refused"]


def test_another_temperature_is_another_question(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    for temperature in (0.1, 0.2):
        ask(model_server, [question()], new_step, chat_for, defaults={"temperature": temperature})
    assert len(model_server.asked) == 2


def test_what_stands_for_the_messages_decides_instead_of_them(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    """A signed URL is another one at each try, and the question is the same."""
    for text in ("https://example.org/a?signature=1", "https://example.org/a?signature=2"):
        ask(model_server, [question(text, identity={"clip": "sha"})], new_step, chat_for)
    assert len(model_server.asked) == 1


def test_messages_can_be_made_when_they_are_sent(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.append(faults.status(503))
    made = iter(["first", "second"])
    late = ChatRequest(
        question().prompt,
        lambda: [{"role": "user", "content": next(made)}],
        question().schema,
        identity={"clip": "sha"},
    )
    ask(model_server, [late], new_step, chat_for)
    assert [text_of(asked.json) for asked in model_server.asked] == ["first", "second"]


@pytest.mark.parametrize("fault", ["500", "503", "broken_off", "reset"])
def test_what_may_pass_is_tried_again_and_both_calls_are_rows(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql, fault: str
) -> None:
    model_server.faults.append(faults.FAULTS[fault])
    assert ask(model_server, [question()], new_step, chat_for)
    assert calls(sql) == ["failed", "replied"]
    assert sql("select class from model_calls order by call_id")[0]["class"] == "transient"


def test_a_busy_server_is_asked_again_when_it_said(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    model_server.faults.append(faults.too_many(after_s=1))
    assert ask(model_server, [question()], new_step, chat_for)
    first, second = model_server.asked
    assert second.at - first.at >= 1
    assert calls(sql, "status") == [429, 200]


def test_a_time_as_a_date_is_a_time_too(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.append(faults.too_many(until=datetime.now(UTC) + timedelta(seconds=2)))
    assert ask(model_server, [question()], new_step, chat_for)
    first, second = model_server.asked
    assert second.at - first.at >= 0.9  # HTTP dates have no fractions


def test_a_server_that_is_busy_for_long_is_left_to_the_next_run(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.append(faults.too_many(after_s=3600))
    error = failure(model_server, question(), new_step, chat_for)
    assert isinstance(error, ServiceError)
    assert "in 3600 s" in str(error)
    assert len(model_server.asked) == 1


def test_the_place_is_free_while_a_call_waits_to_be_tried_again(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.fault_for = lambda asked: (
        faults.too_many(after_s=2) if "patient" in text_of(asked.json) and len(model_server.asked) == 1 else None
    )
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(ask, model_server, [question("patient")], _for(new_step, "web-a"), chat_for)
        while not model_server.asked:
            time.sleep(0.01)
        ask(model_server, [question("quick")], _for(new_step, "web-b"), chat_for)
        patient.result()
    assert [text_of(asked.json) for asked in model_server.asked] == ["patient", "quick", "patient"]


def _for(new_step: NewStep, video_id: str) -> NewStep:
    return lambda asset: new_step(asset, video_id)


@pytest.mark.parametrize("fault", ["hang", "slow_drip"])
def test_a_reply_that_does_not_come_in_time_is_given_up(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql, fault: str
) -> None:
    model_server.faults.extend([faults.FAULTS[fault]] * call_failures.MOST_TIME_OUTS)
    error = failure(model_server, question(), new_step, chat_for, timeout_s=0.4)
    assert isinstance(error, ServiceError)
    assert "did not answer within 0.4 s" in str(error)
    assert calls(sql) == ["failed"] * call_failures.MOST_TIME_OUTS


@pytest.mark.parametrize("fault", ["half_json", "not_json", "json_of_another_kind"])
def test_an_envelope_that_is_not_whole_is_kept_refused_and_asked_for_again_by_the_next_try(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql, fault: str
) -> None:
    model_server.faults.append(faults.FAULTS[fault])
    error = failure(model_server, question(), new_step, chat_for)
    assert isinstance(error, ServiceError)
    assert sql("select reply is not null as kept, outcome from model_calls") == [{"kept": True, "outcome": "refused"}]
    assert ask(model_server, [question()], new_step, chat_for)
    assert calls(sql) == ["refused", "replied"]


def test_every_envelope_that_is_not_whole_is_refused_before_the_first_is_told(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    model_server.faults.extend([faults.not_json, faults.not_json])
    questions = [question(f"number {n}") for n in range(3)]
    with pytest.raises(ServiceError, match="no whole chat completion"):
        ask(model_server, questions, new_step, chat_for)
    assert calls(sql) == ["refused", "refused", "replied"]
    assert len(ask(model_server, questions, new_step, chat_for)) == 3


@pytest.mark.parametrize(
    ("fault", "words"), [("cut_by_length", "max_tokens"), ("empty_content", "said nothing"), ("no_content", "nothing")]
)
def test_a_reply_without_all_of_its_words_is_refused_and_kept(
    model_server: ModelServer,
    new_step: NewStep,
    chat_for: ChatFor,
    question: Question,
    sql: Sql,
    fault: str,
    words: str,
) -> None:
    model_server.faults.append(faults.FAULTS[fault])
    error = failure(model_server, question(), new_step, chat_for)
    assert isinstance(error, ReplyError)
    assert words in str(error)
    assert sql("select outcome, class, tokens_out > 0 as counted from model_calls") == [
        {"outcome": "refused", "class": "permanent", "counted": True}
    ]
    ask(model_server, [question()], new_step, chat_for)
    assert len(model_server.asked) == 2


def test_a_flood_is_no_reply(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.append(faults.huge_body)
    assert "larger than 32 MB" in str(failure(model_server, question(), new_step, chat_for))


def test_of_a_flood_in_an_error_the_beginning_is_read(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    """OpenAI's own client would read all of it into memory before it tells the status."""
    model_server.faults.append(partial(faults.huge_body, code=400, megabytes=200))
    assert "status 400" in str(failure(model_server, question(), new_step, chat_for))
    (asked,) = model_server.asked
    assert asked.answered_bytes < 50_000_000  # what lies in the buffers of the sockets is sent, too


@pytest.mark.parametrize("fault", [faults.quoting_the_key, faults.refused_quoting_the_key])
def test_no_key_comes_back_with_an_error(
    new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setenv("STAND_IN_KEY", "very-secret-value")
    with ModelServer() as server:
        server.faults.append(fault)
        fields = {"base_url": f"{server.url}/v1", "api_key_env": "STAND_IN_KEY"}
        error = failure(server, question(), new_step, chat_for, **fields)
        assert len(server.asked) == 1
    assert isinstance(error, PermanentError)
    kept = sql("select cause, (select string_agg(evidence::text, '') from pipeline_history) e from model_calls")
    assert "very-secret" not in f"{error} {error.evidence} {kept}"
    assert "stand-in" in str(error)


def test_no_key_and_no_signature_is_kept_of_a_reply_with_status_200(
    new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_KEY", "very-secret-value")
    body = b'{"error": "Bearer very-secret-value at https://x.example/clip?X-Goog-Signature=abcdef0123&a=1"}'
    with ModelServer() as server:
        server.faults.append(faults.status(200, body=body))
        fields = {"base_url": f"{server.url}/v1", "api_key_env": "STAND_IN_KEY"}
        error = failure(server, question(), new_step, chat_for, **fields)
    kept = str([error, error.evidence, sql("select * from model_calls"), sql("select * from pipeline_history")])
    assert "very-secret" not in kept
    assert "abcdef0123" not in kept


def test_a_date_that_no_calendar_knows_is_no_time_to_wait_for(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    hostile = {"Retry-After": "Mon, 01 Jan 2026 00:00:00 +99999999999999"}
    model_server.faults.append(faults.status(429, headers=hostile))
    assert ask(model_server, [question()], new_step, chat_for)
    assert calls(sql) == ["failed", "replied"]


def test_a_body_that_is_not_packed_as_it_says_is_a_fault_of_the_server(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    model_server.faults.append(faults.status(200, body=b"no gzip", headers={"Content-Encoding": "gzip"}))
    assert ask(model_server, [question()], new_step, chat_for)
    assert sql("select class from model_calls where outcome = 'failed'") == [{"class": "transient"}]


def test_what_is_sent_is_made_before_the_turn_and_its_errors_are_none_of_the_models(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    def sign() -> Any:
        raise ServiceError("Google can't sign.")

    late = ChatRequest(question().prompt, sign, question().schema, identity={"clip": "sha"})
    error = failure(model_server, late, new_step, chat_for)
    assert str(error) == "Google can't sign."
    assert calls(sql) == []


def test_what_a_server_says_of_a_bad_request_reaches_the_user(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.append(faults.status(400, body=faults.error_body("context of 32768 tokens exceeded", 400)))
    error = failure(model_server, question(), new_step, chat_for)
    assert "status 400" in str(error)
    assert "context of 32768 tokens exceeded" in str(error)
    assert len(model_server.asked) == 1


def test_a_redirect_is_not_followed_since_it_would_carry_the_key_along(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.append(faults.status(307, headers={"Location": f"{model_server.url}/v1/elsewhere"}))
    assert isinstance(failure(model_server, question(), new_step, chat_for), SettingsError)
    assert len(model_server.asked) == 1


@pytest.fixture
def broken(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> Callable[[float], None]:
    """`broken(28)`: the server has failed again and again for a while, the last time 28 s ago."""

    def make(ago_s: float) -> None:
        model_server.faults.extend([faults.status(500)] * breaker.FAILURES)
        failure(model_server, question("is anybody there?"), new_step, chat_for)
        sql(
            "update model_calls set started_at = started_at - make_interval(secs => :ago"
            " + :span * ((select max(call_id) from model_calls) - call_id))",
            ago=ago_s,
            span=breaker.SPAN_S / (breaker.FAILURES - 1),
        )

    return make


def test_a_server_that_fails_again_and_again_is_left_alone_for_a_while_and_then_asked(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, broken: Callable[[float], None]
) -> None:
    broken(breaker.REST_S - 2)
    before = time.monotonic()
    assert ask(model_server, [question()], new_step, chat_for)
    assert model_server.asked[-1].at - before > 1


def test_waiting_for_a_server_has_an_end_and_names_what_to_do(
    model_server: ModelServer,
    new_step: NewStep,
    caller_for: Callable[..., ModelCaller],
    question: Question,
    broken: Callable[[float], None],
    sql: Sql,
) -> None:
    broken(0)
    asked = len(model_server.asked)
    with pytest.raises(ServiceError, match="moments models test stand-in"), new_step("moments") as step:
        ChatModel(caller_for(model_server.entry(), step, patience_s=1)).ask_all([question()])
    assert len(model_server.asked) == asked
    assert sql("select 1 from model_calls where outcome = 'open'") == []


def test_calls_that_break_together_are_one_fault_and_soon_over(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    model_server.faults.extend([faults.reset] * 8)
    assert len(ask(model_server, [question(f"{n}") for n in range(8)], new_step, chat_for, parallel=8)) == 8
    assert len(model_server.asked) == 16


def test_a_server_that_is_only_busy_is_not_taken_for_a_broken_one(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    model_server.faults.extend([faults.too_many(after_s=0)] * breaker.FAILURES)
    failure(model_server, question(), new_step, chat_for)
    sql("update model_calls set started_at = started_at - make_interval(secs => 5.0 * (10 - call_id % 10))")
    assert ask(model_server, [question()], new_step, chat_for)


def test_after_a_failure_no_new_call_begins_and_those_on_their_way_are_kept(
    new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    with ModelServer(service_s=0.5) as server:
        server.fault_for = lambda asked: faults.status(400) if "number 0" in text_of(asked.json) else None
        with pytest.raises(PermanentError), new_step("moments") as step:
            chat_for(server.entry(parallel=2), step).ask_all([question(f"number {n}") for n in range(6)])
        assert len(server.asked) == 2
    assert sorted(calls(sql)) == ["failed", "replied"]


def test_progress_counts_the_calls_that_are_done(
    model_server: ModelServer, new_step: NewStep, chat_for: ChatFor, question: Question
) -> None:
    seen: list[int] = []
    with suppress(UncommittedError), new_step("moments") as step:
        chat = chat_for(model_server.entry(parallel=2), step)
        chat.ask_all([question(f"number {n}") for n in range(4)], on_done=seen.append)
        raise UncommittedError("a crash")
    assert sorted(seen) == [1, 2, 3, 4]


def test_an_interrupt_ends_the_calls_at_once_and_leaves_nothing(
    new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    """Both those that the server has not answered and those that wait for their turn."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before, main = signal.signal(signal.SIGUSR1, interrupt), threading.main_thread()
    try:
        with ModelServer(service_s=60) as server:
            _when(lambda: len(server.asked) == 2, lambda: signal.pthread_kill(main.ident or 0, signal.SIGUSR1))
            with pytest.raises(KeyboardInterrupt):
                ask(server, [question(f"number {n}") for n in range(4)], new_step, chat_for, parallel=2)
        assert len(server.asked) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sql("select distinct outcome, class from model_calls") == [{"outcome": "failed", "class": "cancelled"}]


def _when(is_true: Callable[[], bool], act: Callable[[], None]) -> None:
    def watch() -> None:
        for _ in range(3000):
            if is_true():
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=watch, name="stand-in watcher", daemon=True).start()


def test_a_server_that_is_gone_is_named_before_any_call(
    new_step: NewStep, chat_for: ChatFor, question: Question, sql: Sql
) -> None:
    with ModelServer() as server:
        pass
    error = failure(server, question(), new_step, chat_for)
    assert isinstance(error, (NetworkError, ServiceError))
    assert calls(sql) == []
