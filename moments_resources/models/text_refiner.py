"""Moments refined by a chat model that reads what is said in their clips; no clip is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from moments_core.content import ShownMoment, VideoContent
from moments_core.moment import Refined
from moments_core.prompts import REFINE_FROM_TEXT, boundaries_schema, refine_text_messages
from moments_core.speech_in_clip import speech_in_clip
from moments_resources.models.chat import ChatRequest
from moments_resources.models.refining import refined_by, room_for_speech

if TYPE_CHECKING:
    from moments_core.model_entry import ModelEntry
    from moments_resources.models.chat import ChatModel


class TextRefiner:
    """`MomentRefiner` by any chat model. Each of its calls waits for the model's own turn."""

    takes_turns: ClassVar[bool] = True

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat

    @property
    def recipe(self) -> str:
        return f"{self._chat.entry.key} {REFINE_FROM_TEXT.label}"

    @property
    def parameters(self) -> dict[str, object]:
        """All that decides the boundaries besides the moment and its transcript."""
        return self._chat.parameters_with(REFINE_FROM_TEXT)

    def refine_all(
        self,
        shown: Sequence[ShownMoment],
        content: VideoContent,
        *,
        on_progress: Callable[[float], None] | None = None,
    ) -> list[Refined]:
        """New boundaries for each moment, in the same order, never outside of its clip; the note says what moved.

        A moment in whose clip nothing is said stays, and no model is asked. Raises ReplyError where none of several
        replies can be read, SettingsError where the model's context has no room for a transcript, and what
        `ChatModel.ask_all` raises.
        """
        spoken = {at: one for at, one in enumerate(shown) if any(speech_in_clip(one.plan, content))}
        asked = [(one, _request(one, content, self._chat.entry)) for one in spoken.values()]
        answers = refined_by(self._chat, asked, on_progress=on_progress)
        refined = dict(zip(spoken, answers, strict=True))
        return [refined.get(at) or _silent(one) for at, one in enumerate(shown)]


def _request(shown: ShownMoment, content: VideoContent, model: ModelEntry) -> ChatRequest:
    silent = refine_text_messages(shown.moment, shown.plan, VideoContent(duration_ms=content.duration_ms))
    messages = refine_text_messages(shown.moment, shown.plan, content, room=room_for_speech(model, silent))
    return ChatRequest(REFINE_FROM_TEXT, messages, boundaries_schema(shown.plan.clip.length_ms))


def _silent(shown: ShownMoment) -> Refined:
    return Refined(shown.plan.moment, "unchanged: nothing is said in its clip")
