"""The PostgreSQL that moments brings along: one server for each state folder, shared by all processes that use it.

It listens on 127.0.0.1 with a password, outlives the process that started it and is stopped explicitly.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moments.postgres_account import Account, account_for
from moments.postgres_cluster import Cluster, refusal
from moments.postgres_commands import APP, SUPERUSER
from moments.postgres_folder import (
    BASES,
    adopt,
    cluster_folder,
    explained,
    is_claimed,
    new_cluster_folder,
    open_private,
    outside_folders,
    read_note,
    remove_folders,
    state_folder,
    write_note,
)
from moments.postgres_programs import Programs, programs_for
from moments_core.errors import ServiceError, SettingsError

# Another program may take the port between our look and PostgreSQL's bind; three times in a row it is not chance.
PORT_ATTEMPTS = 3

# What libpq reads behind a connection string's back. PGOPTIONS, PGSSLMODE or PGHOSTADDR of a shell that works with
# another database would break each connection to this one.
LIBPQ_VARIABLES = """
    PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGREQUIREAUTH PGCHANNELBINDING PGSERVICE
    PGSERVICEFILE PGOPTIONS PGAPPNAME PGSSLMODE PGREQUIRESSL PGSSLNEGOTIATION PGSSLCOMPRESSION PGSSLCERT PGSSLKEY
    PGSSLCERTMODE PGSSLROOTCERT PGSSLCRL PGSSLCRLDIR PGSSLSNI PGREQUIREPEER PGSSLMINPROTOCOLVERSION
    PGSSLMAXPROTOCOLVERSION PGGSSENCMODE PGKRBSRVNAME PGGSSLIB PGGSSDELEGATION PGCONNECT_TIMEOUT PGCLIENTENCODING
    PGTARGETSESSIONATTRS PGLOADBALANCEHOSTS PGMINPROTOCOLVERSION PGMAXPROTOCOLVERSION PGDATESTYLE PGTZ PGGEQO
    PGSYSCONFDIR PGLOCALEDIR
"""


@dataclass(frozen=True)
class ServerAddress:
    """Where the server answers. `url` holds the password: it is for SQLAlchemy, never for a message."""

    url: str = field(repr=False)
    data_dir: Path
    port: int


class EmbeddedPostgres:
    """The server of the state folder `home` (MOMENTS_HOME).

    The methods take libpq's own variables (PGHOST, PGOPTIONS, ...) out of this process's environment: whoever asks
    for this server is going to connect to it.
    """

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._folder = self._home / "postgres"

    def ensure_running(self) -> ServerAddress:
        """The address of a server that answers; started, and made at first, if need be.

        Any number of processes may ask at once. Raises SettingsError (the folder or the account can't be used),
        ResourceError (disk or memory) or ServiceError (it does not start, or does not answer), with the last lines of
        the log in `evidence["log"]`.
        """
        if address := self.address():
            return address
        with explained(self._home), self._alone():
            return self._start()

    def address(self) -> ServerAddress | None:
        """The address of the running server; None when none takes connections. Starts nothing."""
        _forget_libpq_variables()
        with explained(self._home):
            cluster = self._cluster()
            port = cluster.port()
            address = self._address(cluster, port) if port else None
        return address if address and refusal(address.url) is None else None

    def stop(self) -> bool:
        """End the server; True when one ran. Raises ServiceError when it can't be ended from here."""
        if not self._folder.is_dir():
            return False
        with explained(self._home), self._alone():
            return self._cluster().stop()

    def superuser_url(self) -> str:
        """URL of the running server for its superuser, who makes databases and roles; holds a password like `url`.

        Raises ServiceError when no server takes connections.
        """
        address = self.address()
        if address is None:
            raise ServiceError("The embedded PostgreSQL is not running: start it with `moments up`.")
        return self._url(SUPERUSER, "superuser_password", address.port)

    def remove(self) -> None:
        """End the server and delete its database for good, wherever it lies."""
        if not self._folder.is_dir():
            return
        with explained(self._home), self._alone():
            self._cluster().stop()
            remove_folders(self._home)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes of this home from starting or stopping the server meanwhile."""
        lock = open_private(state_folder(self._home) / "lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _start(self) -> ServerAddress:
        cluster = self._cluster()
        cluster.end_orphans()
        if cluster.runs() and cluster.answers((address := self._address(cluster, cluster.port() or 0)).url):
            return address  # started while this process waited for its turn
        account = account_for(cluster.data)
        programs = programs_for(account, cluster.data)
        if not cluster.data.exists():
            cluster = self._create(account, programs)
        adopt(self._home, cluster.folder)
        return self._launch(cluster, account, programs)

    def _create(self, account: Account, programs: Programs) -> Cluster:
        cluster = Cluster(new_cluster_folder(self._home, account))
        passwords = {"password": secrets.token_urlsafe(24), "superuser_password": secrets.token_urlsafe(24)}
        for name, password in passwords.items():
            write_note(self._folder / name, password)
        cluster.create(account, programs, **passwords)
        return cluster

    def _launch(self, cluster: Cluster, account: Account, programs: Programs) -> ServerAddress:
        if not account.can_enter(cluster.data):
            raise SettingsError(
                f"PostgreSQL runs as {account.name}, who can't enter {cluster.data} any more: let others pass through "
                "the folders above it (chmod o+x), or move MOMENTS_HOME."
            )
        for _ in range(PORT_ATTEMPTS):
            address = self._address(cluster, self._free_port())
            cluster.launch(account, programs, address.port)
            if cluster.answers(address.url):
                return address
            if _is_free(address.port):
                break
        raise cluster.failure("The embedded PostgreSQL did not start", "put right what its log says, then try again")

    def _free_port(self) -> int:
        """The port of the last start, or another one where that is taken."""
        note = self._folder / "port"
        last = read_note(note) if note.is_file() else ""
        if last.isdecimal() and _is_free(int(last)):
            return int(last)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        write_note(note, str(port))
        return port

    def _address(self, cluster: Cluster, port: int) -> ServerAddress:
        return ServerAddress(self._url(APP, "password", port), cluster.data, port)

    def _url(self, role: str, password_note: str, port: int) -> str:
        """URL of the database that is named after `role`."""
        note = self._folder / password_note
        try:
            return f"postgresql+psycopg2://{role}:{read_note(note)}@127.0.0.1:{port}/{role}"
        except FileNotFoundError as error:
            raise SettingsError(
                f"{note} is gone, and nobody can open the database of {self._home} without it: bring it back, or set "
                "MOMENTS_HOME to another folder."
            ) from error

    def _cluster(self) -> Cluster:
        return Cluster(cluster_folder(self._home))


def orphans(bases: Sequence[Path] = BASES) -> list[Path]:
    """Database folders outside any state folder whose own state folder is gone. Nothing removes them but their owner.

    A folder that is in use, or whose state folder this user may not look at, is none.
    """
    return [folder for folder in outside_folders(bases) if _is_orphan(folder)]


def _is_orphan(folder: Path) -> bool:
    try:
        return not is_claimed(folder) and not Cluster(folder).runs()
    except PermissionError:
        return False


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except (OSError, OverflowError):
        return False


def _forget_libpq_variables() -> None:
    for name in LIBPQ_VARIABLES.split():
        os.environ.pop(name, None)
