"""The local moment finder: no model, no download, and the same video gives the same moments again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moments_core.content import VideoContent
from moments_core.finder.breaks import break_evidence
from moments_core.finder.features import feature_columns
from moments_core.finder.passages import Passage, passages
from moments_core.finder.quiet import NOTE, quiet_moments, silence_at_end
from moments_core.finder.salience import Part, parts_from, scores
from moments_core.finder.segmenter import Track, bounded, segment
from moments_core.finder.steering import steer
from moments_core.finder.titles import titles
from moments_core.finder.vectors import TopicSpace, smoothed, topic_space
from moments_core.finder.weights import Weights, shipped_weights
from moments_core.moment import Found, Moment
from moments_core.options import DEFAULT_MIN_SECONDS, Options
from moments_core.plain_text import counted
from moments_core.time import Span, to_ms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

LONG_SILENCE_MS = 3_000  # a moment's last silence is cut off from this length on; shorter ones are breath
BREATH_MS = 300  # of it that stays
QUERY_SHARE = 0.75  # of a steered moment's score that is its relevance; the rest is what it is worth without


@dataclass(frozen=True, slots=True)
class _Talk:
    """A video's passages with all that was computed from them."""

    said: Sequence[Passage]
    space: TopicSpace
    evidence: Vector
    seen_or_heard: bool


class LocalFinder:
    """Cuts what is said into titled, scored moments that follow one another; `MomentFinder` without a model.

    Moments tile the speech: each lasts to the next one's start, less a long silence at its end. Without
    `min_seconds` none is shorter than 25 s where the video allows it; none is ever longer than `max_seconds`;
    `max_moments` keeps those with the best scores. A score is relative to the video: 0.5 is its average moment.

    A `query` keeps only the moments that speak of it, tightens long ones around the place, and lets relevance
    make three quarters of their score. A query that nothing relates to changes nothing: all moments are
    returned and the note says so, as an empty answer would look like a failure.

    Rare scene cuts and long pauses count beside the words; they alone can add moments to the usual number.

    A video without speech is cut at scene changes and changes of loudness.
    """

    def __init__(self, weights: Weights | None = None) -> None:
        self._weights = weights

    @property
    def recipe(self) -> str:
        return f"local-2-{self._fitted().fingerprint}"

    def find(
        self,
        content: VideoContent,
        options: Options,
        *,
        on_progress: Callable[[float], None] | None = None,  # noqa: ARG002 - done in a second
    ) -> Found:
        """Moments in time order, inside the video, none overlapping another."""
        if content.duration_ms <= 0:
            return Found((), "The video has no length: there is nothing to find.")
        said = passages(content)
        if not said:
            quiet = quiet_moments(content, least_s=_least_s(options), most_s=options.max_seconds)
            kept = [replace(moment, span=_shortened(moment.span, options)) for moment in quiet]
            return Found(_best(kept, options.max_moments), NOTE)
        return self._find_in_speech(content, said, options)

    def _fitted(self) -> Weights:
        return self._weights or shipped_weights()

    def _find_in_speech(self, content: VideoContent, said: Sequence[Passage], options: Options) -> Found:
        talk = self._read(said, content)
        parts = _parts(talk, options)
        worth = scores(parts, said, talk.space, talk.evidence)
        remark = ""
        if options.query is not None:
            parts, worth, remark = _steered(options.query, parts, worth, talk, _least_s(options))
        spans = [_shortened(_span(part, said, content, options), options) for part in parts]
        named = titles(parts, said)
        moments = [Moment(*one) for one in zip(spans, named, worth, strict=True)]
        kept = _best(moments, options.max_moments)
        return Found(kept, f"{counted(len(kept), 'moment')} from {counted(len(said), 'sentence')}{remark}")

    def _read(self, said: Sequence[Passage], content: VideoContent) -> _Talk:
        space = topic_space([passage.terms for passage in said])
        words = bounded(self._fitted().evidence(feature_columns(said, space)))
        breaks = break_evidence(said, content, words)
        return _Talk(said, space, words if breaks is None else words + breaks, breaks is not None)


def _least_s(options: Options) -> float:
    """The default gives way to a `max_seconds` that leaves it no room."""
    if options.min_seconds is not None:
        return options.min_seconds
    return min(DEFAULT_MIN_SECONDS, (options.max_seconds or DEFAULT_MIN_SECONDS * 2) / 2)


def _parts(talk: _Talk, options: Options) -> list[Part]:
    import numpy as np

    last_end = max(talk.said[-1].start_ms + 1, *(passage.end_ms for passage in talk.said))
    bounds = np.array([*(passage.start_ms for passage in talk.said), last_end], float) / 1000
    track = Track(smoothed(talk.space.topics), talk.evidence, bounds, elastic=talk.seen_or_heard)
    return parts_from(segment(track, least_s=_least_s(options), most_s=options.max_seconds), len(talk.said))


def _steered(
    query: str, parts: Sequence[Part], worth: Sequence[float], talk: _Talk, least_s: float
) -> tuple[list[Part], list[float], str]:
    """Parts and scores as the query wants them, and what the note says about it."""
    found = steer(query, parts, talk.said, talk.space, least_s)
    shown = " ".join(query.split())
    if not found:
        return list(parts), list(worth), f'; nothing relates to "{shown}", so all are shown'
    at = {part.first: score for part, score in zip(parts, worth, strict=True)}
    firsts = sorted(at)
    own = [at[max(first for first in firsts if first <= one.part.first)] for one in found]
    mixed = [
        round(QUERY_SHARE * one.relevance + (1 - QUERY_SHARE) * score, 3) for one, score in zip(found, own, strict=True)
    ]
    return [one.part for one in found], mixed, f'; kept what relates to "{shown}"'


def _span(part: Part, said: Sequence[Passage], content: VideoContent, options: Options) -> Span:
    """From the part's first passage to the next part, less a long silence."""
    start = said[part.first].start_ms
    end = said[part.last].start_ms if part.last < len(said) else max(passage.end_ms for passage in said[part.first :])
    span = Span(start, max(end, start + 1))
    end = _without_silence(span, said[part.last - 1].start_ms, sorted(content.silences), to_ms(_least_s(options)))
    return Span(start, end)


def _shortened(span: Span, options: Options) -> Span:
    """The start of the span, where one sentence or scene alone lasts longer than asked for."""
    if options.max_seconds is None:
        return span
    return Span(span.start_ms, min(span.end_ms, span.start_ms + max(1, to_ms(options.max_seconds))))


def _without_silence(span: Span, last_start_ms: int, silences: Sequence[Span], least_ms: int) -> int:
    silent_from = silence_at_end(span, silences, from_ms=last_start_ms)
    if silent_from is None or span.end_ms - silent_from < LONG_SILENCE_MS:
        return span.end_ms
    return max(silent_from + BREATH_MS, min(span.end_ms, span.start_ms + least_ms))


def _best(moments: Sequence[Moment], most: int | None) -> tuple[Moment, ...]:
    """The `most` best by score, the earlier first where equal; in time order."""
    ranked = sorted(moments, key=lambda moment: -moment.score)[:most]
    return tuple(sorted(ranked, key=lambda moment: moment.span))
