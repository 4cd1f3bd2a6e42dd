"""Progress of a maker that asks a model: calls that are done, as a share of the work."""

from __future__ import annotations

from collections.abc import Callable


def as_share(on_progress: Callable[[float], None] | None, *, of: int) -> Callable[[int], None] | None:
    """Takes how many of `of` are done and tells `on_progress` 0..1."""
    return None if on_progress is None else lambda done: on_progress(done / of)
