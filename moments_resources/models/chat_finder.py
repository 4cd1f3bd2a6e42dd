"""Moments found by a chat model: it reads the transcript in windows and answers with the numbers of sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from moments_core.content import VideoContent
from moments_core.errors import ReplyError
from moments_core.merging import Answered, found
from moments_core.moment import Found
from moments_core.numbered import (
    TEMPLATE_TOKENS,
    Window,
    estimated_tokens,
    line_limit,
    numbered_lines,
    reply_tokens,
    room_for_sentences,
    windows,
)
from moments_core.options import Options
from moments_core.prompts import GENERATION, generation_messages, generation_schema, moments_to_ask_for
from moments_core.replies import ReadMoments, read_moments
from moments_core.time import to_ms
from moments_resources.models.chat import ChatReply, ChatRequest
from moments_resources.models.progress import as_share
from moments_resources.models.reading import all_read

if TYPE_CHECKING:
    from moments_resources.models.chat import ChatModel


@dataclass(frozen=True, slots=True)
class _Question:
    """One window, and that it is the `number`th of `of`."""

    window: Window
    most: int
    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.window}" if self.of == 1 else f"{self.window} (window {self.number} of {self.of})"


class ChatFinder:
    """`MomentFinder` by any chat model. Each of its calls waits for the model's own turn."""

    takes_turns: ClassVar[bool] = True

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat

    @property
    def recipe(self) -> str:
        return f"{self._chat.entry.key} {GENERATION.label}"

    @property
    def parameters(self) -> dict[str, object]:
        """All that decides the moments besides the video and its options."""
        return self._chat.parameters_with(GENERATION)

    def find(
        self, content: VideoContent, options: Options, *, on_progress: Callable[[float], None] | None = None
    ) -> Found:
        """Moments in time order, inside the video, no two with IoU over 0.5; without one the note says why.

        Raises ReplyError naming the window whose reply can't be read, SettingsError where the model's context has no
        room for a transcript, and what `ChatModel.ask_all` raises.
        """
        key = self._chat.entry.key
        if not content.sentences:
            return Found((), f"No moment: nothing is said in the video, so {key} was not asked")
        room = self._room(content, options)
        questions = self._questions(content, options, room)
        requests = [_request(question, content, options, room) for question in questions]
        replies = self._chat.ask_all(requests, on_done=as_share(on_progress, of=len(requests)))
        answers = all_read(partial(self._read, content), zip(questions, replies, strict=True))
        answered = [Answered(answer, asked.most) for answer, asked in zip(answers, questions, strict=True)]
        return found(answered, options, by=key, sentences=len(content.sentences))

    def _room(self, content: VideoContent, options: Options) -> int:
        """Tokens for the sentences of one window."""
        total = len(content.sentences)
        empty = generation_messages((), Window(1, total), total=total + 1, most=1_000, options=options)
        around = sum(estimated_tokens(str(message["content"])) for message in empty)
        return room_for_sentences(self._chat.entry, prompt_tokens=around + TEMPLATE_TOKENS)

    def _questions(self, content: VideoContent, options: Options, room: int) -> list[_Question]:
        shown = windows(content.sentences, room=room, overlap_ms=to_ms(options.max_seconds or 0))
        tokens = reply_tokens(self._chat.entry)
        return [
            _Question(
                window,
                moments_to_ask_for(
                    content.sentences, window, options, duration_ms=content.duration_ms, reply_tokens=tokens
                ),
                number,
                len(shown),
            )
            for number, window in enumerate(shown, start=1)
        ]

    def _read(self, content: VideoContent, answered: tuple[_Question, ChatReply]) -> ReadMoments:
        question, reply = answered
        try:
            with self._chat.reading(reply):
                return read_moments(
                    reply.text, sentences=content.sentences, window=question.window, duration_ms=content.duration_ms
                )
        except ReplyError as error:
            raise _naming(error, question, self._chat.entry.key) from error


def _request(question: _Question, content: VideoContent, options: Options, room: int) -> ChatRequest:
    window = question.window
    lines = numbered_lines(content.sentences, window, longest=line_limit(room))
    messages = generation_messages(lines, window, total=len(content.sentences), most=question.most, options=options)
    return ChatRequest(GENERATION, messages, generation_schema(window, most=question.most))


def _naming(error: ReplyError, question: _Question, key: str) -> ReplyError:
    return ReplyError(f"{key} on {question}: {error}", **{**error.evidence, "window": str(question)})
