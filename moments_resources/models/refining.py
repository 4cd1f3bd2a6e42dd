"""Asking a model for the boundaries of moments, in one request a moment; how its clip is shown is the refiner's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from moments_core.content import ShownMoment
from moments_core.errors import ReplyError
from moments_core.moment import Refined
from moments_core.numbered import TEMPLATE_TOKENS, estimated_tokens, room_for_sentences
from moments_core.refinement import judged
from moments_core.replies import read_boundaries
from moments_resources.models.chat import ChatReply, ChatRequest
from moments_resources.models.progress import as_share

if TYPE_CHECKING:
    from moments_core.model_entry import ModelEntry
    from moments_resources.models.chat import ChatModel


def refined_by(
    chat: ChatModel,
    asked: Sequence[tuple[ShownMoment, ChatRequest]],
    *,
    on_progress: Callable[[float], None] | None = None,
) -> list[Refined]:
    """What the model makes of each moment, in the same order.

    A reply that can't be read leaves its moment as it was, and the note says so; a model none of whose several
    replies can be read does not do its work: ReplyError.
    """
    replies = chat.ask_all([request for _, request in asked], on_done=as_share(on_progress, of=len(asked)))
    answers = [_answer(chat, reply, shown) for reply, (shown, _) in zip(replies, asked, strict=True)]
    failures = [answer for answer in answers if isinstance(answer, ReplyError)]
    if len(failures) == len(answers) > 1:
        raise ReplyError(
            f"{chat.entry.key} was asked about {len(answers)} moments, and no reply can be read. {failures[0]}",
            **failures[0].evidence,
        )
    return [
        Refined(shown.plan.moment, f"unchanged: {answer}") if isinstance(answer, ReplyError) else answer
        for answer, (shown, _) in zip(answers, asked, strict=True)
    ]


def room_for_speech(model: ModelEntry, silent: Sequence[Mapping[str, object]]) -> int:
    """Tokens for what is said in a clip, beside the messages as they are when nothing is.

    Raises SettingsError where too little is left.
    """
    around = sum(estimated_tokens(str(message["content"])) for message in silent)
    return room_for_sentences(model, prompt_tokens=around + TEMPLATE_TOKENS)


def _answer(chat: ChatModel, reply: ChatReply, shown: ShownMoment) -> Refined | ReplyError:
    try:
        with chat.reading(reply):
            return judged(read_boundaries(reply.text), shown.plan, by=chat.entry.key)
    except ReplyError as error:
        return error
