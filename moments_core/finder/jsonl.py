"""The wire format of `moments find FILE`: one transcript a line in, one list of moments a line out."""

from __future__ import annotations

import json
from typing import Any, Final

from moments_core.content import VideoContent
from moments_core.errors import SourceError
from moments_core.moment import Found
from moments_core.time import to_ms, to_seconds
from moments_core.transcript import Sentence

MOST_SECONDS: Final = 1_000_000.0  # 11 days; a larger time is a unit mistaken (milliseconds) or an attack
_SHAPE: Final = "[start_s, end_s, speaker, turn_start, text]"


def parse_line(line: str, number: int) -> tuple[str, VideoContent]:
    """Read line `number` (from 1) as a video's id and content.

    Keys other than `id`, `duration` and `sentences` are ignored; times are seconds. A missing duration is the end
    of the last sentence. A sentence without text is left out, one of no length lasts a millisecond.
    Raises SourceError that names the line and the field.
    """
    row = _json_object(line, number)
    video_id = row.get("id")
    if not isinstance(video_id, str) or not video_id.strip():
        raise _refused(number, "id", "must be a text that is not empty", video_id)
    sentences = _sentences(row.get("sentences"), number)
    last_ms = max((sentence.end_ms for sentence in sentences), default=0)
    duration = row.get("duration")
    duration_ms = last_ms if duration is None else to_ms(_seconds(duration, number, "duration"))
    return _writable(video_id), VideoContent(duration_ms, sentences)


def result_line(video_id: str, found: Found) -> dict[str, object]:
    """The object that goes out for one video; times in seconds."""
    return {
        "id": video_id,
        "moments": [
            {
                "start_time": to_seconds(moment.span.start_ms),
                "end_time": to_seconds(moment.span.end_ms),
                "title": moment.title,
                "score": moment.score,
            }
            for moment in found.moments
        ],
    }


def _json_object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested thousands deep
        raise SourceError(f"Line {number} is not JSON: write one object a line.", line=number) from error
    if not isinstance(row, dict):
        raise SourceError(f"Line {number} is not a JSON object: write one {{...}} a line.", line=number)
    return row


def _sentences(value: object, number: int) -> tuple[Sentence, ...]:
    if not isinstance(value, list):
        raise _refused(number, "sentences", f"must be a list of {_SHAPE}", value)
    read = (_sentence(item, number, f"sentences[{index}]") for index, item in enumerate(value))
    return tuple(sentence for sentence in read if sentence is not None)


def _sentence(item: object, number: int, field: str) -> Sentence | None:
    if not isinstance(item, list) or len(item) != 5:
        raise _refused(number, field, f"must be {_SHAPE}", item)
    start, end = to_ms(_seconds(item[0], number, f"{field}[0]")), to_ms(_seconds(item[1], number, f"{field}[1]"))
    if end < start:
        raise _refused(number, f"{field}[1]", "must not lie before its start", item[1])
    speaker, turn_start, text = item[2], item[3], item[4]
    if speaker is not None and not isinstance(speaker, str):
        raise _refused(number, f"{field}[2]", "must be a speaker's name or null", speaker)
    if turn_start not in (None, 0, 1):
        raise _refused(number, f"{field}[3]", "must be true or false", turn_start)
    if not isinstance(text, str):
        raise _refused(number, f"{field}[4]", "must be a text", text)
    if not text.strip():
        return None
    return Sentence(
        start_ms=start, end_ms=max(end, start + 1), text=_writable(text), speaker=speaker, turn_start=bool(turn_start)
    )


def _seconds(value: object, number: int, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(number, field, "must be a number of seconds", value)
    if not 0 <= value <= MOST_SECONDS:  # also refuses NaN, which json reads and no comparison holds for
        raise _refused(number, field, f"must lie between 0 and {MOST_SECONDS:,.0f} seconds", value)
    return float(value)


def _writable(text: str) -> str:
    """A lone half of a surrogate pair is legal in JSON, but no file or database takes it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _refused(number: int, field: str, rule: str, value: object) -> SourceError:
    return SourceError(f"Line {number}: {field} {rule}.", line=number, field=field, value=repr(value)[:80])
