"""Calls a model: each call in its turn, noted in the ledger, with a deadline, a breaker, and retries that listen.

The calls of one step go out together, at most `parallel` of the model's at once over the whole installation. They
run in an event loop in a thread of its own, so that a signal that ends the step finds the main thread waiting, and
every connection is closed at once.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from moments_core.errors import FailureClass, ReplyError, ServiceError, classify
from moments_core.model_entry import ModelEntry
from moments_resources.catalogue import canonical_sha256
from moments_resources.database import Database
from moments_resources.models.breaker import check_breaker
from moments_resources.models.call_failures import MAX_WAIT_S, CallFailure, failure_of
from moments_resources.models.calls import CallLedger, StoredReply
from moments_resources.turns import Turns

if TYPE_CHECKING:
    import httpx2

    from moments_resources.models.link import ModelLink

TRIES = 3  # of one call; then the step fails and is tried again as a whole, with the replies that came
PAUSES_S = (1.0, 4.0)  # between the tries, where the server names no time of its own
MOST_AT_ONCE = 8  # calls of one step; each that waits holds a connection of the database
_STORE_TRIES = 3  # a reply has been paid for: a database that is away for a second must not cost it


@dataclass(frozen=True, slots=True)
class Call:
    """One question. `identity` is JSON that decides the reply: nothing in it may change from try to try.

    `send` takes an HTTP client and the model's address, and gives the body of a 2xx reply; it raises StatusError for
    any other, and lets errors of the transport through. `weight` is the call's share of the progress.
    """

    identity: Mapping[str, object]
    send: Callable[[httpx2.AsyncClient, str], Awaitable[bytes]]
    prompt_sha256: str | None = None
    weight: int = 1


class ModelCaller:
    """Calls one model for one step. `decided_by`: what else decides a reply besides a call's identity."""

    def __init__(
        self,
        entry: ModelEntry,
        *,
        link: ModelLink,
        database: Database,
        ledger: CallLedger,
        decided_by: Mapping[str, object] | None = None,
    ) -> None:
        self.entry = entry
        self.ledger = ledger
        self.link = link
        self._decided_by = {"model": entry.key, "served_name": entry.served_name, **(decided_by or {})}
        self._database = database
        self._turns = Turns(database)

    def call_all(self, calls: Sequence[Call], *, on_done: Callable[[int], None] | None = None) -> list[StoredReply]:
        """The replies, in the order of the calls. `on_done` gets the weight that is done so far, from any thread.

        What was asked before and not committed since is not asked again. After a failure no new call begins; those
        on their way are waited for and kept. Raises the first failure.
        """
        batch = _Batch(calls, [canonical_sha256({**self._decided_by, **call.identity}) for call in calls], on_done)
        for index, sha256 in enumerate(batch.hashes):
            if stored := self.ledger.stored(self.entry.key, sha256):
                batch.done(index, stored)
        if batch.missing:
            self._fetch(batch)
        return [batch.replies[index] for index in range(len(calls))]

    @contextmanager
    def reading(self, reply: StoredReply) -> Iterator[None]:
        """Read a reply inside: a ReplyError, or a ServiceError for a broken envelope, marks it as refused."""
        try:
            yield
        except (ReplyError, ServiceError) as error:
            self.ledger.refuse(reply.call_id, error)
            raise

    def _fetch(self, batch: _Batch) -> None:
        from anyio.from_thread import start_blocking_portal

        self.link.address()  # opened before the first turn: no place is held while a tunnel is dug
        with start_blocking_portal() as portal:
            fetching = portal.start_task_soon(self._fetch_all, batch)
            try:
                fetching.result()
            except BaseException:
                self.link.close()  # it may be opened anew just now, in a thread that nothing else can cancel
                raise
            finally:
                fetching.cancel()
        if batch.failures:
            raise batch.failures[0]

    async def _fetch_all(self, batch: _Batch) -> None:
        import anyio
        import httpx2

        todo = iter(batch.missing)
        width = min(self.entry.parallel, MOST_AT_ONCE, len(batch.missing))
        # No proxy, no .netrc, no redirect that would carry a key elsewhere; the deadline is ours.
        client = httpx2.AsyncClient(trust_env=False, timeout=None, follow_redirects=False)
        async with client, anyio.create_task_group() as tasks:
            for _ in range(width):
                tasks.start_soon(self._work, batch, todo, client)

    async def _work(self, batch: _Batch, todo: Iterator[int], client: httpx2.AsyncClient) -> None:
        for index in todo:
            if batch.failures:
                return
            try:
                batch.done(index, await self._reply(batch.calls[index], batch.hashes[index], client))
            except Exception as error:  # noqa: BLE001 - raised by the waiting thread, once the others have ended
                batch.failures.append(error)

    async def _reply(self, call: Call, sha256: str, client: httpx2.AsyncClient) -> StoredReply:
        from anyio import sleep, to_thread

        for tried in range(1, TRIES + 1):
            address = await to_thread.run_sync(self.link.address)
            reply = await self._try(call, sha256, client, address)
            if isinstance(reply, StoredReply):
                return reply
            if tried == TRIES or not _may_go_well(reply):
                raise reply.error
            await sleep(_pause_s(tried, reply))
            if reply.way_is_broken:
                await to_thread.run_sync(self.link.reopened, address)
        raise AssertionError  # the last try returned or raised

    async def _try(
        self, call: Call, sha256: str, client: httpx2.AsyncClient, address: str
    ) -> StoredReply | CallFailure:
        # Noted before the turn: nothing is written while the model stands idle, and the row tells who waits for it.
        number = self.ledger.begin(self.entry.key, sha256, call.prompt_sha256)
        sent = _Stopwatch()
        try:
            async with self._turn():
                check_breaker(self._database, self.entry.key)
                with sent.running():
                    body = await self._in_time(call.send(client, address))
        except BaseException as error:
            failure = failure_of(self.entry, error, secret=self.link.api_key)
            if not sent.seconds:  # no call was made
                self.ledger.withdraw(number)
            else:
                shown, status = (failure.error, failure.status) if failure else (error, None)
                self.ledger.fail(number, shown, seconds=sent.seconds, status=status)
            if failure is None:  # the end of the step, or a defect
                raise
            return failure
        return await self._kept(number, body, sent.seconds)

    async def _in_time(self, sending: Awaitable[bytes]) -> bytes:
        from anyio import fail_after

        with fail_after(self.entry.timeout_s):
            return await sending

    async def _kept(self, number: int, body: bytes, seconds: float) -> StoredReply:
        from anyio import CancelScope, sleep

        text, cost = body.decode(errors="replace"), seconds * self.entry.price.per_hour / 3600
        for _ in range(_STORE_TRIES - 1):
            try:
                return self.ledger.keep(number, text, seconds=seconds, cost=cost)
            except ServiceError:
                with CancelScope(shield=True):
                    await sleep(1)
        return self.ledger.keep(number, text, seconds=seconds, cost=cost)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        from anyio import from_thread, to_thread

        turn = self._turns.turn(
            f"model:{self.entry.key}", self.entry.parallel, while_waiting=from_thread.check_cancelled
        )
        with ExitStack() as held:
            await to_thread.run_sync(held.enter_context, turn)
            yield


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


@dataclass
class _Batch:
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


def _may_go_well(failure: CallFailure) -> bool:
    is_soon = failure.wait_s is None or failure.wait_s <= MAX_WAIT_S
    return is_soon and classify(failure.error) is FailureClass.TRANSIENT


def _pause_s(tried: int, failure: CallFailure) -> float:
    """What the server asks for, else a pause that grows; with jitter, so that callers don't come back as one."""
    asked = failure.wait_s if failure.wait_s is not None else PAUSES_S[tried - 1]
    return asked + random.uniform(0, 0.25) * max(asked, 1.0)  # noqa: S311 - no secret
