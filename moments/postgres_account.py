"""As whom the embedded PostgreSQL runs.

PostgreSQL refuses to run as root, so a root process hands the server to an unprivileged account. What that account
reaches is tried, never computed: mode bits know nothing of ACLs, mounts and user namespaces.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moments_core.errors import ServiceError, SettingsError

# Nothing of the caller's environment: LD_LIBRARY_PATH, LANG, TZ or PGDATA of a shell must not change a database.
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}

# initdb writes 40 MB and syncs them: 1-4 s on a laptop, a minute on an overloaded network disk.
PROGRAM_SECONDS = 300


@dataclass(frozen=True)
class Account:
    """The operating-system account that the server runs as."""

    name: str
    uid: int
    gid: int

    def process_options(self) -> dict[str, Any]:
        """Arguments of `subprocess.run` for a process of this account that nothing of the caller disturbs."""
        options: dict[str, Any] = {"env": ENVIRONMENT, "cwd": "/", "umask": 0o077}
        if self.uid != os.geteuid():
            options.update(user=self.uid, group=self.gid, extra_groups=[])
        return options

    def run(self, command: Sequence[str], *, text: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end with `text` as input; `stdout` has its output and its errors.

        `options` are those of `subprocess.run`.
        """
        try:
            return subprocess.run(  # noqa: S603 - the commands are ours, each argument is passed as it is
                command,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=PROGRAM_SECONDS,
                check=False,
                **(self.process_options() | options),
            )
        except subprocess.TimeoutExpired as error:
            program = Path(command[0]).name
            raise ServiceError(
                f"{program} did not end within {PROGRAM_SECONDS} s: see whether the disk is overloaded, then try again."
            ) from error

    def is_open_to_us(self) -> bool:
        """Whether this process can really become the account: in some containers root may not."""
        try:
            return self.run(["/bin/sh", "-c", ":"]).returncode == 0
        except OSError:
            return False

    def can_enter(self, folder: Path) -> bool:
        """Whether this account reaches what lies in `folder`."""
        return self.run(["/bin/sh", "-c", 'test -x "$1"', "sh", str(folder)]).returncode == 0

    def own(self, path: Path) -> None:
        """Give a file or folder that this process has just made to the account."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid)


def account_for(data: Path) -> Account:
    """Who runs the server of the data folder `data`: its owner, or for a folder to come whoever may own it.

    Raises SettingsError when nobody may.
    """
    if data.exists():
        return _owner(data)
    if os.geteuid() == 0:
        return _unprivileged()
    try:
        return _account(pwd.getpwuid(os.geteuid()))
    except KeyError as error:
        raise SettingsError(
            f"User id {os.geteuid()} has no name on this machine and PostgreSQL needs one: run as a user of "
            "/etc/passwd, or set MOMENTS_DATABASE_URL."
        ) from error


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _owner(data: Path) -> Account:
    """The owner stays the account for good: one that is preferred later could not read the data."""
    facts = data.stat()
    try:
        name = pwd.getpwuid(facts.st_uid).pw_name
    except KeyError:
        name = str(facts.st_uid)
    if facts.st_uid == 0:
        raise SettingsError(
            f"The database in {data} belongs to root, as whom PostgreSQL refuses to run: give it back to the account "
            f"that it was copied from (chown -R ACCOUNT {data})."
        )
    if os.geteuid() not in (0, facts.st_uid):
        raise SettingsError(f"The database in {data} belongs to {name}: run moments as {name}.")
    return Account(name, facts.st_uid, facts.st_gid)


def _unprivileged() -> Account:
    for name in ("postgres", "moments", "nobody"):
        try:
            account = _account(pwd.getpwnam(name))
        except KeyError:
            continue
        if account.uid != 0 and account.is_open_to_us():
            return account
    raise SettingsError(
        "PostgreSQL refuses to run as root, and root can't become postgres, moments or nobody here: run moments as an "
        "ordinary user, or set MOMENTS_DATABASE_URL."
    )
