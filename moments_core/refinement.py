"""Whether a model's boundaries for a moment are taken: the one decision behind all refiners that ask a model."""

from __future__ import annotations

from moments_core.clip_plan import PADDING_MS, ClipPlan
from moments_core.moment import Refined
from moments_core.replies import Boundaries
from moments_core.snapping import MIN_LENGTH_MS
from moments_core.time import Span, to_seconds

# Models answer in halves of a second, and the end of a clip is rarely one: so little outside of it is its edge.
ROUNDING_MS = 500


def furthest_ms(moment: Span) -> int:
    """How far an end may move: the clip's padding plus a third of the moment.

    Outwards the clip itself is the limit. Inwards a third at each end leaves the middle of what was found; a model
    that takes more away means another moment.
    """
    return PADDING_MS + moment.length_ms // 3


def judged(given: Boundaries, plan: ClipPlan, *, by: str) -> Refined:
    """The moment with the boundaries that the model `by` gave in clip time; the original ones where those are wrong.

    Wrong are boundaries outside of the clip, in the wrong order, less than a second apart, with nothing of the moment
    between them, and an end that moved further than `furthest_ms`. The note says what moved, or what was wrong, with
    its numbers.
    """
    fault = _fault(given, plan)
    if fault:
        return Refined(plan.moment, f"unchanged: {by} {fault}")
    end = min(given.end_ms, plan.clip.length_ms)
    span = Span(plan.to_video(max(given.start_ms, 0)), plan.to_video(end))
    return Refined(span, _note(plan.moment, span, by))


def _fault(given: Boundaries, plan: ClipPlan) -> str:
    """What is wrong with the boundaries; empty where nothing is."""
    shown = f"{_s(given.start_ms)}–{_s(given.end_ms)} s"
    if given.end_ms <= given.start_ms:
        return f"gave {shown}, which ends before it starts"
    if given.start_ms < -ROUNDING_MS or given.end_ms > plan.clip.length_ms + ROUNDING_MS:
        return f"gave {shown} in a clip of {_s(plan.clip.length_ms)} s"
    if min(given.end_ms, plan.clip.length_ms) - max(given.start_ms, 0) < MIN_LENGTH_MS:
        return f"gave {shown}, which is less than {_s(MIN_LENGTH_MS)} s long"
    now, most = plan.moment_in_clip, furthest_ms(plan.moment)
    if given.end_ms <= now.start_ms or given.start_ms >= now.end_ms:
        return f"gave {shown}, and the moment is at {_s(now.start_ms)}–{_s(now.end_ms)} s"
    moved = max(abs(given.start_ms - now.start_ms), abs(given.end_ms - now.end_ms))
    return f"moved an end by {_s(moved)} s, and at most {_s(most)} s are taken" if moved > most else ""


def _note(before: Span, after: Span, by: str) -> str:
    moved = [
        f"{side} {to_seconds(new - old):+.2f} s".replace("-", "−")
        for side, old, new in (("start", before.start_ms, after.start_ms), ("end", before.end_ms, after.end_ms))
        if new != old
    ]
    return f"{'; '.join(moved)} by {by}" if moved else f"unchanged by {by}"


def _s(ms: int) -> str:
    return f"{to_seconds(ms):.2f}"
