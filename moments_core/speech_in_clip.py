"""What is said in a clip, with its times in the clip's own seconds, as lines for a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby

from moments_core.clip_plan import ClipPlan
from moments_core.content import VideoContent
from moments_core.numbered import MAX_LINE, estimated_tokens, harmless
from moments_core.plain_text import shortened
from moments_core.time import Span, to_seconds
from moments_core.transcript import TimedText

# A word with its times is 12 tokens, a sentence 30. Words matter where a boundary may stop; the sentences between them
# say what the moment is about; what lies deeper inside decides nothing. So a moment of an hour costs what one of four
# minutes costs: about 4,000 tokens at the usual pace.
WORDS_NEAR_MS = 20_000
SENTENCES_NEAR_MS = 120_000


def speech_in_clip(plan: ClipPlan, content: VideoContent, *, room: int | None = None) -> Iterator[str]:
    """`2.31–2.50 launch` a line, in time order: words near the moment's boundaries, sentences between them.

    In at most `room` tokens, if given: what is nearest to a boundary stays. `…` stands for what is left out.
    What the clip's ends cut through is shown too, so a time may lie below 0 or behind the clip's end. Takes words and
    sentences in time order, as every committed transcript has them.
    """
    words, sentences = _shown(content.words, plan.clip), _shown(content.sentences, plan.clip)
    inner = _inside(sentences, plan.moment) if words else sentences
    from_ms = inner[0].start_ms if inner else plan.clip.end_ms
    to_ms = max((text.end_ms for text in inner), default=plan.clip.end_ms)
    before = [word for word in words if word.start_ms < from_ms]
    after = [word for word in words if word.start_ms >= to_ms]
    opening = [text for text in inner if text.start_ms <= plan.moment.start_ms + SENTENCES_NEAR_MS]
    closing = [text for text in inner[len(opening) :] if text.end_ms >= plan.moment.end_ms - SENTENCES_NEAR_MS]
    left_out = [None] if len(opening) + len(closing) < len(inner) else []
    texts = [*before, *opening, *left_out, *closing, *after]
    lines = {at: _line(text, plan) for at, text in enumerate(texts) if text is not None}
    if room is not None:
        lines = _fitting(lines, {at: _apart(text, plan.moment) for at, text in enumerate(texts) if text}, room)
    for is_shown, places in groupby(range(len(texts)), key=lines.__contains__):
        yield from (lines[at] for at in places) if is_shown else ["…"]


def _shown(texts: Sequence[TimedText], clip: Span) -> list[TimedText]:
    return [text for text in texts if text.start_ms < clip.end_ms and text.end_ms > clip.start_ms]


def _inside(sentences: Sequence[TimedText], moment: Span) -> list[TimedText]:
    """The sentences so deep in the moment that no boundary will stop in them."""
    first, last = moment.start_ms + WORDS_NEAR_MS, moment.end_ms - WORDS_NEAR_MS
    return [text for text in sentences if first <= text.start_ms and text.end_ms <= last]


def _apart(text: TimedText, moment: Span) -> int:
    """Milliseconds to the moment's nearer boundary."""
    return min(max(0, text.start_ms - ms, ms - text.end_ms) for ms in (moment.start_ms, moment.end_ms))


def _fitting(lines: Mapping[int, str], apart_ms: Mapping[int, int], room: int) -> dict[int, str]:
    """The lines at the nearest places, as far as there is room."""
    nearest = sorted(lines, key=apart_ms.__getitem__)
    sums = accumulate(estimated_tokens(lines[at]) + 1 for at in nearest)
    return {at: lines[at] for at, tokens in zip(nearest, sums, strict=True) if tokens <= room}


def _line(text: TimedText, plan: ClipPlan) -> str:
    start, end = (to_seconds(plan.to_clip(ms)) for ms in (text.start_ms, text.end_ms))
    return f"{start:.2f}–{end:.2f} {shortened(harmless(text.text), MAX_LINE)}"
