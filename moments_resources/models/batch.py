"""The questions of a step to a model, on their way to their replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from moments_resources.models.calls import StoredReply, Usage

if TYPE_CHECKING:
    import httpx2

Send: TypeAlias = "Callable[[httpx2.AsyncClient, str], Awaitable[bytes]]"
"""Sends a question to an address and gives the body of a 2xx reply.

It raises StatusError for any other, and lets errors of the transport through.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One question. `identity` is JSON that decides the reply: nothing in it may change from try to try.

    `prepare` makes what is sent: in a thread, before the call has its turn, and only where it is made at all. Its
    errors are the step's, not the model's. `weight` is the call's share of the progress. `prompt_tokens`: rather too
    many; None where the server alone can count them. `usage_of` reads in a reply what the call took; None: nothing.
    """

    identity: Mapping[str, object]
    prepare: Callable[[], Send]
    prompt_sha256: str | None = None
    weight: int = 1
    prompt_tokens: int | None = None
    usage_of: Callable[[str], Usage | None] = lambda _: None


@dataclass
class Batch:
    """Calls on their way to their replies."""

    calls: Sequence[Call]
    hashes: Sequence[str]
    on_done: Callable[[int], None] | None
    replies: dict[int, StoredReply] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)

    @property
    def missing(self) -> list[int]:
        return [index for index in range(len(self.calls)) if index not in self.replies]

    def done(self, index: int, reply: StoredReply) -> None:
        self.replies[index] = reply
        if self.on_done:
            self.on_done(sum(self.calls[index].weight for index in self.replies))
