"""POST /v1/chat/completions as vLLM answers it: an answer that fits the request's schema, or a scripted one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.stand_ins.faults import error_body
from tests.stand_ins.http_exchange import Asked, Reply
from tests.stand_ins.watched_video import WatchedVideo, watch

Answer = Callable[[Asked], str]
"""What the model says to a request; `asked.json` is its body, `asked.seen` the videos in it."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class ChatServer:
    """How the server behaves. Without `answer` it fills the schema that comes with the request.

    `served`: names of the models that it knows; None: any. `longest_video_s`: what is longer is refused.
    `api_key`: without it in the request: 401.
    """

    answer: Answer | None = None
    served: tuple[str, ...] | None = None
    longest_video_s: float = 600.0
    api_key: str | None = None

    def models(self, asked: Asked) -> Reply:
        if refusal := self._without_key(asked):
            return refusal
        listed = [{"id": name, "object": "model"} for name in self.served or ("stand-in",)]
        return Reply(200, json.dumps({"object": "list", "data": listed}).encode())

    def complete(self, asked: Asked) -> Reply:
        try:
            request = asked.json
        except ValueError:
            return _refused("The body is no JSON.")
        if refusal := self._without_key(asked) or self._unusable(request):
            return refusal
        try:
            asked.seen[:] = [watch(url, longest_s=self.longest_video_s) for url in _video_urls(request)]
        except ValueError as error:
            return _refused(str(error))
        text = self.answer(asked) if self.answer else json.dumps(fill(_schema(request)))
        return Reply(200, completion(request, text, asked.seen))

    def _without_key(self, asked: Asked) -> Reply | None:
        if self.api_key is None or asked.headers.get("authorization") == f"Bearer {self.api_key}":
            return None
        return Reply(401, error_body("Unauthorized", 401))

    def _unusable(self, request: Any) -> Reply | None:
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list) or not request["messages"]:
            return _refused("`messages` is missing.")
        name = request.get("model")
        if not isinstance(name, str) or (self.served is not None and name not in self.served):
            return Reply(404, error_body(f"The model `{name}` does not exist.", 404))
        return _refused("The stand-in can't stream.") if request.get("stream") else None


def completion(request: Mapping[str, Any], text: str, videos: list[WatchedVideo]) -> bytes:
    """A chat completion. About 4 letters are a token, and a second of video is 100."""
    prompt = len(json.dumps(_without_data(request["messages"]))) // 4
    prompt += sum(video.duration_ms for video in videos) // 10
    answered = max(1, len(text) // 4)
    reply = {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": request["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered},
    }
    return json.dumps(reply).encode()


def fill(schema: Any, low: float = 0.0, high: float = 1.0) -> Any:
    """A value that fits a JSON schema. Numbers rise from the first to the last, spread over their ranges.

    `low` and `high`: the part of every range that is this value's; so spans in an array follow one another and none
    ends before it begins.
    """
    return _filled(schema, schema.get("$defs", {}) if isinstance(schema, dict) else {}, low, high)


def text_of(request: Mapping[str, Any]) -> str:
    """All text of a request's messages, as a model reads it."""
    return "\n".join(
        part["text"] if isinstance(part, dict) else part
        for message in request["messages"]
        for part in ([message["content"]] if isinstance(message["content"], str) else message["content"])
        if isinstance(part, str) or part.get("type") == "text"
    )


def _filled(schema: Any, defs: Mapping[str, Any], low: float, high: float) -> Any:  # noqa: C901, PLR0911 - one line a type
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        return _filled(defs[schema["$ref"].rsplit("/", 1)[-1]], defs, low, high)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            real = [option for option in schema[choice] if option.get("type") != "null"]
            return _filled((real or schema[choice])[0], defs, low, high)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(name for name in kind if name != "null")
    if kind == "object":
        names = schema.get("properties", {})
        parts = _parts(len(names), low, high)
        return {name: _filled(names[name], defs, *part) for name, part in zip(names, parts, strict=True)}
    if kind == "array":
        count = max(schema.get("minItems", 0), min(schema.get("maxItems", 3), 3))
        return [_filled(schema.get("items"), defs, *part) for part in _parts(count, low, high)]
    if kind in {"integer", "number"}:
        return _number(schema, kind, (low + high) / 2)
    if kind == "string":
        return f"Filled in at {low:.2f}".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", 200)]
    return True if kind == "boolean" else None


def _parts(count: int, low: float, high: float) -> list[tuple[float, float]]:
    width = (high - low) / max(1, count)
    return [(low + index * width, low + (index + 1) * width) for index in range(count)]


def _number(schema: Mapping[str, Any], kind: str, share: float) -> float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    most = schema.get("maximum", schema.get("exclusiveMaximum", least + 100))
    value = least + (most - least) * share
    return min(int(most), max(-(-least // 1), round(value))) if kind == "integer" else round(value, 3)


def _schema(request: Mapping[str, Any]) -> Any:
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return wanted["json_schema"]["schema"]
    return request.get("structured_outputs", {}).get("json", {"type": "string"})


def _video_urls(request: Mapping[str, Any]) -> list[str]:
    contents = [message.get("content") for message in request["messages"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [part["video_url"]["url"] for part in parts if part.get("type") == "video_url"]


def _without_data(messages: list[Any]) -> list[Any]:
    return [
        {**message, "content": [part for part in message["content"] if part.get("type") == "text"]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _refused(message: str) -> Reply:
    return Reply(400, error_body(message, 400))
