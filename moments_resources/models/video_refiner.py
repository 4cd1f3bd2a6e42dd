"""Moments refined by a vision model that watches a small copy of each clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from moments_core.content import ShownMoment, VideoContent
from moments_core.moment import Refined
from moments_core.prompts import REFINE_FROM_VIDEO, Message, boundaries_schema, refine_video_messages
from moments_resources.media.proxy import PROXY_RECIPE, make_proxy
from moments_resources.models.chat import ChatRequest
from moments_resources.models.refining import refined_by
from moments_resources.models.video_addresses import Address, VideoAddresses

if TYPE_CHECKING:
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.models.chat import ChatModel
    from moments_resources.step import Step
    from moments_resources.store.interface import ObjectStore

_PROXIES_SHARE = 0.1  # of the progress: a proxy takes seconds, a model a minute


class VideoRefiner:
    """`MomentRefiner` by a model that takes video. Each of its calls waits for the model's own turn."""

    takes_turns: ClassVar[bool] = True

    def __init__(self, chat: ChatModel, *, ffmpeg: FfmpegRunner, store: ObjectStore, step: Step) -> None:
        self._chat = chat
        self._ffmpeg = ffmpeg
        self._store = store
        self._step = step

    @property
    def recipe(self) -> str:
        return f"{self._chat.entry.key} {REFINE_FROM_VIDEO.label}"

    @property
    def parameters(self) -> dict[str, object]:
        """All that decides the boundaries besides the moment, its clip and its transcript."""
        return {
            **self._chat.parameters,
            "prompt": REFINE_FROM_VIDEO.label,
            "prompt_sha256": REFINE_FROM_VIDEO.sha256,
            "proxy": PROXY_RECIPE,
        }

    def refine_all(
        self,
        shown: Sequence[ShownMoment],
        content: VideoContent,
        *,
        on_progress: Callable[[float], None] | None = None,
    ) -> list[Refined]:
        """New boundaries for each moment, in the same order, never outside of its clip; the note says what moved.

        Raises MediaError for a clip that can't be decoded, ReplyError where none of several replies can be read, and
        what the store and `ChatModel.ask_all` raise.
        """
        if not shown:
            return []
        tell = on_progress or (lambda _: None)
        asked = [
            (one, _request(one, content, address))
            for one, address in zip(shown, self._addresses(shown, tell), strict=True)
        ]
        return refined_by(
            self._chat, asked, on_progress=lambda done: tell(_PROXIES_SHARE + (1 - _PROXIES_SHARE) * done)
        )

    def _addresses(self, shown: Sequence[ShownMoment], tell: Callable[[float], None]) -> list[Address]:
        """Where the model finds the proxy of each clip; the files and objects are gone when the step ends.

        All are made before the first call: a call holds its place at the model while it lasts.
        """
        step, folder = self._step, self._step.folder()
        where = f"videos/{step.video_id}/{step.request.asset}"
        addresses = VideoAddresses(self._chat.entry, self._store, folder=where, on_end=step.on_end)
        made: list[Address] = []
        size, cpu_s = 0, 0.0
        for number, one in enumerate(shown, start=1):
            # The attempt's number: the end of an attempt must not take away what another one shows.
            proxy = folder / f"proxy-{step.attempt.attempt_id}-{number}.mp4"
            report = make_proxy(self._ffmpeg, Path(one.clip), proxy)
            made.append(addresses.of(proxy))
            size, cpu_s = size + report.bytes, cpu_s + report.cpu_s
            tell(_PROXIES_SHARE * number / len(shown))
        step.measure(proxy_bytes=size, proxy_cpu_s=round(cpu_s, 2))
        return made


def _request(one: ShownMoment, content: VideoContent, address: Address) -> ChatRequest:
    def messages(video_url: str) -> list[Message]:
        return refine_video_messages(one.moment, one.plan, content, video_url=video_url)

    return ChatRequest(
        REFINE_FROM_VIDEO,
        lambda: messages(address()),
        boundaries_schema(one.plan.clip.length_ms),
        # What the model sees, whatever address it stands at: a retry asks the same question and pays nothing twice.
        identity={"clip_sha256": one.clip_sha256, "proxy": PROXY_RECIPE, "messages": messages("")},
    )
