"""What the Dagster UI shows of a result: Markdown, short, safe to render whatever the text says."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from moments_core.time import clock

if TYPE_CHECKING:
    from moments_core.moment import Moment, Refined
    from moments_core.transcript import Transcript

_MOST_ROWS = 40  # the event log keeps every preview for good
_MOST_SENTENCES = 30


def transcript_preview(transcript: Transcript) -> str:
    """The first sentences, each with its time."""
    if not transcript.has_speech:
        return "_No speech was found._"
    lines = [f"**{clock(item.start_ms)}** {_plain(item.text)}" for item in transcript.sentences[:_MOST_SENTENCES]]
    return "\n\n".join([*lines, *_more(len(transcript.sentences) - _MOST_SENTENCES, "sentences")])


def moments_preview(moments: Sequence[Moment]) -> str:
    """A table of the moments."""
    rows = ([clock(m.span.start_ms), clock(m.span.end_ms), _plain(m.title), f"{m.score:.2f}"] for m in moments)
    return _table(("start", "end", "title", "score"), rows, len(moments)) if moments else "_No moments._"


def refined_preview(pairs: Sequence[tuple[Moment, Refined]]) -> str:
    """A table of what refinement did to each moment."""
    rows = (
        [
            _plain(old.title),
            _shift(new.span.start_ms - old.span.start_ms),
            _shift(new.span.end_ms - old.span.end_ms),
            _plain(new.note),
        ]
        for old, new in pairs
    )
    return _table(("title", "start", "end", "what moved"), rows, len(pairs)) if pairs else "_No moments._"


def picture(jpeg: bytes, name: str) -> str:
    """A JPEG inside the Markdown itself; keep it under 20 kB."""
    return f"![{name}](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})" if jpeg else "_No picture._"


def link(url: str) -> str:
    """A web address that can be followed."""
    return f"[{_plain(url)}](<{url.replace('<', '%3C').replace('>', '%3E')}>)"


def _shift(milliseconds: int) -> str:
    return f"{milliseconds / 1000:+.2f} s" if milliseconds else "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], count: int) -> str:
    shown = [row for row, _ in zip(rows, range(_MOST_ROWS), strict=False)]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *shown)]
    return "\n".join([*lines, *(["", *_more(count - _MOST_ROWS, "rows")] if count > _MOST_ROWS else [])])


def _more(count: int, what: str) -> list[str]:
    return [f"_… and {count} more {what}._"] if count > 0 else []


def _plain(text: str) -> str:
    """Text from outside as Markdown that can't become a link, a picture or a table of its own."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#|!~" else letter for letter in " ".join(text.split()))
