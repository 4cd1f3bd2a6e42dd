"""The folder of the embedded database, and the small files in it.

The state folder decides: its database lies in MOMENTS_HOME/postgres. Where root's state folder can't be entered by
the account that the server runs as, the database goes to a folder of ours that it can enter, and the note
MOMENTS_HOME/postgres/location names it. The permissions of a folder that we did not make are never touched.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from moments.postgres_account import Account
from moments_core.errors import MomentsError, ResourceError, ServiceError, SettingsError

# Where a root process puts what the server's account can't reach; the second serves a read-only /var/lib.
BASES = (Path("/var/lib/moments"), Path("/var/tmp/moments"))  # noqa: S108 - used only if root alone can write in it

OUTSIDE = "cluster-"


def read_note(path: Path) -> str:
    """The text of one of our small files, without the line end."""
    return path.read_text(encoding="utf-8", errors="surrogateescape").strip()


def open_private(path: Path, flags: int) -> int:
    """Open or make a file that its owner alone may read, whatever the umask; returns the descriptor.

    It belongs to the owner of its folder: what root makes in a user's state folder stays of use to that user.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    os.fchown(descriptor, path.parent.stat().st_uid, -1)
    return descriptor


def write_note(path: Path, text: str) -> None:
    """Write a small private file; it is on the disk whole or not at all."""
    staging = path.with_name(f".{path.name}.new")
    descriptor = open_private(staging, os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    staging.rename(path)


def state_folder(home: Path) -> Path:
    """home/postgres, made where it is missing.

    The account of the server passes through it to the data, so root's lets others pass; each secret in it is 0600.
    """
    if {"\n", "\r"} & set(str(home)):
        raise SettingsError("PostgreSQL can't use a folder with a line break in its name: set MOMENTS_HOME to another.")
    home.mkdir(parents=True, exist_ok=True)
    folder = home / "postgres"
    try:
        folder.mkdir()
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    return folder


def cluster_folder(home: Path) -> Path:
    """The folder that holds the database of `home`: home/postgres, or the one that its note names."""
    try:
        return Path(read_note(home / "postgres" / "location"))
    except FileNotFoundError:
        return home / "postgres"


def new_cluster_folder(home: Path, account: Account, bases: Sequence[Path] = BASES) -> Path:
    """A folder that `account` can enter for the database of `home`.

    The name of one outside is random, so a fresh home never meets the database of a former one at the same path.
    """
    noted = cluster_folder(home)
    if not noted.is_dir():
        raise SettingsError(
            f"The database of {home} was kept in {noted}, which is gone: bring it back, or remove "
            f"{home / 'postgres' / 'location'} to begin with an empty one."
        )
    if account.can_enter(noted):
        return noted
    for base in trusted_bases(bases):
        try:
            folder = Path(tempfile.mkdtemp(prefix=OUTSIDE, dir=base))
        except FileNotFoundError:  # the last database in it was removed this very moment, and the base with it
            continue
        folder.chmod(0o711)
        if account.can_enter(folder):
            write_note(folder / "home", str(home))
            write_note(home / "postgres" / "location", str(folder))
            return folder
        folder.rmdir()
    raise SettingsError(
        f"PostgreSQL must run as {account.name} here, who can enter neither {home} nor "
        f"{' nor '.join(map(str, bases))}: set MOMENTS_HOME to a folder that {account.name} can enter."
    )


def adopt(home: Path, folder: Path) -> None:
    """Keep the note by which a folder outside is recognised right after its home was moved."""
    if folder != home / "postgres" and not is_claimed(folder):
        write_note(folder / "home", str(home))


def is_claimed(folder: Path) -> bool:
    """Whether the home that a folder outside was made for still names it. PermissionError where we may not look."""
    try:
        home = Path(read_note(folder / "home"))
        return read_note(home / "postgres" / "location") == str(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False


def outside_folders(bases: Sequence[Path] = BASES) -> list[Path]:
    """All database folders outside a state folder, whose ever they are."""
    return [folder for base in bases for folder in sorted(base.glob(f"{OUTSIDE}*"))]


def remove_folders(home: Path) -> None:
    """Delete the database of `home`; one outside only if it is this home's, not that of a home it was copied from."""
    outside = cluster_folder(home)
    if (outside / "home").is_file() and outside != home / "postgres":
        adopt(home, outside)
        if read_note(outside / "home") == str(home):
            shutil.rmtree(outside)
            with suppress(OSError):  # others have theirs there
                outside.parent.rmdir()
    if (home / "postgres").is_dir():
        shutil.rmtree(home / "postgres")


def trusted_bases(bases: Sequence[Path] = BASES) -> Iterator[Path]:
    """Those of `bases` that exist or can be made and that nobody but us can write in.

    /var/tmp is everybody's: a folder that another user put there could hold programs of theirs.
    """
    for base in bases:
        try:
            with suppress(FileExistsError):
                base.mkdir()
                base.chmod(0o755)
            facts = base.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022:
            yield base


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn the operating system's refusals into sentences about the state folder."""
    try:
        yield
    except OSError as error:
        raise _as_sentence(error, home) from error


def _as_sentence(error: OSError, home: Path) -> MomentsError:
    facts = {"reason": error.strerror or str(error), "file": str(error.filename or home)}
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"The disk of {home} is full: free some space, then run this again.", **facts)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return SettingsError(f"{home} is not a folder: set MOMENTS_HOME to a folder of its own.", **facts)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SettingsError(
            f"This user may not use the state folder {home}: run moments as its owner, or set MOMENTS_HOME to another "
            "folder.",
            **facts,
        )
    return ServiceError(
        f"The embedded PostgreSQL in {home} can't be used ({facts['reason']}): run `moments doctor`.", **facts
    )
