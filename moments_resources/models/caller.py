"""Calls a model: each call in its turn, noted in the ledger, with a deadline, a breaker, and retries that listen.

The calls of one step go out together, at most `parallel` of the model's at once over the whole installation. They
run in an event loop in a thread of its own, so that a signal that ends the step finds the main thread waiting, and
every connection is closed at once.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from time import monotonic
from typing import TYPE_CHECKING

from moments_core.budget import Amounts, most_of_call
from moments_core.errors import FailureClass, MomentsError, NetworkError, ServiceError, classify
from moments_core.model_entry import ModelEntry
from moments_core.scrubbing import without_secrets
from moments_resources.catalogue import canonical_sha256
from moments_resources.database import Database
from moments_resources.models.batch import Batch, Call
from moments_resources.models.breaker import rest_s
from moments_resources.models.budgets import HeldError
from moments_resources.models.call_failures import MAX_WAIT_S, CallFailure, failure_of, made_nothing
from moments_resources.models.calls import StoredReply
from moments_resources.models.patience import patiently
from moments_resources.models.wire import http_client
from moments_resources.turns import Turns

if TYPE_CHECKING:
    import httpx2

    from moments_resources.models.ledger import Ledger
    from moments_resources.models.link import ModelLink

# Between the tries, where the server names no time of its own: together as long as a model server takes to start.
PAUSES_S = (1.0, 4.0, 15.0, 30.0)
ONE_PAUSE_S = (1.0,)  # for who waits at a terminal
MOST_AT_ONCE = 8  # calls of one step; each that waits holds a connection of the database
MOST_REST_S = 120.0  # twice as long as a model server takes to start
FRESH_S = 600.0  # what was prepared longer ago is made anew: a signed address lives for 15 minutes
_ROOM_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # between looks for room that other calls of a budget may leave
_KEEP_TRYING_S = 10.0  # a reply has been paid for: a database that is away for a moment must not cost it
_HELD_PATIENCES = 5  # for room that other calls hold: ten minutes, twice the usual timeout_s


class ModelCaller:
    """Calls one model for one step. `decided_by`: what else decides a reply besides a call's identity.

    `pauses_s`: between the tries of a call. `patience_s`: how long a call waits for a model that is left alone, and
    for a database that can't note its end; for room that other calls of a budget hold, five times as long, or two of
    its deadlines. `while_waiting`: called once a second while a call waits for its turn; what it raises ends the wait.
    """

    def __init__(
        self,
        entry: ModelEntry,
        *,
        link: ModelLink,
        database: Database,
        ledger: Ledger,
        decided_by: Mapping[str, object] | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
        patience_s: float = MOST_REST_S,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.entry = entry
        self.ledger = ledger
        self.link = link
        self._decided_by = {"model": entry.key, "served_name": entry.served_name, **(decided_by or {})}
        self._database = database
        self._turns = Turns(database)
        self._pauses_s = pauses_s
        self._patience_s = patience_s
        self._held_s = max(_HELD_PATIENCES * patience_s, 2 * entry.timeout_s)
        self._while_waiting = while_waiting

    def call_all(self, calls: Sequence[Call], *, on_done: Callable[[int], None] | None = None) -> list[StoredReply]:
        """The replies, in the order of the calls. `on_done` gets the weight that is done so far, from any thread.

        What was asked before and not committed since is not asked again. After a failure no new call begins; those
        on their way are waited for and kept. Raises the first failure; BudgetError before a call that might pass a
        budget.
        """
        batch = Batch(calls, [canonical_sha256({**self._decided_by, **call.identity}) for call in calls], on_done)
        for index, sha256 in enumerate(batch.hashes):
            if stored := self.ledger.stored(self.entry.key, sha256):
                self._charge(batch.calls[index], stored)
                batch.done(index, stored)
        if batch.missing:
            self._fetch(batch)
        return [batch.replies[index] for index in range(len(calls))]

    @contextmanager
    def reading(self, reply: StoredReply) -> Iterator[None]:
        """Read a reply inside: an error marks it as refused, so that no retry takes it again.

        Any error: a reply that finds a defect of the reader would find it in every run.
        """
        try:
            yield
        except Exception as error:
            self.ledger.refuse(reply.call_id, error)
            raise

    def _fetch(self, batch: Batch) -> None:
        from anyio.from_thread import start_blocking_portal

        self.ledger.check_room(self.entry.key, self._most(batch.calls[batch.missing[0]]))
        self.link.address()  # opened before the first turn: no place is held while a tunnel is dug
        with start_blocking_portal() as portal:
            fetching = portal.start_task_soon(self._fetch_all, batch)
            try:
                fetching.result()
            except BaseException:
                fetching.cancel()
                self.link.close()  # it may be opened anew just now, in a thread that nothing else can cancel
                raise
        if batch.failures:
            raise batch.failures[0]

    async def _fetch_all(self, batch: Batch) -> None:
        import anyio

        todo = iter(batch.missing)
        width = min(self.entry.parallel, MOST_AT_ONCE, len(batch.missing))
        async with http_client(self.entry) as client, anyio.create_task_group() as tasks:
            for _ in range(width):
                tasks.start_soon(self._work, batch, todo, client)

    async def _work(self, batch: Batch, todo: Iterator[int], client: httpx2.AsyncClient) -> None:
        for index in todo:
            if batch.failures:
                return
            try:
                batch.done(index, await self._reply(batch.calls[index], batch.hashes[index], client))
            except Exception as error:  # noqa: BLE001 - raised by the waiting thread, once the others have ended
                batch.failures.append(error)

    async def _reply(self, call: Call, sha256: str, client: httpx2.AsyncClient) -> StoredReply:
        """The reply, after as many tries as may help. Time in which the model is left alone is no try."""
        from anyio import sleep

        tried, rested_s = 0, 0.0
        while True:
            got = await self._try(call, sha256, client)
            if isinstance(got, StoredReply):
                return got
            if isinstance(got, _Resting):
                rested_s += got.seconds
                self._check_patience(rested_s)
                await sleep(got.seconds)
                continue
            tried += 1
            if tried >= min(got.most_tries, len(self._pauses_s) + 1) or not _may_go_well(got):
                raise got.error
            await sleep(self._pause_s(tried, got))

    async def _try(self, call: Call, sha256: str, client: httpx2.AsyncClient) -> StoredReply | CallFailure | _Resting:
        """One turn of the call: what came of it, or that the model rests."""
        from anyio import to_thread

        # Before the turn: nothing is written while the model stands idle, and the row tells who waits for it. Before
        # the preparation, which may be minutes of encoding: a call that no budget has room for costs nothing.
        number = await self._begun(call, sha256)
        sent, address = _Stopwatch(), ""
        try:
            send, made_at = await to_thread.run_sync(call.prepare), monotonic()
            async with self._turn():
                ready = await self._ready()
                if not isinstance(ready, str):
                    self.ledger.withdraw(number)
                    return ready
                address = ready
                if monotonic() - made_at > FRESH_S:
                    send = await to_thread.run_sync(call.prepare)
                self.ledger.note_sent(number)
                with sent.running():
                    body = await self._in_time(send(client, address))
        except BaseException as error:
            failure = failure_of(self.entry, error, secret=self.link.api_key)
            await self._note_end(number, error, failure, sent)
            if failure is None or not sent.seconds:  # the end of the step, a defect, or nothing of the model's
                raise
        else:
            return await self._kept(call, number, body, sent.seconds)
        await self._look_at_the_way(failure, address)
        return failure

    async def _begun(self, call: Call, sha256: str) -> int:
        """The number of the call, once there is room for it in the budgets: calls on their way may leave some."""
        from anyio import sleep

        pauses_s, until = chain(_ROOM_PAUSES_S, repeat(_ROOM_PAUSES_S[-1])), monotonic() + self._held_s
        while True:
            try:
                return self.ledger.begin(self.entry.key, sha256, call.prompt_sha256, self._most(call))
            except HeldError as error:
                if monotonic() > until:
                    raise self._no_room() from error
                await sleep(next(pauses_s))

    def _no_room(self) -> ServiceError:
        return ServiceError(
            f"Other calls have held the rest of a budget for {self._held_s:g} s, so the model {self.entry.key} could "
            "not be called: run this again, or raise MOMENTS_VIDEO_BUDGET or MOMENTS_DAY_BUDGET.",
            model=self.entry.key,
        )

    def _most(self, call: Call) -> Amounts:
        return most_of_call(self.entry, call.prompt_tokens)

    async def _ready(self) -> str | CallFailure | _Resting:
        """The address to call now; or that the model rests, or why there is no way to it."""
        from anyio import to_thread

        if not self.ledger.is_a_trial and (seconds := rest_s(self._database, self.entry.key)):
            return _Resting(seconds)
        try:
            return await to_thread.run_sync(self.link.address)  # another call may have opened it anew
        except MomentsError as error:
            return CallFailure(error)

    async def _in_time(self, sending: Awaitable[bytes]) -> bytes:
        from anyio import fail_after

        with fail_after(self.entry.timeout_s):
            return await sending

    async def _note_end(self, number: int, error: BaseException, failure: CallFailure | None, sent: _Stopwatch) -> None:
        """Note that no reply came: patiently where the call may be made again.

        Raises the error of the database if it can't be noted then: the next try would wait for room that this one
        seems to hold, for as long as its attempt is open.
        """
        goes_on = failure is not None and sent.seconds > 0
        try:
            await patiently(partial(self._end, number, error, failure, sent), self._patience_s if goes_on else 0)
        except MomentsError as second:
            if goes_on:
                raise
            error.add_note(f"The end of this call could not be noted: {second}")

    def _end(self, number: int, error: BaseException, failure: CallFailure | None, sent: _Stopwatch) -> None:
        if not sent.seconds:  # no call was made
            self.ledger.withdraw(number)
            return
        shown, status = (failure.error, failure.status) if failure else (error, None)
        price, nothing = self.entry.price, made_nothing(error)
        self.ledger.fail(number, shown, seconds=sent.seconds, price=price, made_nothing=nothing, status=status)

    async def _look_at_the_way(self, failure: CallFailure, address: str) -> None:
        """Open the way anew where that is what broke. That it can't be opened is found out by the next try."""
        from anyio import to_thread

        if failure.way_is_broken:
            with suppress(NetworkError, ServiceError):
                await to_thread.run_sync(self.link.reopened, address)

    async def _kept(self, call: Call, number: int, body: bytes, seconds: float) -> StoredReply:
        """Store a reply, for as long as the call took if need be, then what it says that it took."""
        reply = await self._stored(number, body, seconds)
        self._charge(call, reply)
        return reply

    def _charge(self, call: Call, reply: StoredReply) -> None:
        if usage := call.usage_of(reply.body):
            self.ledger.charge(reply, usage, self.entry.price)

    async def _stored(self, number: int, body: bytes, seconds: float) -> StoredReply:
        text = without_secrets(body.decode(errors="replace"), self.link.api_key)
        keep = partial(self.ledger.keep, number, text, seconds=seconds, price=self.entry.price)
        return await patiently(keep, max(seconds, _KEEP_TRYING_S), to_the_end=True)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        from anyio import from_thread, to_thread

        def look() -> None:
            from_thread.check_cancelled()
            self._while_waiting()

        turn = self._turns.turn(f"model:{self.entry.key}", self.entry.parallel, while_waiting=look)
        with ExitStack() as held:
            await to_thread.run_sync(held.enter_context, turn)
            yield

    def _check_patience(self, rested_s: float) -> None:
        if rested_s > self._patience_s:
            raise ServiceError(
                f"The model {self.entry.key} fails again and again, and waiting for it did not help: run `moments "
                f"models test {self.entry.key}`.",
                model=self.entry.key,
            )

    def _pause_s(self, tried: int, failure: CallFailure) -> float:
        """What the server asks for, else a pause that grows; with jitter, so that callers don't come back as one."""
        asked = failure.wait_s if failure.wait_s is not None else self._pauses_s[tried - 1]
        return asked + random.uniform(0, 0.25) * asked  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True)
class _Resting:
    """The model is left alone for so long."""

    seconds: float


@dataclass
class _Stopwatch:
    """Seconds between the start and the end of a call; 0 where it never began."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        started = monotonic()
        try:
            yield
        finally:
            self.seconds = monotonic() - started


def _may_go_well(failure: CallFailure) -> bool:
    is_soon = failure.wait_s is None or failure.wait_s <= MAX_WAIT_S
    return is_soon and classify(failure.error) is FailureClass.TRANSIENT
