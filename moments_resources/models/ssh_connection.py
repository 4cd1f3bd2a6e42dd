"""One connection to an SSH host: reached, its key checked, then logged in. Imported lazily, for paramiko.

paramiko is used directly here, and sshtunnel only for forwarding (forwarding.py): sshtunnel alone connects without a
time limit, takes one host key of one type, and says "could not establish session" whatever went wrong.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko  # noqa: TID253 - this module is imported where a tunnel is opened
from paramiko.packet import Packetizer  # noqa: TID253

from moments_core.errors import CancelledError, NetworkError, ServiceError, SettingsError
from moments_core.model_entry import Ssh
from moments_resources.models.known_hosts import HostKeys, read_host_keys
from moments_resources.models.ssh_key import read_key

KEEPALIVE_S = 15  # routers forget a silent connection after 60 s at the earliest
_UNANSWERED_MS = 30_000  # two keepalives that nobody acknowledged: the host is gone, though no packet says so
_CLOSE_S = 5.0  # the transport's thread ends within 0.1 s of its socket

LOG_NAME = "moments.ssh"
# paramiko logs what it also raises, with tracebacks, and Python prints what no handler takes.
logging.getLogger(LOG_NAME).setLevel(logging.CRITICAL + 1)


class _Packets(Packetizer):  # type: ignore[misc]  # paramiko has no types
    """paramiko's, with a clock in place of its timer: that is a thread which outlives a failed handshake by 15 s."""

    _deadline = float("inf")

    def start_handshake(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout

    def handshake_timed_out(self) -> bool:
        return time.monotonic() > self._deadline

    def complete_handshake(self) -> None:
        self._deadline = float("inf")


class SshConnection:
    """A connection to `ssh.host` in the name of `ssh.user`. `abort` may be called by any thread, the rest by one.

    `remote`: host and port that it is for, as `ssh.host` sees them. `connect_s`: for each of reaching the host,
    agreeing on keys, logging in, and reaching `remote`.
    """

    def __init__(self, ssh: Ssh, remote: tuple[str, int], *, connect_s: float) -> None:
        self._ssh = ssh
        self.remote = remote
        self._connect_s = connect_s
        self._socket: socket.socket | None = None
        self._transport: paramiko.Transport | None = None
        self._is_aborted = False
        self._host = _place(ssh.host, ssh.port)

    def connect(self) -> paramiko.Transport:
        """Log in, with the host's key checked before, and see that `remote` takes connections.

        Raises SettingsError for what stays wrong, NetworkError or ServiceError for what may pass.
        """
        host_keys = read_host_keys(self._ssh)
        key = read_key(Path(self._ssh.key_file).expanduser())
        with self._as_network_error():
            self._socket = self._reach()
            transport = self._negotiate(self._socket, host_keys)
            host_keys.judge(transport.get_remote_server_key().asbytes())
        self._log_in(transport, key)
        self._check_remote(transport)
        return transport

    def abort(self) -> None:
        """Break the connection, wherever it stands; whoever works on it finds it broken."""
        self._is_aborted = True
        if self._socket is not None:
            with suppress(OSError):  # not connected yet, or no longer
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it; bounded in time also where the other side is frozen, since nothing is said to it."""
        # Shut down before it is closed: paramiko closes the socket under a thread that still reads from it, and the
        # number of the socket may be another one's by then.
        self.abort()
        if self._transport is not None:
            if self._transport.is_alive():
                self._transport.join(_CLOSE_S)
            self._transport.close()
        if self._socket is not None:
            self._socket.close()

    def _reach(self) -> socket.socket:
        deadline = time.monotonic() + self._connect_s
        found = socket.getaddrinfo(self._ssh.host, self._ssh.port, type=socket.SOCK_STREAM)
        failure: OSError = TimeoutError()
        for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
            self._socket = socket.socket(family, kind, protocol)
            try:
                # A share each: many hosts have an IPv6 address that nobody reaches in front of one that works.
                self._socket.settimeout(max(0.001, (deadline - time.monotonic()) / left))
                self._stop_if_aborted()
                self._socket.connect(address)
            except OSError as error:
                self._socket.close()
                failure = error
            else:
                return _guarded(self._socket)
        raise failure

    def _negotiate(self, connected: socket.socket, host_keys: HostKeys) -> paramiko.Transport:
        self._stop_if_aborted()
        transport = paramiko.Transport(connected, packetizer_class=_Packets)
        self._transport = transport
        transport.set_log_channel(LOG_NAME)
        transport.set_keepalive(KEEPALIVE_S)
        transport.auth_timeout = self._connect_s
        # Later than the timeout of start_client, which can be told from a server that breaks off.
        transport.banner_timeout = transport.handshake_timeout = 2 * self._connect_s
        options = transport.get_security_options()
        options.key_types = _known_first(options.key_types, host_keys.types)
        transport.start_client(timeout=self._connect_s)
        if not transport.initial_kex_done:
            raise TimeoutError
        return transport

    def _log_in(self, transport: paramiko.Transport, key: paramiko.PKey) -> None:
        started = time.monotonic()
        missing: list[str] = []
        with self._as_network_error():
            try:
                missing = transport.auth_publickey(self._ssh.user, key)
            except paramiko.AuthenticationException:
                # paramiko says the same for a refusal, a broken connection and a timeout.
                if not transport.is_active():
                    raise EOFError from None
                if time.monotonic() - started >= self._connect_s:
                    raise TimeoutError from None
                raise self._refused() from None
        if missing:
            raise self._refused()

    def _check_remote(self, transport: paramiko.Transport) -> None:
        place = _place(*self.remote)
        origin = ("127.0.0.1", 0)
        try:
            transport.open_channel("direct-tcpip", self.remote, origin, timeout=self._connect_s).close()
        except paramiko.ChannelException as error:
            if error.code == 1:  # administratively prohibited (RFC 4254, 5.1)
                raise SettingsError(
                    f"{self._ssh.host} does not let {self._ssh.user} through to {place}: its sshd must allow it "
                    f"(AllowTcpForwarding, PermitOpen)."
                ) from None
            raise ServiceError(
                f"Nothing answers at {place} as seen from {self._ssh.host}: start the model's server, or check "
                f"remote_host and remote_port."
            ) from None
        except (paramiko.SSHException, EOFError, OSError):
            self._stop_if_aborted()
            raise NetworkError(
                f"{place} does not answer as seen from {self._ssh.host}: check remote_host and the firewall."
            ) from None

    def _refused(self) -> SettingsError:
        return SettingsError(
            f"{self._ssh.host} refuses the key {self._ssh.key_file} for user {self._ssh.user}: add its public part to "
            f"~{self._ssh.user}/.ssh/authorized_keys there, or check ssh.user and ssh.key_file."
        )

    def _stop_if_aborted(self) -> None:
        if self._is_aborted:
            raise CancelledError(f"The connection to {self._host} was given up before it stood.")

    @contextmanager
    def _as_network_error(self) -> Iterator[None]:
        try:
            yield
        except paramiko.ssh_exception.IncompatiblePeer:
            raise SettingsError(
                f"{self._host} and moments have no way of encrypting in common: update the SSH server there."
            ) from None
        except (OSError, UnicodeError, EOFError, paramiko.SSHException) as error:
            self._stop_if_aborted()
            raise NetworkError(f"{self._host} {_why(error)}.", cause=type(error).__name__) from None


def _why(error: Exception) -> str:
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "can't be found: check ssh.host, and whether this machine resolves names"
    if isinstance(error, TimeoutError):
        return "does not answer in time: check ssh.host, ssh.port and the firewall"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections: check ssh.port, or start the SSH server there"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError):
        return f"can't be reached ({error.strerror}): check ssh.host and the network"
    return "broke off or does not speak SSH: check ssh.port; a busy SSH server may also turn connections away"


def _guarded(connected: socket.socket) -> socket.socket:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
    return connected


def _known_first(supported: tuple[str, ...], types: tuple[str, ...]) -> tuple[str, ...]:
    """The algorithms of the host key types that we know, then the others: a host shows the first one that it has.

    The others stay so that a host which changed its type is told from one that speaks no SSH.
    """
    known = tuple(name for name in supported if _key_type(name) in types)
    return known + tuple(name for name in supported if name not in known)


def _key_type(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
