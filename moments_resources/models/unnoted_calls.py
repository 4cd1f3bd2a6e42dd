"""Calls that belong to no step of a video, such as those of a test: made like all others, kept and counted nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moments_core.model_entry import Price
from moments_resources.models.calls import StoredReply, Usage

if TYPE_CHECKING:
    from moments_core.budget import Amounts
    from moments_core.prompts import Prompt


class UnnotedCalls:
    """A ledger that forgets: every question is a new one."""

    is_a_trial = True

    def stored(self, model: str, request_sha256: str) -> StoredReply | None:  # noqa: ARG002
        return None

    def keep_prompt(self, prompt: Prompt) -> None: ...

    def check_room(self, model: str, most: Amounts) -> None: ...

    def begin(self, model: str, request_sha256: str, prompt_sha256: str | None, most: Amounts) -> int:  # noqa: ARG002
        return 0

    def note_sent(self, call_id: int) -> None: ...

    def keep(self, call_id: int, body: str, *, seconds: float, price: Price) -> StoredReply:  # noqa: ARG002
        return StoredReply(call_id, body, reused=False)

    def charge(self, reply: StoredReply, usage: Usage, price: Price) -> None: ...

    def refuse(self, call_id: int, error: BaseException) -> None: ...

    def fail(
        self,
        call_id: int,
        error: BaseException,
        *,
        seconds: float,
        price: Price,
        made_nothing: bool,
        status: int | None = None,
    ) -> None: ...

    def withdraw(self, call_id: int) -> None: ...
