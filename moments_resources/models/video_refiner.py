"""Moments refined by a vision model that watches a small copy of each clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, ClassVar

from moments_core.content import ShownMoment, VideoContent
from moments_core.moment import Refined
from moments_core.prompts import REFINE_FROM_VIDEO, Message, boundaries_schema, refine_video_messages
from moments_resources.media.proxy import PROXY_RECIPE, make_proxy
from moments_resources.models.chat import ChatRequest
from moments_resources.models.refining import refined_by, room_for_speech
from moments_resources.models.video_addresses import Address, VideoAddresses

if TYPE_CHECKING:
    from moments_core.model_entry import ModelEntry
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.models.chat import ChatModel
    from moments_resources.step import Step
    from moments_resources.store.interface import ObjectStore

MOST_ENCODINGS = 2  # at once in one step, which may have eight calls under way: each keeps a core busy


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
        return {**self._chat.parameters_with(REFINE_FROM_VIDEO), "proxy": PROXY_RECIPE}

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
        copies = _Copies(self._chat.entry, ffmpeg=self._ffmpeg, store=self._store, step=self._step)
        asked = [
            (one, _request(one, content, copies.address(one, number), self._chat.entry))
            for number, one in enumerate(shown, start=1)
        ]
        return refined_by(self._chat, asked, on_progress=on_progress)


class _Copies:
    """Where the model finds the small copy of each clip. The files and objects are gone when the step ends.

    A copy is made when its address is first asked for: a question that was answered before needs none. That is in a
    thread of its own call, before the call has its turn.
    """

    def __init__(self, entry: ModelEntry, *, ffmpeg: FfmpegRunner, store: ObjectStore, step: Step) -> None:
        self._ffmpeg = ffmpeg
        self._step = step
        self._folder = step.folder()
        where = f"videos/{step.video_id}/{step.request.asset}"
        self._addresses = VideoAddresses(entry, store, folder=where, on_end=step.on_end)
        self._encoding = BoundedSemaphore(MOST_ENCODINGS)
        self._noting = Lock()
        self._bytes, self._cpu_s = 0, 0.0

    def address(self, shown: ShownMoment, number: int) -> Address:
        """`number`: of the moment, for the name of its copy."""
        # Once: the calls of one question follow each other, and each asks for an address of its own.
        made = cache(partial(self._made, shown, number))

        def address() -> str:
            return made()()

        return address

    def _made(self, shown: ShownMoment, number: int) -> Address:
        with self._room():
            # The attempt's number: the end of an attempt must not take away what another one shows.
            proxy = self._folder / f"proxy-{self._step.attempt.attempt_id}-{number}.mp4"
            report = make_proxy(self._ffmpeg, Path(shown.clip), proxy, on_progress=_end_if_cancelled)
        with self._noting:
            self._bytes, self._cpu_s = self._bytes + report.bytes, self._cpu_s + report.cpu_s
            self._step.measure(proxy_bytes=self._bytes, proxy_cpu_s=round(self._cpu_s, 2))
        return self._addresses.of(proxy)

    @contextmanager
    def _room(self) -> Iterator[None]:
        while not self._encoding.acquire(timeout=1):
            _end_if_cancelled()
        try:
            _end_if_cancelled()
            yield
        finally:
            self._encoding.release()


def _end_if_cancelled(_done_ms: int = 0) -> None:
    """Ends the work of this thread, and an ffmpeg with it, once the step that it works for has ended."""
    from anyio.from_thread import check_cancelled

    check_cancelled()


def _request(one: ShownMoment, content: VideoContent, address: Address, model: ModelEntry) -> ChatRequest:
    nothing_said = VideoContent(duration_ms=content.duration_ms)
    silent = refine_video_messages(one.moment, one.plan, nothing_said, video_url="")
    # The server alone knows how many tokens it makes of the pictures: they have the other half.
    room = room_for_speech(model, silent) // 2

    def messages(video_url: str) -> list[Message]:
        return refine_video_messages(one.moment, one.plan, content, video_url=video_url, room=room)

    return ChatRequest(
        REFINE_FROM_VIDEO,
        lambda: messages(address()),
        boundaries_schema(one.plan.clip.length_ms),
        # What the model sees, whatever address it stands at: a retry asks the same question and pays nothing twice.
        identity={"clip_sha256": one.clip_sha256, "proxy": PROXY_RECIPE, "messages": messages("")},
    )
