"""Models behind stand-in servers, called for a real step on a real database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moments_core.model_entry import ModelEntry
from moments_core.prompts import Prompt
from moments_resources.database import Database
from moments_resources.models.caller import ModelCaller
from moments_resources.models.calls import CallLedger
from moments_resources.models.chat import ChatModel, ChatRequest, chat_parameters
from moments_resources.models.link import ModelLink
from moments_resources.step import Step
from tests.stand_ins.model_server import ModelServer

PROMPT = Prompt("test", "1", "Say what you are asked for.")
PAUSES_S = (0.02,) * 4
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Nothing that a call starts outlives it."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in left if not name.startswith("stand-in")] == []


@pytest.fixture
def caller_for(database: Database) -> Callable[..., ModelCaller]:
    """A caller of this model for a step that was entered."""

    def make(entry: ModelEntry, step: Step, **more: float) -> ModelCaller:
        return ModelCaller(
            entry,
            link=step.hold(ModelLink(entry, connect_s=5)),
            database=database,
            ledger=CallLedger(database, step.attempt, since_run=step.is_forced),
            decided_by=chat_parameters(entry),
            **{"pauses_s": PAUSES_S, **more},
        )

    return make


@pytest.fixture
def chat_for(caller_for: Callable[..., ModelCaller]) -> Callable[..., ChatModel]:
    """A chat model for a step that was entered."""
    return lambda entry, step: ChatModel(caller_for(entry, step))


@pytest.fixture
def question() -> Callable[..., ChatRequest]:
    """`question("which word?")`: a request with this text."""

    def make(text: str = "a word", **more: Any) -> ChatRequest:
        return ChatRequest(PROMPT, [{"role": "user", "content": text}], SCHEMA, **more)

    return make
