"""Budgets of model calls: how much of seconds, tokens and money a video or a day may take, and what a call may take.

A call is counted by the most that it may take before it is made, and by what it took once that is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from moments_core.model_entry import ModelEntry
from moments_core.numbered import context_tokens

Limit: TypeAlias = Literal["seconds", "tokens", "cost"]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Seconds of model calls, tokens in and out, and cost in the currency of the prices."""

    seconds: float = 0.0
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.seconds + other.seconds, self.tokens + other.tokens, self.cost + other.cost)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be taken together; None: no limit."""

    seconds: float | None = None
    tokens: int | None = None
    cost: float | None = None

    @property
    def is_set(self) -> bool:
        return any(getattr(self, name) is not None for name in LIMITS)

    def passed_by(self, amounts: Amounts) -> Limit | None:
        """The first limit that is lower than that; None where all of it fits."""
        for name in LIMITS:
            limit = getattr(self, name)
            if limit is not None and getattr(amounts, name) > limit * (1 + _ROUNDING):
                return name
        return None


@dataclass(frozen=True, slots=True)
class Budgets:
    """Of each video, and of each day (UTC) for all videos together."""

    video: Budget = Budget()
    day: Budget = Budget()

    @property
    def are_set(self) -> bool:
        return self.video.is_set or self.day.is_set


NOTHING = Amounts()
NO_LIMITS = Budgets()
LIMITS: tuple[Limit, ...] = ("seconds", "tokens", "cost")
_PART = re.compile(r"\s*([a-z]+)\s*=\s*(\d{1,15}(?:\.\d{1,9})?)\s*")
_ROUNDING = 1e-9  # ten calls of 0.1 are 1.0, whatever their floats add up to


def parse_budget(text: str) -> Budget:
    """`cost=5,tokens=200000,seconds=600`, any of the three; an empty text is no limit.

    Raises ValueError naming the part that is wrong.
    """
    found: dict[str, float] = {}
    for part in filter(str.strip, text.split(",")):
        match = _PART.fullmatch(part)
        if match is None or not _is_limit(match[1], match[2]):
            known = ", ".join(LIMITS)
            raise ValueError(f"{part.strip()!r} is no limit such as cost=2.5 or tokens=200000 for one of: {known}")
        if match[1] in found:
            raise ValueError(f"{part.strip()!r} is the second limit for {match[1]}: give one")
        found[match[1]] = int(match[2]) if match[1] == "tokens" else float(match[2])
    return Budget(**found)  # type: ignore[arg-type]


def _is_limit(name: str, number: str) -> bool:
    return name in LIMITS and float(number) > 0 and not (name == "tokens" and "." in number)


def most_of_call(entry: ModelEntry, prompt_tokens: int | None) -> Amounts:
    """The most that one call of a model may take.

    `prompt_tokens`: None where the server alone can count them, as with pictures: they may fill the context. The
    bound is as good as the entry: without `context_tokens` and `defaults.max_tokens` it is an assumption.
    """
    time = entry.price.of_time(entry.timeout_s)
    if entry.kind == "asr":
        return Amounts(seconds=entry.timeout_s, cost=time)
    context = context_tokens(entry)
    most_in = context if prompt_tokens is None else min(prompt_tokens, context)
    most_out = min(entry.defaults.max_tokens or context, context)
    # Prompt and reply share the context: the dearer of a full prompt and a full reply.
    fillings = ((most_in, min(most_out, context - most_in)), (min(most_in, context - most_out), most_out))
    dearest = max(entry.price.of_tokens(*filling) for filling in fillings)
    return Amounts(entry.timeout_s, min(most_in + most_out, context), time + dearest)
