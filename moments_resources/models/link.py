"""The way to a model: its address where it is reached directly, or one tunnel through its SSH host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from moments_core.errors import CancelledError, MomentsError
from moments_core.model_entry import ModelEntry
from moments_resources.models.served import api_key, check_served, reached
from moments_resources.models.tunnel import CONNECT_S, Tunnel


class ModelLink:
    """One way to one model, for all who call it in a step: hold one link a model, not one a request.

    Threads may share it. Every error names the model: SettingsError for what stays wrong, NetworkError or
    ServiceError for what may pass. `connect_s`: for each phase of opening the way and for the model's first answer.
    """

    def __init__(self, entry: ModelEntry, *, connect_s: float = CONNECT_S) -> None:
        self._entry = entry
        self._connect_s = connect_s
        self._lock = threading.Lock()  # whoever opens the way holds it
        self._tunnel: Tunnel | None = None
        self._address: str | None = None
        self._failure: MomentsError | None = None  # of the last opening
        self._openings = 0
        self._is_closed = False

    def address(self) -> str:
        """Base address without a slash at its end, http://127.0.0.1:40123/v1; `asr`: where sound is posted to.

        The first call opens the way and checks that the model answers.
        """
        return self._opened(broken=None)

    def reopened(self, broken: str) -> str:
        """The address of a way that works, after a call over `broken` failed: the same one where it still does.

        Callers that come together share one opening, and its failure; so does one that comes late.
        """
        return self._opened(broken)

    @property
    def api_key(self) -> str | None:
        """What the model is called with. Raises SettingsError where the variable is missing or holds no key."""
        with self._named():
            return api_key(self._entry)

    def close(self) -> None:
        """Leave no thread, port or socket; again and again if you like. Who is opening the way gets CancelledError."""
        self._is_closed = True
        if self._tunnel is not None:
            self._tunnel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self, broken: str | None) -> str:
        seen = self._openings
        with self._lock:
            if self._is_closed:
                raise self._given_up()
            if self._address is not None and self._address != broken:
                return self._address
            if self._openings != seen:  # somebody tried while we waited
                if self._failure is not None:
                    raise _again(self._failure, str(self._failure))
                if self._address is not None:  # it may lead to the same address
                    return self._address
            if self._address is not None and self._still_leads(self._address):
                self._openings, self._failure = self._openings + 1, None  # who waits meanwhile need not look too
                return self._address
            return self._open()

    def _still_leads(self, address: str) -> bool:
        """Whether the model answers there: a call that failed need not have failed on its way.

        One time-out closed the tunnel under all other calls of its step.
        """
        try:
            with reached(address, self._connect_s) as connection:
                check_served(self._entry, connection, address)
        except MomentsError:
            return False
        return True

    def _open(self) -> str:
        self._shut()
        self._failure = None
        try:
            with self._named():
                self._address = self._checked_way()
        except MomentsError as error:
            self._shut()
            if self._is_closed:
                raise self._given_up() from error
            self._failure = error
            self._openings += 1
            raise
        except BaseException:  # an interrupt: no failure that others should share
            self._shut()
            raise
        self._openings += 1
        return self._address

    def _checked_way(self) -> str:
        address = self._way()
        with reached(address, self._connect_s) as connection:
            check_served(self._entry, connection, address)
        return address

    def _way(self) -> str:
        self._tunnel = tunnel_to(self._entry, connect_s=self._connect_s)
        if self._is_closed:  # close() came before there was a tunnel to close
            raise self._given_up()
        return opened_address(self._entry, self._tunnel)

    def _shut(self) -> None:
        self._address = None
        if self._tunnel is not None:
            self._tunnel.close()

    def _given_up(self) -> CancelledError:
        return CancelledError(f"Model {self._entry.key}: the way to it was closed while somebody wanted to use it.")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except MomentsError as error:
            raise _again(error, f"Model {self._entry.key}: {error}") from error


def tunnel_to(entry: ModelEntry, *, connect_s: float = CONNECT_S) -> Tunnel | None:
    """The tunnel that leads to a model, not open yet; None where it is reached directly."""
    if entry.ssh is None or entry.remote_host is None or entry.remote_port is None:
        return None
    return Tunnel(entry.ssh, entry.remote_host, entry.remote_port, connect_s=connect_s)


def opened_address(entry: ModelEntry, tunnel: Tunnel | None) -> str:
    """The model's address, with the tunnel opened where there is one. Raises what `Tunnel.open` raises."""
    if tunnel is None:
        return entry.direct_url or ""
    return f"http://127.0.0.1:{tunnel.open()}{entry.http_path}".rstrip("/")


def _again(error: MomentsError, sentence: str) -> MomentsError:
    """An error of its own for each thread: raising one twice would mix their tracebacks."""
    return type(error)(sentence, **error.evidence)
