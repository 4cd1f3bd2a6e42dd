"""The one supervisor of an installation: it holds the daemon's lock, and keeps processes at work while it does.

Two daemons on one instance launched one run twice. So the Dagster daemon is killed as soon as the lock is lost, and
starts a moment after the lock was taken, when one that lost it has been killed. docs/adr/0014-one-supervisor.md.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from moments.daemon_lock import DaemonLock
from moments.process_group import ProcessGroup, kill_with_all_below
from moments.services import Lakehouse, database_url, ensure_server
from moments_core.errors import MomentsError, ServiceError, SettingsError, reason
from moments_resources.bounded_waits import bound_waits
from moments_resources.database import checked_url, named_fault

_LOOP_SECONDS = 0.5
_LOOK_SECONDS = 3.0
_TICK_SECONDS = 5.0
_STOP_SECONDS = 18.0  # docker gives 30, a person about 20
_STEADY_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0

#: The server ends all sessions before it takes a new one, so one that loses the lock hears of it before another gets
#: it, and kills its daemon within the time of a hook's statement that fails; a daemon needs 2 s more to begin.
_HANDOVER_SECONDS = 2.0

#: A daemon behind a network that went away is gone after this, twice (a hook, the look at the lock), and the time
#: between two looks: before the server's keepalives give its lock to another one (docs/operations.md: 60 s).
_ANSWER_SECONDS = 10.0

Hook = Callable[[], None]


@dataclass(frozen=True)
class Pulse:
    """`silent_s`: for how many seconds there was no sign of life; over `longest_s`, the process hangs."""

    silent_s: Callable[[], float]
    longest_s: float


@dataclass(frozen=True)
class Program:
    """What a child is: its name for people, a module with its arguments, and the signal that asks it to end.

    `after` is a path that must exist before it is started: daemon and UI say pages when they find no code server.
    Without `pulse`, one that hangs is not noticed.
    """

    name: str
    module: str
    arguments: Sequence[str]
    asking: signal.Signals = signal.SIGINT
    after: Path | None = None
    pulse: Pulse | None = None


class Child:
    """A program that is started, and started again whenever it has ended."""

    def __init__(self, program: Program, group: ProcessGroup) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self._group = group
        self._due = time.monotonic()
        self._started = 0.0
        self._quick_ends = 0

    def see_to(self) -> None:
        """Start it if it is due; notice its end."""
        if self.process is not None and (status := self.process.poll()) is not None:
            self._note_end(status)
        if self.process is None and self._is_due():
            self.process = self._group.start([sys.executable, "-m", self.program.module, *self.program.arguments])
            self._started = time.monotonic()

    def kill_if_it_hangs(self) -> None:
        """It alone: runs below a code server that hangs go on. Raises what asking for its pulse does."""
        pulse = self.program.pulse
        if self.process is None or pulse is None:
            return
        # What it is silent for from before its start is its forerunner's.
        if min(pulse.silent_s(), time.monotonic() - self._started) > pulse.longest_s:
            tell(f"The {self.program.name} gave no sign of life for {pulse.longest_s:.0f} s: it is killed.")
            self.process.kill()

    def kill(self) -> None:
        """End it at once, with all below it."""
        if self.process is not None:
            kill_with_all_below(self.process)
            self.process = None

    def start_in(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds

    def _is_due(self) -> bool:
        after = self.program.after
        return time.monotonic() >= self._due and (after is None or after.exists())

    def _note_end(self, status: int) -> None:
        self.process = None
        if time.monotonic() - self._started >= _STEADY_SECONDS:
            self._quick_ends = 0
        seconds = pause_seconds(self._quick_ends)
        self._quick_ends += 1
        self.start_in(seconds)
        tell(f"The {self.program.name} ended ({_shown(status)}); it starts again {_when(seconds)}.")


def pause_seconds(quick_ends: int) -> float:
    """Pause before a child is started again that has ended right after its start `quick_ends` times before."""
    return 0.0 if quick_ends == 0 else min(2.0 ** (quick_ends - 1), _LONGEST_PAUSE_SECONDS)


class Supervisor:
    """Keeps `daemon` at work while the lock is held, `others` always; calls `hooks` every five seconds.

    What gives no sign of life for too long is killed, and so starts again.
    """

    def __init__(
        self,
        lakehouse: Lakehouse,
        group: ProcessGroup,
        *,
        daemon: Program,
        others: Sequence[Program] = (),
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._lakehouse = lakehouse
        self._lock = DaemonLock(lakehouse.database)
        self._group = group
        self._daemon = Child(daemon, group)
        self._others = [Child(program, group) for program in others]
        self._hooks = [*hooks, *(child.kill_if_it_hangs for child in (self._daemon, *self._others))]

    def run(self, prepare: Callable[[], None]) -> None:
        """Work until Ctrl-C or SIGTERM (KeyboardInterrupt). `prepare` is called once, when the lock is held.

        Raises SettingsError where another daemon is at work, or took over while PostgreSQL was away; what `prepare`
        raises; ServiceError where PostgreSQL is away from the start.
        """
        bound_waits(_ANSWER_SECONDS)
        with self._lock:
            try:
                self._take_lock()
                prepare()
                while True:
                    self._work()
                    self._daemon.kill()
                    self._regain_lock()
            finally:
                self._end()

    def _take_lock(self) -> None:
        if not self._lock.take():
            raise SettingsError("A daemon runs on this lakehouse already: one is enough, stop it first.")
        self._daemon.start_in(_HANDOVER_SECONDS)

    def _work(self) -> None:
        """Until the lock is lost."""
        look, tick = _Timer(_LOOK_SECONDS), _Timer(_TICK_SECONDS)
        while True:
            spoken = self._lock.wait(_LOOP_SECONDS)
            if (spoken or look.rings()) and not self._lock.is_held():
                return
            self._see_to([self._daemon, *self._others])
            if tick.rings():
                self._call_hooks()

    def _regain_lock(self) -> None:
        tell("PostgreSQL ended or froze, and the daemon's lock with it: waiting until it answers again.")
        while (taken := self._try_to_regain()) is None:
            self._see_to(self._others)
            time.sleep(_LOOP_SECONDS)
        if not taken:
            raise SettingsError("Another daemon took over while PostgreSQL was away: one is enough, this one ends.")
        self._daemon.start_in(_HANDOVER_SECONDS)
        tell("PostgreSQL answers again, and the daemon's lock is held: the daemon starts again.")

    def _try_to_regain(self) -> bool | None:
        """Whether the lock is ours again; None while the server is away."""
        try:
            ensure_server(self._lakehouse.settings)
            moved = checked_url(database_url(self._lakehouse.settings)) != self._lakehouse.database.url
            taken = False if moved else self._lock.take()
        except MomentsError:
            return None
        if moved:
            raise ServiceError("The embedded PostgreSQL came back on another port: start this again.")
        return taken

    def _see_to(self, children: Sequence[Child]) -> None:
        self._group.see_to_guard()
        for child in children:
            child.see_to()

    def _call_hooks(self) -> None:
        for hook in self._hooks:
            try:
                hook()
            except (MomentsError, OSError) as error:
                tell(reason(error))
            except _database_errors() as error:
                tell(_database_fault(error))

    def _end(self) -> None:
        children = [self._daemon, *self._others]
        asked = {child.process: child.program.asking for child in children if child.process is not None}
        self._group.end(asked, _STOP_SECONDS)


class _Timer:
    """Rings whenever `seconds` have gone by since it was made or rang."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def rings(self) -> bool:
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


def answer_signals() -> None:
    """SIGINT and SIGTERM become KeyboardInterrupt; SIGINT by name, for a shell's background job has it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def tell(sentence: str) -> None:
    click.echo(f"moments: {sentence}", err=True)


def _database_errors() -> tuple[type[Exception], ...]:
    from dagster_postgres.utils import DagsterPostgresException  # in place of the last error, after several tries

    return SQLAlchemyError, DagsterPostgresException


def _database_fault(error: Exception) -> str:
    named = named_fault(error) if isinstance(error, DBAPIError) else None
    return str(named) if named else f"A look at the database failed ({type(error).__name__}); it is repeated."


def _shown(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def _when(seconds: float) -> str:
    return f"in {seconds:.0f} s" if seconds else "at once"
