"""One real call of a model, for `moments models test`: does it answer, and in the form that we ask for?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from moments_core.errors import MomentsError, ReplyError
from moments_core.json_in_text import json_answers
from moments_core.model_entry import ModelEntry
from moments_core.prompts import Prompt
from moments_resources.media.flac import SAMPLE_RATE, encoded_flac
from moments_resources.models.caller import ModelCaller
from moments_resources.models.chat import ChatModel, ChatRequest
from moments_resources.models.checking import Step
from moments_resources.models.parakeet import ParakeetSpeech
from moments_resources.models.trial_caller import QUEUE_S, trial_caller

if TYPE_CHECKING:
    from moments_resources.database import Database

_SOUND_MS = 1_000

PROMPT = Prompt("trial", "1", 'Answer with one JSON object and nothing else: {"answer": 7}')
_EXPECTED = {"answer": 7}
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 7, "maximum": 7}},
    "required": ["answer"],
    "additionalProperties": False,
}


def try_model(entry: ModelEntry, *, database: Database, queue_s: float = QUEUE_S) -> Step:
    """Call the model once, over the way and in the turn of every call: a few tokens, or a second of silence."""
    try:
        with trial_caller(entry, database=database, queue_s=queue_s) as caller:
            return Step("call", True, _heard(caller) if entry.kind == "asr" else _answered(caller))
    except MomentsError as error:
        return Step("call", False, str(error))


def _heard(caller: ModelCaller) -> str:
    with tempfile.TemporaryDirectory(prefix="moments-trial-") as folder:
        sound = Path(folder) / "silence.flac"
        sound.write_bytes(encoded_flac(bytes(2 * SAMPLE_RATE * _SOUND_MS // 1000)))
        ParakeetSpeech(caller).transcribe(sound, duration_ms=_SOUND_MS, silences=())
    return "It took in a second of silence, and its reply can be read."


def _answered(caller: ModelCaller) -> str:
    chat = ChatModel(caller)
    (reply,) = chat.ask_all([ChatRequest(PROMPT, [{"role": "user", "content": PROMPT.text}], _SCHEMA)])
    with chat.reading(reply):
        if _EXPECTED not in [answer.value for answer in json_answers(reply.text)]:
            raise ReplyError("It answers, but not in the form that it was asked for.", reply=reply.text[:2000])
    return "It answers what it is asked for."
