"""Where the calls of a model are noted: in the table of calls, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from moments_core.budget import Amounts
    from moments_core.model_entry import Price
    from moments_core.prompts import Prompt
    from moments_resources.models.calls import StoredReply, Usage


class Ledger(Protocol):
    """Notes calls; calls.py says what each method is for."""

    #: Whether the calls only find out if the model is well: they are made also while it is left alone.
    is_a_trial: bool

    def stored(self, model: str, request_sha256: str) -> StoredReply | None: ...

    def keep_prompt(self, prompt: Prompt) -> None: ...

    def check_room(self, model: str, most: Amounts) -> None: ...

    def begin(self, model: str, request_sha256: str, prompt_sha256: str | None, most: Amounts) -> int: ...

    def note_sent(self, call_id: int) -> None: ...

    def keep(self, call_id: int, body: str, *, seconds: float, price: Price) -> StoredReply: ...

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
