"""A chat model behind an OpenAI-compatible server: chat completions whose reply follows a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from moments_core.errors import ReplyError, ServiceError
from moments_core.model_entry import ModelEntry
from moments_core.numbered import TEMPLATE_TOKENS, estimated_tokens
from moments_resources.models.batch import Call, Send
from moments_resources.models.caller import ModelCaller
from moments_resources.models.calls import StoredReply, Usage
from moments_resources.models.reading import all_read
from moments_resources.models.wire import raise_failure, reply_body

if TYPE_CHECKING:
    import httpx2

    from moments_core.prompts import Prompt

Messages = Sequence[Mapping[str, object]]

_COUNT = Field(None, ge=0, le=2**31 - 1)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. `messages` are sent as they are, in OpenAI's form; a callable is asked for them at each try.

    `identity` stands for the messages in the request's hash where they hold what changes from try to try, such as a
    signed URL. `schema`: JSON schema of the reply.
    """

    prompt: Prompt
    messages: Messages | Callable[[], Messages]
    schema: Mapping[str, object]
    identity: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a model said. `said` may be cut off; read `text`."""

    model: str
    said: str
    finish_reason: str | None
    stored: StoredReply

    @property
    def text(self) -> str:
        """All of it. Raises ReplyError where the model said nothing, or stopped in the middle."""
        if self.finish_reason == "length":
            raise ReplyError(
                f"The model {self.model} ran out of tokens in the middle of its reply: raise defaults.max_tokens, or "
                "choose a model with a longer context.",
                reply=self.said[:2000],
            )
        if not self.said.strip():
            raise ReplyError(f"The model {self.model} said nothing (finish_reason {self.finish_reason}).")
        return self.said


class ChatModel:
    """Asks one model, for one step."""

    def __init__(self, caller: ModelCaller) -> None:
        self._caller = caller

    @property
    def entry(self) -> ModelEntry:
        return self._caller.entry

    @property
    def parameters(self) -> dict[str, object]:
        """All that decides a reply besides the question."""
        return chat_parameters(self.entry)

    def parameters_with(self, prompt: Prompt) -> dict[str, object]:
        """As `parameters`, of who asks with this prompt, and with as much text as the context takes."""
        return {
            **self.parameters,
            "context_tokens": self.entry.context_tokens,
            "prompt": prompt.label,
            "prompt_sha256": prompt.sha256,
        }

    def ask_all(
        self, requests: Sequence[ChatRequest], *, on_done: Callable[[int], None] | None = None
    ) -> list[ChatReply]:
        """The replies, in the order of the requests. `on_done` gets how many have come.

        All are opened before the first failure is raised: a try after it asks again for each that is broken.
        Raises ServiceError, SettingsError or PermanentError as the server answers.
        """
        _load_client()
        for prompt in {request.prompt.sha256: request.prompt for request in requests}.values():
            self._caller.ledger.keep_prompt(prompt)
        stored = self._caller.call_all([self._call(request) for request in requests], on_done=on_done)
        return all_read(self._opened, stored)

    @contextmanager
    def reading(self, reply: ChatReply) -> Iterator[None]:
        """Read a reply inside: a ReplyError marks it as refused, so that no retry takes it again."""
        with self._caller.reading(reply.stored):
            yield

    def _call(self, request: ChatRequest) -> Call:
        asked = request.identity if request.identity is not None else {"messages": request.messages}
        identity = {"asked": asked, "schema": request.schema, "prompt": request.prompt.sha256}
        prepare = partial(_prepared, self.entry, self._caller.link.api_key, request)
        return Call(
            identity,
            prepare,
            prompt_sha256=request.prompt.sha256,
            prompt_tokens=_prompt_tokens(request),
            usage_of=_usage_of,
        )

    def _opened(self, stored: StoredReply) -> ChatReply:
        with self._caller.reading(stored):
            completion = _completion(stored.body, self.entry)
        choice = completion.choices[0]
        return ChatReply(self.entry.key, choice.message.content or "", choice.finish_reason, stored)


def chat_parameters(entry: ModelEntry) -> dict[str, object]:
    """What is asked of the model besides the question; what is not set is left to the server."""
    return {"served_name": entry.served_name, **entry.defaults.model_dump(exclude_none=True)}


def _prompt_tokens(request: ChatRequest) -> int | None:
    """None where the messages are not there yet: they hold pictures, whose tokens the server alone knows."""
    if callable(request.messages):
        return None
    texts = [*(str(message["content"]) for message in request.messages), json.dumps(request.schema)]
    return TEMPLATE_TOKENS + sum(map(estimated_tokens, texts))


def _usage_of(body: str) -> Usage | None:
    """What a reply says that it took, also one that is not whole."""
    try:
        return _Counted.model_validate_json(body).usage.as_usage()
    except ValidationError:
        return None


def _prepared(entry: ModelEntry, api_key: str | None, request: ChatRequest) -> Send:
    """The body and headers of a request, with its messages made."""
    asked = entry.defaults.model_dump(exclude_none=True)
    body = {
        "model": entry.served_name or "",
        "messages": request.messages() if callable(request.messages) else request.messages,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": dict(request.schema)},
        },
        "extra_body": {"top_k": asked.pop("top_k")} if "top_k" in asked else None,
        "extra_headers": _headers(api_key),
        **asked,
    }
    return partial(_send, body)


async def _send(body: dict[str, Any], client: httpx2.AsyncClient, address: str) -> bytes:
    import openai

    completions = _client(client, address).chat.completions.with_streaming_response
    try:
        async with completions.create(**body) as response:
            return await reply_body(response.http_response)
    except openai.APIConnectionError as error:  # it stands around a StatusError and a time-out, too
        raise error.__cause__ or error from None


def _load_client() -> None:
    """Import what sending needs, half a second: done before a call has its turn, or the model would stand idle."""
    import openai.types.chat  # noqa: F401
    from openai.resources.chat.completions import AsyncCompletions  # noqa: F401


def _client(client: httpx2.AsyncClient, address: str) -> Any:
    """OpenAI's client on our HTTP client. Retries are ours: they take a turn and are noted; so is the deadline."""
    from openai import AsyncOpenAI

    # OpenAI's client reads the whole body of an error: a status 500 with 400 MB took our process to 2.2 GB.
    client.event_hooks = {"response": [raise_failure]}
    return AsyncOpenAI(base_url=address, api_key="none", http_client=client, max_retries=0, timeout=None)


def _headers(api_key: str | None) -> Any:
    """In place of what OpenAI's client would send of its own accord: it reads the environment for them."""
    from openai import Omit

    return {
        "Authorization": f"Bearer {api_key}" if api_key else Omit(),
        "OpenAI-Organization": Omit(),
        "OpenAI-Project": Omit(),
    }


class _Usage(BaseModel):
    prompt_tokens: int | None = _COUNT
    completion_tokens: int | None = _COUNT

    def as_usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Counted(BaseModel):
    usage: _Usage = _Usage()


class _Completion(_Counted):
    """The parts of OpenAI's chat.completion that we read."""

    choices: list[_Choice] = Field(min_length=1)


def _completion(body: str, entry: ModelEntry) -> _Completion:
    try:
        return _Completion.model_validate_json(body)
    except ValidationError:
        # The envelope is the server's work, not the model's: the next one may be whole.
        raise ServiceError(
            f"The server of the model {entry.key} sent no whole chat completion: run this again.",
            model=entry.key,
            reply=body[:2000],
        ) from None
