from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg2
import pytest

from moments.embedded_postgres import EmbeddedPostgres, ServerAddress
from moments.postgres_account import account_for
from moments.postgres_cluster import LOG_BYTES, Cluster, refusal
from moments.postgres_commands import server_command
from moments.postgres_folder import cluster_folder, read_note
from moments.postgres_programs import installed_programs, programs_for
from moments_core.errors import MomentsError, ResourceError, ServiceError, SettingsError

PROJECT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ASK = "import sys; from pathlib import Path; from moments.embedded_postgres import EmbeddedPostgres\n"
START = ASK + "print(EmbeddedPostgres(Path(sys.argv[1])).ensure_running().port)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for most tests; its name has all that a shell would trip over."""
    home = tmp_path_factory.mktemp("state") / """my "home" o'f $x 😀"""
    yield home
    EmbeddedPostgres(home).remove()


@pytest.fixture
def server(home: Path) -> ServerAddress:
    return EmbeddedPostgres(home).ensure_running()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike pytest's own; servers in its sub-folders are ended with it."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    for home in folder.iterdir():
        EmbeddedPostgres(home).remove()
    shutil.rmtree(folder)


def python(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path]), **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)


def said(process: subprocess.Popen[str]) -> str:
    """What a process printed; it ends only when nobody holds its output any more."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output.strip()


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with (
        closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def superuser(home: Path) -> Iterator[psycopg2.extensions.cursor]:
    url = EmbeddedPostgres(home).superuser_url().replace("+psycopg2", "")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


def connection_error(url: str) -> str | None:
    try:
        query(url, "select 1")
    except psycopg2.OperationalError as error:
        return str(error)
    return None


def postmaster(address: ServerAddress) -> psutil.Process:
    return psutil.Process(int((address.data_dir / "postmaster.pid").read_text().split("\n")[0]))


def kill_postmaster(address: ServerAddress) -> None:
    process = postmaster(address)
    process.kill()
    psutil.wait_procs([process], timeout=10)


def as_nobody(work: Callable[[], None]) -> None:
    """Run `work` as an ordinary user: here, or where this is root in a child that has become nobody."""
    if os.geteuid() != 0:
        work()
        return
    nobody = pwd.getpwnam("nobody")
    if not account_for(Path("/nonexistent")).can_enter(Path(psycopg2.__file__).parent):
        pytest.skip("the environment lies where no other account can read it")
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            work()
        except BaseException as error:  # noqa: BLE001 - the child must never return into pytest
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_second_process_shares_the_server(home: Path, server: ServerAddress) -> None:
    assert int(said(python(START, home))) == server.port
    assert EmbeddedPostgres(home).address() == server


def test_the_application_owns_a_utf8_database_and_is_no_superuser(server: ServerAddress) -> None:
    role = query(server.url, "select rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname = current_user")
    database = "select datdba::regrole::text, pg_encoding_to_char(encoding), datlocprovider, datlocale from pg_database"
    assert role == [(False, False, False)]
    assert query(server.url, f"{database} where datname = current_database()") == [("moments", "UTF8", "b", "C.UTF-8")]
    assert query(server.url, "select lower('ÉCOLE'), current_setting('timezone')") == [("école", "UTC")]


def test_the_superuser_can_make_databases(home: Path, server: ServerAddress) -> None:
    who = "select rolsuper from pg_roles where rolname = current_user"
    assert query(EmbeddedPostgres(home).superuser_url(), who) == [(True,)]


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(server: ServerAddress, password: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(host="127.0.0.1", port=server.port, user="moments", password=password, dbname="moments")


def test_nothing_listens_beyond_loopback(server: ServerAddress) -> None:
    listening = [c.laddr[:2] for c in postmaster(server).net_connections("all") if c.status == psutil.CONN_LISTEN]
    assert listening == [("127.0.0.1", server.port)]


def test_no_secret_can_be_seen(home: Path, server: ServerAddress) -> None:
    secrets = [read_note(home / "postgres" / name) for name in ("password", "superuser_password")]
    commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    logs = [log.read_text() for log in (*server.data_dir.glob("log/*"), cluster_folder(home) / "start.log")]
    seen = "\n".join([repr(server), *commands, *logs])
    assert not [secret for secret in secrets if secret in seen]
    notes = [path for path in (home / "postgres").iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in notes} == {0o600}


def test_variables_of_another_database_disturb_neither_start_nor_connections(home: Path, open_folder: Path) -> None:
    (open_folder / "lib").mkdir(mode=0o755)
    (open_folder / "lib" / "libz.so.1").write_text("no library")
    script = ASK + (
        "import os, psycopg2\n"
        "os.environ['LD_LIBRARY_PATH'] = sys.argv[2]\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.stop()\n"
        "connection = psycopg2.connect(server.ensure_running().url.replace('+psycopg2', ''))\n"
        "cursor = connection.cursor(); cursor.execute('show timezone'); print(cursor.fetchone()[0])"
    )
    other = {
        "PGHOST": "192.0.2.1",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGSSLMODE": "require",
        "PGTZ": "Asia/Tokyo",
    }
    odd = {"PGDATA": "/nowhere", "PGSERVICE": "none", "PGOPTIONS": "-c x", "LC_ALL": "xx", "TZ": "Asia/Tokyo"}
    assert said(python(script, home, open_folder / "lib", **other, **odd)) == "UTC"


def test_it_is_stopped_explicitly_and_keeps_its_data(home: Path, server: ServerAddress) -> None:
    query(server.url, "create table if not exists kept (n int); insert into kept values (1)")
    large = server.data_dir / "log" / "server-Xyz.log"
    with large.open("w") as file:
        file.truncate(LOG_BYTES + 1)
    postgres = EmbeddedPostgres(home)
    assert postgres.stop()
    assert not postgres.stop()
    assert postgres.address() is None
    with pytest.raises(ServiceError, match="not running"):
        postgres.superuser_url()
    assert query(postgres.ensure_running().url, "select n from kept") == [(1,)]
    assert not large.exists()


def test_a_home_that_never_had_a_server_has_none_to_stop(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "new")
    assert postgres.address() is None
    assert not postgres.stop()
    postgres.remove()
    assert not (tmp_path / "new").exists()


def test_it_outlives_its_starter_and_the_terminal(home: Path, server: ServerAddress) -> None:
    EmbeddedPostgres(home).stop()
    said(python(START, home))
    address = EmbeddedPostgres(home).address()
    assert address is not None
    assert os.getsid(postmaster(address).pid) != os.getsid(0)


def test_rows_survive_a_killed_postmaster_whose_pid_was_given_away(home: Path, server: ServerAddress) -> None:
    query(server.url, "create table if not exists precious (n int); insert into precious values (7)")
    kill_postmaster(server)
    pid_file = server.data_dir / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], **account_for(server.data_dir).process_options()) as heir:
        try:
            pid_file.write_text(f"{heir.pid}\n{pid_file.read_text().partition(chr(10))[2]}")
            assert query(EmbeddedPostgres(home).ensure_running().url, "select distinct n from precious") == [(7,)]
            assert heir.poll() is None
        finally:
            heir.kill()


def test_a_backend_that_outlived_its_postmaster_is_ended_before_a_new_start(home: Path, server: ServerAddress) -> None:
    with closing(psycopg2.connect(server.url.replace("+psycopg2", ""), async_=True)) as busy:
        while busy.poll() != psycopg2.extensions.POLL_OK:
            time.sleep(0.005)
        busy.cursor().execute("select count(*) from generate_series(1, 1000000000000)")
        backend = psutil.Process(busy.get_backend_pid())
        kill_postmaster(server)
        assert Cluster(cluster_folder(home)).runs()
        again = EmbeddedPostgres(home).ensure_running()
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
        assert postmaster(again).is_running()


def test_a_taken_port_is_replaced_by_another(home: Path, server: ServerAddress) -> None:
    postgres = EmbeddedPostgres(home)
    postgres.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        other = postgres.ensure_running().port
        assert other != server.port
    assert postgres.ensure_running().port == other


def test_a_full_house_is_not_a_dead_server(home: Path, server: ServerAddress) -> None:
    postgres = EmbeddedPostgres(home)
    with superuser(home) as cursor:
        cursor.execute("alter system set superuser_reserved_connections = 199")
    postgres.stop()
    with closing(psycopg2.connect(postgres.ensure_running().url.replace("+psycopg2", ""))):
        assert "slots" in (connection_error(server.url) or "")
        assert postgres.ensure_running() == server
    with superuser(home) as cursor:
        cursor.execute("alter system reset all")
    postgres.stop()


def test_a_frozen_server_is_reported_with_the_end_of_its_log(home: Path, server: ServerAddress) -> None:
    postmaster(server).suspend()
    try:
        with pytest.raises(ServiceError, match="does not answer") as failure:
            Cluster(cluster_folder(home), patience_s=0).answers(server.url)
    finally:
        postmaster(server).resume()
    assert "log output" in str(failure.value.evidence["log"])
    assert server.url not in str(failure.value.evidence)


def test_a_server_that_replays_its_log_is_waited_for(tmp_path: Path) -> None:
    message = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
    cluster = Cluster(tmp_path, patience_s=0.01)  # it asks every 20 ms
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listener.settimeout(10)

        def replay() -> None:
            for _ in range(3):
                stranger, _ = listener.accept()
                with stranger:
                    stranger.recv(1000)
                    stranger.sendall(b"E" + (len(message) + 4).to_bytes(4, "big") + message)
            listener.close()
            lock.close()

        thread = threading.Thread(target=replay)
        thread.start()
        url = f"postgresql+psycopg2://moments:x@127.0.0.1:{listener.getsockname()[1]}/moments?sslmode=disable"
        try:
            assert not cluster.answers(url)
        finally:
            thread.join()


def test_a_server_started_by_other_means_is_not_doubled(home: Path, server: ServerAddress) -> None:
    EmbeddedPostgres(home).stop()
    account = account_for(server.data_dir)
    programs = programs_for(account, server.data_dir)
    command = [
        *server_command(programs, server.data_dir, server.port),
        "--listen_addresses=",
        "--unix_socket_directories=.",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **account.process_options()) as foreign:
        try:
            while Cluster(cluster_folder(home)).port() is None:
                time.sleep(0.01)
            with pytest.raises(ServiceError, match="moments did not start"):
                EmbeddedPostgres(home).ensure_running()
        finally:
            foreign.send_signal(signal.SIGINT)


def test_a_stranger_on_the_port_never_hears_the_password() -> None:
    heard = bytearray()

    def ask_for_a_password(listener: socket.socket) -> None:
        stranger, _ = listener.accept()
        with stranger:
            stranger.settimeout(5)
            stranger.recv(1000)
            stranger.sendall(b"R\0\0\0\x08\0\0\0\x03")  # AuthenticationCleartextPassword
            heard.extend(stranger.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=ask_for_a_password, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        assert refusal(f"postgresql+psycopg2://moments:sesame@127.0.0.1:{port}/moments?sslmode=disable") is not None
        thread.join()
    assert b"sesame" not in heard


def test_a_lost_password_is_named(home: Path, server: ServerAddress) -> None:
    note = home / "postgres" / "password"
    kept = note.rename(note.with_suffix(".kept"))
    try:
        with pytest.raises(SettingsError, match="password is gone"):
            EmbeddedPostgres(home).ensure_running()
    finally:
        kept.rename(note)


def test_four_processes_at_once_after_a_killed_start_get_one_server(open_folder: Path) -> None:
    home = open_folder / "home"
    killed = python(START, home)
    while not list(home.glob("postgres/new-*/data/global")):
        assert killed.poll() is None
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    starters = [python(START, home) for _ in range(4)]
    ports = {said(starter) for starter in starters}
    address = EmbeddedPostgres(home).address()
    assert address is not None
    assert ports == {str(address.port)}
    assert address.data_dir == home / "postgres" / "data"
    assert not list(home.glob("postgres/new-*"))


def test_an_ordinary_user_has_it_all_in_the_home(open_folder: Path) -> None:
    theirs = open_folder / "theirs"
    theirs.mkdir()
    if os.geteuid() == 0:
        os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)

    def work() -> None:
        os.umask(0)
        address = EmbeddedPostgres(theirs).ensure_running()
        assert query(address.url, "select 1") == [(1,)]
        assert address.data_dir == theirs / "postgres" / "data"

    as_nobody(work)
    assert (theirs / "postgres").stat().st_mode & 0o777 == 0o700
    assert EmbeddedPostgres(theirs).ensure_running().data_dir == theirs / "postgres" / "data"


@as_root
def test_an_ordinary_user_may_not_use_the_home_of_root(open_folder: Path) -> None:
    (open_folder / "home").mkdir()

    def work() -> None:
        with pytest.raises(SettingsError, match="may not use the state folder"):
            EmbeddedPostgres(open_folder / "home").ensure_running()

    as_nobody(work)


@as_root
def test_below_a_closed_folder_the_data_goes_where_the_server_can_reach_it(home: Path, server: ServerAddress) -> None:
    closed = home.parent
    assert closed.stat().st_mode & 0o777 == 0o700
    assert not server.data_dir.is_relative_to(closed)
    assert server.data_dir.owner() != "root"
    assert server.data_dir.parent == cluster_folder(home)


@as_root
def test_a_folder_that_was_closed_later_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    data = tmp_path / "home" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(f"{max(installed_programs())}\n")
    os.chown(data, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(SettingsError, match=r"can't enter .* any more"):
        EmbeddedPostgres(tmp_path / "home").ensure_running()


@as_root
def test_a_full_disk_is_told_apart(open_folder: Path) -> None:
    disk = open_folder / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(ResourceError, match=r"disk .* is full"):
            EmbeddedPostgres(disk).ensure_running()
        assert not list(disk.glob("postgres/new-*"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", ["file", "file/below", "line\nbreak"])
def test_a_home_that_can_not_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="MOMENTS_HOME") as refused:
        EmbeddedPostgres(tmp_path / name).ensure_running()
    assert isinstance(refused.value, MomentsError)
