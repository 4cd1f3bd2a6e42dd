"""One PostgreSQL data folder and the server processes on it: create, launch, watch, end.

The postmaster inherits an open lock on `server.lock`, and so does each of its children: as long as one of them lives
the lock is held, and the kernel gives it back with the last. So "does anything run on this data?" never depends on a
process id, which another process may have been given, nor on the process table, which ends at a container's wall.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from moments.postgres_account import Account
from moments.postgres_commands import (
    initdb_command,
    role_statements,
    server_command,
    single_user_command,
    sync_command,
)
from moments.postgres_folder import open_private, write_note
from moments.postgres_programs import Programs
from moments_core.errors import MomentsError, ResourceError, ServiceError

# PostgreSQL empties a log only when it turns to it, so a start drops one that grew, or that is a week old.
LOG_BYTES = 16_000_000
LOG_SECONDS = 6 * 86_400
TAIL_LINES = 15

# A replay of up to 512 MB of log after a crash takes its time, and it says so: that is not silence.
BUSY = ("starting up", "in recovery mode", "not yet accepting connections", "shutting down")
FULL_HOUSE = ("too many clients", "remaining connection slots")

# Fast (ends sessions, writes a checkpoint of at most 128 MB), immediate (its own children get 5 s), by force.
STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0))


def refusal(url: str) -> str | None:
    """Why the server at `url` does not take a connection; None when it does, or would if it had one free."""
    import psycopg2

    try:
        # The server has to prove that it knows the password; any other process on the port would just ask for it.
        connection = psycopg2.connect(
            url.replace("+psycopg2", "", 1), connect_timeout=3, require_auth="scram-sha-256", application_name="moments"
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("select 1")
    except psycopg2.Error as error:
        reason = str(error).strip()
        return None if any(words in reason for words in FULL_HOUSE) else reason or "no answer"
    return None


class Cluster:
    """The data folder `folder`/data, its lock and its logs.

    `patience_s`: seconds without a sign of life after which a server counts as hung.
    """

    def __init__(self, folder: Path, *, patience_s: float = 30.0) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._patience_s = patience_s

    def create(self, account: Account, programs: Programs, *, password: str, superuser_password: str) -> None:
        """Make the data folder with the role and the database of the application; to be called when nothing runs.

        It is made under another name: a process that is killed on the way leaves no half cluster.
        """
        for leftover in self.folder.glob("new-*"):
            shutil.rmtree(leftover)
        staging = Path(tempfile.mkdtemp(prefix="new-", dir=self.folder))
        try:
            account.own(staging)
            write_note(staging / "password", superuser_password)
            self._fill(staging, account, programs, password)
            (staging / "data").rename(self.data)
            _sync(self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _fill(self, staging: Path, account: Account, programs: Programs, password: str) -> None:
        data = staging / "data"
        steps = [
            (initdb_command(programs, data, staging / "password"), ""),
            # In single-user mode: nobody ever sees this database without its role.
            (single_user_command(programs, data), role_statements(password)),
            (sync_command(programs, data), ""),
        ]
        with self._held() as lock:
            for command, text in steps:
                done = account.run(command, text=text, cwd=staging, pass_fds=(lock,))
                if done.returncode:
                    said = _last_lines(done.stdout)
                    raise self.failure("PostgreSQL could not make its database", "put right what it says", output=said)

    def launch(self, account: Account, programs: Programs, port: int) -> None:
        """Start the server in a session of its own; to be called when nothing runs. It outlives this process.

        The shell ends at once, so the server is nobody's child and holds no pipe or terminal of ours.
        """
        if self._processes():
            raise ServiceError(f"A PostgreSQL that moments did not start uses {self.data}: stop that one first.")
        log = open_private(self._start_log, os.O_WRONLY | os.O_TRUNC)
        try:
            with self._held() as lock:
                self._drop_remains()
                subprocess.run(  # noqa: S603 - each argument is passed as it is
                    ["/bin/sh", "-c", '"$@" >&2 &', "sh", *server_command(programs, self.data, port)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,
                    check=True,
                    **account.process_options(),
                )
        finally:
            os.close(log)

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The lock, to be handed to programs on this data; it stays held as long as one of them lives."""
        lock = open_private(self.folder / "server.lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _drop_remains(self) -> None:
        """Remove what a killed server left: its pid may be anybody's by now, and PostgreSQL would not start."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for log in self._logs():
            facts = log.stat()
            if facts.st_size > LOG_BYTES or time.time() - facts.st_mtime > LOG_SECONDS:
                log.unlink()

    def runs(self) -> bool:
        """Whether any process of this cluster lives, in whatever container."""
        try:
            lock = os.open(self.folder / "server.lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def port(self) -> int | None:
        """The port of the server that last started and did not end in order."""
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()[3])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def answers(self, url: str) -> bool:
        """Wait for the server at `url`: True once it takes connections, False when it has ended.

        Raises ServiceError when it lives and is silent.
        """
        heard = time.monotonic()
        while (reason := refusal(url)) is not None:
            if not self.runs():
                return False
            if any(words in reason for words in BUSY):
                heard = time.monotonic()
            if time.monotonic() - heard > self._patience_s:
                raise self.failure(
                    "The embedded PostgreSQL runs but does not answer",
                    "end it with `moments down`, then try again",
                    refusal=reason,
                )
            time.sleep(0.02)
        return True

    def end_orphans(self) -> None:
        """End what a killed postmaster or a killed `create` left: two servers on one folder would destroy it."""
        if self.runs() and not self._postmaster():
            self._end(STOP[1:])

    def stop(self) -> bool:
        """End the server, whatever it takes; False when none ran. Nothing that was committed is lost."""
        if not self.runs():
            return False
        self._end(STOP)
        return True

    def _end(self, steps: tuple[tuple[signal.Signals, float], ...]) -> None:
        for step, seconds in steps:
            postmaster = self._postmaster()
            targets = [postmaster] if postmaster and step != signal.SIGKILL else self._processes()
            for pid in targets:
                with suppress(ProcessLookupError):
                    os.kill(pid, step)
            if self._ended_within(seconds):
                return
        raise self.failure(
            "The embedded PostgreSQL is held by processes that can't be ended from here",
            "stop it in the container or on the machine where it runs",
        )

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.runs():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _postmaster(self) -> int | None:
        """The pid in the pid file, if it is that of a process on this data."""
        try:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if pid in self._processes() else None

    def _processes(self) -> list[int]:
        """Pids of the programs on this data: all of them stand in it, or in what was to become it."""
        import psutil  # the server's wheel depends on it

        places = [self.data, *self.folder.glob("new-*"), *self.folder.glob("new-*/data")]
        known = {os.path.realpath(place): place for place in places}
        found = [p for p in psutil.process_iter(["name", "cwd"]) if p.info["cwd"] in known]
        programs = [p for p in found if p.info["name"].startswith(("postgres", "initdb"))]
        return [p.pid for p in programs if _stands_in(p.pid, known[p.info["cwd"]])]

    def failure(self, what: str, advice: str, **evidence: object) -> MomentsError:
        """An error with the last lines of the logs, told apart by what they say."""
        evidence |= {"log": self.log_tail(), "folder": str(self.folder)}
        words = " ".join(map(str, evidence.values()))
        if "No space left on device" in words or "Disk quota exceeded" in words:
            return ResourceError(
                f"{what}: the disk of {self.folder} is full; free some space, then try again.", **evidence
            )
        if "Cannot allocate memory" in words:
            return ResourceError(f"{what}: this machine is short of memory; end other programs first.", **evidence)
        return ServiceError(f"{what}: {advice} (logs: {self._start_log} and {self.data / 'log'}).", **evidence)

    def log_tail(self) -> str:
        """The last lines of the start log and of the newest server log."""
        newest = sorted(self._logs(), key=lambda log: log.stat().st_mtime)[-1:]
        logs = [log for log in (self._start_log, *newest) if log.is_file()]
        return "\n".join(_last_lines(log.read_text(encoding="utf-8", errors="replace")) for log in logs)

    @property
    def _start_log(self) -> Path:
        return self.folder / "start.log"

    def _logs(self) -> list[Path]:
        return list((self.data / "log").glob("server-*.log"))


def _stands_in(pid: int, folder: Path) -> bool:
    """Whether a process whose working folder has the name of `folder` is there, and not in a container's namesake."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return not Path("/proc/self").exists()  # macOS, where a path means the same to all


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def _sync(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
