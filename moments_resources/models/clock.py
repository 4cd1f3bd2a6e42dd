"""How far a vision model's clock is off: it watches a clip whose one event has a known time, and says when that was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core import reply_fields
from moments_core.json_in_text import json_answers, unreadable
from moments_core.model_entry import ModelEntry
from moments_core.prompts import Prompt
from moments_core.time import to_seconds
from moments_resources.media.canary import Canary, make_canary
from moments_resources.models.chat import ChatModel, ChatRequest
from moments_resources.models.trial_caller import trial_caller
from moments_resources.models.video_addresses import Address, VideoAddresses, inline

if TYPE_CHECKING:
    from moments_resources.database import Database
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.store.interface import ObjectStore

# A server that looks at 2 pictures a second can be half a second off and do no better.
MOST_OFF_MS = 500

PROMPT = Prompt(
    "clock",
    "1",
    """\
You watch a clip that shows one colour, and from some moment on another one. Say at which second of the clip the \
colour changes, as exactly as you can.

Answer with one JSON object and nothing else, in this form:
{"change_time": 3.75}""",
)


def measured_clock_error_ms(entry: ModelEntry, *, database: Database, store: ObjectStore, ffmpeg: FfmpegRunner) -> int:
    """`clock_error_ms` of a model by itself, for `moments models test`: over the way, and in the turn, of every call.

    The clip goes the way that clips go, so this tells too whether the model can open our addresses. One call of a few
    thousand tokens; nothing of it is kept. Raises what a call of the model raises.
    """
    with ExitStack() as held:
        caller = held.enter_context(trial_caller(entry, database=database))
        addresses = VideoAddresses(entry, store, folder="checks/clock", on_end=held.callback)
        return clock_error_ms(ChatModel(caller), ffmpeg=ffmpeg, address_of=addresses.of)


def clock_error_ms(
    chat: ChatModel, *, ffmpeg: FfmpegRunner, address_of: Callable[[Path], Address] | None = None
) -> int:
    """Milliseconds by which the model sees an event too late; negative: too early.

    `address_of`: how it is shown the clip; inline, if not given. Raises ReplyError where it names no time, and what
    `ChatModel.ask_all` raises.
    """
    with tempfile.TemporaryDirectory(prefix="moments-clock-") as folder:
        clip = Path(folder) / "clock.mp4"
        canary = make_canary(ffmpeg, clip)
        address = address_of(clip) if address_of else lambda: inline(clip)
        (reply,) = chat.ask_all([_request(address, canary)])
        with chat.reading(reply):
            return _time_ms(reply.text) - canary.change_ms


def clock_sentence(error_ms: int) -> str:
    """What an error means, and what to do where it is too large."""
    if abs(error_ms) <= MOST_OFF_MS:
        return f"It told the time of an event in a clip to {abs(error_ms) / 1000:.2f} s."
    side = "late" if error_ms > 0 else "early"
    return (
        f"It sees what happens in a clip {abs(error_ms) / 1000:.2f} s too {side}, and its boundaries would be off as "
        "much: see how its server samples video (pictures a second), or refine by a model that reads the transcript."
    )


def _request(address: Address, canary: Canary) -> ChatRequest:
    length_s = to_seconds(canary.duration_ms)
    time = {"type": "number", "minimum": 0, "maximum": length_s}
    schema = {
        "type": "object",
        "properties": {"change_time": time},
        "required": ["change_time"],
        "additionalProperties": False,
    }
    say = {"type": "text", "text": f"The clip is {length_s:g} seconds long. Answer in JSON now."}
    return ChatRequest(
        PROMPT,
        lambda: [
            {"role": "system", "content": PROMPT.text},
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": address()}}, say]},
        ],
        schema,
        identity={"clip": "clock"},
    )


def _time_ms(reply: str) -> int:
    values = [answer.value for answer in json_answers(reply)]
    given = [value["change_time"] for value in values if isinstance(value, Mapping) and "change_time" in value]
    times = {reply_fields.time_ms(value) for value in given}
    if len(times) != 1 or (said := times.pop()) is None:
        raise unreadable("does not say when the colour changes", reply)
    return said
