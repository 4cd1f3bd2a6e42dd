from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from moments_core.errors import CancelledError, MomentsError, NetworkError, ServiceError, SettingsError
from moments_core.model_entry import Ssh
from moments_resources.models.tunnel import Tunnel
from tests.stand_ins.leftovers import Leftovers
from tests.stand_ins.ssh_keys import known_line
from tests.stand_ins.ssh_process import SshProcess, asyncssh_process, openssh_process
from tests.stand_ins.ssh_server import SshServer

ROOT = Path(__file__).parents[3]
WAIT_S = 20.0  # only a hang takes as long


class Echo:
    """Sends back what it gets, each connection in a thread of its own; or says nothing, or talks without end."""

    def __init__(self, manner: str = "echo") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._manner = manner
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, name="remote")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,), name="remote"))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while self._manner == "flood":
                    connection.sendall(bytes(65536))
                while data := connection.recv(65536):
                    if self._manner == "echo":
                        connection.sendall(data)
            except OSError:
                return

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with Echo() as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with SshServer(tmp_path / "ssh") as running:
        yield running


@pytest.fixture(params=[asyncssh_process, openssh_process], ids=["asyncssh", "openssh"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SshProcess]:
    made = request.param(tmp_path / "ssh")
    if made is None:
        pytest.skip("OpenSSH's sshd is not installed")
    with made as running:
        yield running


def tunnel(server: SshServer | SshProcess, port: int, connect_s: float = 10.0, **changes: Any) -> Tunnel:
    return Tunnel(Ssh(**{**server.entry_fields(), **changes}), "127.0.0.1", port, connect_s=connect_s)


def said_back(port: int, data: bytes = b"hello") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        return exchanged(connection, data)


def exchanged(connection: socket.socket, data: bytes) -> bytes:
    connection.settimeout(WAIT_S)
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    got = b""
    while len(got) < len(data) and (some := connection.recv(65536)):
        got += some
    sender.join()
    return got


def ours(before: Leftovers) -> list[str]:
    """Threads that are new and not of a stand-in: the other end's sockets close a moment later than ours."""
    return [name for name in before.new() if name.startswith("<") and "(remote," not in name]


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def refusal(made: Tunnel, error: type[MomentsError]) -> str:
    with pytest.raises(error) as caught:
        made.open()
    assert type(caught.value) is error
    return str(caught.value)


# --- what goes through


def test_bytes_go_through_both_ways_and_as_they_are(server: SshServer, echo: Echo) -> None:
    data = os.urandom(3_000_000)  # more than the window of a channel
    with tunnel(server, echo.port) as opened:
        assert said_back(opened.open(), data) == data


def test_many_connections_share_one_login(server: SshServer, echo: Echo) -> None:
    with tunnel(server, echo.port) as opened:
        port = opened.open()
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        assert [exchanged(c, b"%d" % n) for n, c in enumerate(connections)] == [b"%d" % n for n in range(8)]
        for connection in connections:
            connection.close()
    assert server.connections_ever == 1
    assert server.logins_tried == 1


def test_only_this_machine_can_use_it(server: SshServer, echo: Echo) -> None:
    with tunnel(server, echo.port) as opened:
        port = opened.open()
        listening = [c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
        assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]


def test_two_tunnels_have_two_ports(server: SshServer, echo: Echo) -> None:
    with tunnel(server, echo.port) as one, tunnel(server, echo.port) as two:
        assert one.open() != two.open()


def test_openssh_lets_it_through(tmp_path: Path, echo: Echo) -> None:
    server = openssh_process(tmp_path / "ssh")
    if server is None:
        pytest.skip("OpenSSH's sshd is not installed")
    with server, tunnel(server, echo.port) as opened:
        assert said_back(opened.open()) == b"hello"


# --- which host, which key


def test_the_type_of_key_that_we_know_is_the_one_that_is_asked_for(tmp_path: Path, echo: Echo) -> None:
    kinds = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")
    with SshServer(tmp_path / "ssh", host_key_types=kinds) as server:
        for key in server.keys.host:
            server.keys.known_hosts.write_text(known_line(key, server.port))
            with tunnel(server, echo.port) as opened:
                assert said_back(opened.open()) == b"hello"


def test_a_host_that_shows_another_key_gets_no_login(server: SshServer, echo: Echo) -> None:
    server.show_other_host_keys()
    assert "this may be an attack" in refusal(tunnel(server, echo.port), SettingsError)
    assert (server.connections_ever, server.logins_tried) == (1, 0)


def test_a_host_whose_known_key_is_of_a_type_that_it_does_not_have_gets_no_login(server: SshServer, echo: Echo) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    server.keys.known_hosts.write_text(known_line(other, server.port))
    assert "shows a host key of type ssh-ed25519" in refusal(tunnel(server, echo.port), SettingsError)
    assert server.logins_tried == 0


def test_a_revoked_host_key_gets_no_login(server: SshServer, echo: Echo) -> None:
    line = server.keys.known_hosts.read_text()
    server.keys.known_hosts.write_text(f"{line}@revoked {line}")
    assert "revokes" in refusal(tunnel(server, echo.port), SettingsError)
    assert server.logins_tried == 0


def test_a_host_that_nobody_knows_is_not_even_called(server: SshServer, echo: Echo) -> None:
    server.keys.known_hosts.write_text("")
    assert f"ssh-keyscan -p {server.port} 127.0.0.1" in refusal(tunnel(server, echo.port), SettingsError)
    assert server.connections_ever == 0


def test_nothing_of_the_user_s_own_ssh_is_used(
    server: SshServer, echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(f"Host *\n  Port 1\n  User nobody\n  ProxyCommand touch {home}/was-read\n")
    (home / ".ssh" / "id_ed25519").write_bytes(server.keys.key_file.read_bytes())
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    server.keys.key_file.write_bytes(stranger.export_private_key())
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
    refusal(tunnel(server, echo.port), SettingsError)
    assert server.logins_tried == 1  # the key that was given, and no other
    assert not (home / "was-read").exists()


# --- the key file


@pytest.mark.parametrize("form", ["OpenSSH", "TraditionalOpenSSL", "PKCS8"])
@pytest.mark.parametrize(
    "make", [lambda: ec.generate_private_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)]
)
def test_keys_of_all_kinds_and_forms_are_read(
    server: SshServer, echo: Echo, make: Callable[[], Any], form: str
) -> None:
    plain = serialization.NoEncryption()
    pem = make().private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), plain)
    server.keys.user = asyncssh.import_private_key(pem)
    server.keys.key_file.write_bytes(pem)
    with tunnel(server, echo.port) as opened:
        assert said_back(opened.open()) == b"hello"


def encrypted(form: str) -> bytes:
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    return key.export_private_key(form, passphrase=b"a" * 9, rounds=1, ignore_few_rounds=True)


def remade(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda file: (file.unlink(), make(file))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Path.unlink, "can't be read (No such file or directory)"),
        (lambda file: file.chmod(0o640), "run `chmod 600 "),
        (lambda file: file.write_text("ssh-ed25519 AAAA me\n"), "the file without .pub"),
        (lambda file: file.write_bytes(encrypted("openssh")), "is protected by a passphrase"),
        (lambda file: file.write_bytes(encrypted("pkcs1-pem")), "is protected by a passphrase"),
        (lambda file: file.write_bytes(encrypted("pkcs8-pem")), "is protected by a passphrase"),
        (lambda file: file.write_text("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n"), "is a key of PuTTY"),
        (lambda file: file.write_bytes(file.read_bytes()[:150]), "is damaged"),
        (lambda file: os.truncate(file, 1_000_000), "is no private key"),
        (remade(Path.mkdir), "is no private key"),
        (remade(os.mkfifo), "is no private key"),
    ],
)
def test_a_key_file_that_is_of_no_use_is_named(
    server: SshServer, echo: Echo, change: Callable[[Path], object], says: str
) -> None:
    change(server.keys.key_file)
    sentence = refusal(tunnel(server, echo.port), SettingsError)
    assert says in sentence
    assert str(server.keys.key_file) in sentence
    assert server.connections_ever == 0


def test_a_key_that_the_host_does_not_accept_is_named(server: SshServer, echo: Echo) -> None:
    server.refuses_keys = True
    assert "refuses the key" in refusal(tunnel(server, echo.port), SettingsError)


# --- what may pass


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_remote_port_on_which_nothing_listens_is_named(server: SshServer) -> None:
    port = dead_port()
    assert f"Nothing answers at 127.0.0.1:{port} as seen from 127.0.0.1" in refusal(tunnel(server, port), ServiceError)


def test_a_host_that_forbids_forwarding_is_told_from_a_dead_port(server: SshServer, echo: Echo) -> None:
    server.refuses_forwarding = True
    assert "does not let moments through" in refusal(tunnel(server, echo.port), SettingsError)


def test_a_port_without_an_ssh_server_may_have_one_later(server: SshServer, echo: Echo) -> None:
    server.pause()
    assert "refuses connections" in refusal(tunnel(server, echo.port), NetworkError)
    server.resume()
    with tunnel(server, echo.port) as opened:
        assert said_back(opened.open()) == b"hello"


def test_a_host_that_has_no_address_may_have_one_later(server: SshServer, echo: Echo) -> None:
    key = server.keys.host[0].export_public_key().decode()
    server.keys.known_hosts.write_text(f"[gpu.invalid]:{server.port} {key}")
    assert "gpu.invalid:" in (sentence := refusal(tunnel(server, echo.port, host="gpu.invalid"), NetworkError))
    assert "can't be found" in sentence


@contextmanager
def instead_of(server: SshServer, greeting: bytes | None) -> Iterator[None]:
    """Something else on the server's port: it greets and closes, or says nothing at all."""
    server.pause()
    with socket.create_server(("127.0.0.1", server.port)) as listener:
        taken: list[socket.socket] = []

        def answer() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            taken.append(connection)
            if greeting is not None:
                connection.sendall(greeting)
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT_S)
            for connection in taken:
                connection.close()
    server.resume()


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.5-old\r\n", b"\xff" * 1000])
def test_what_speaks_no_ssh_is_named(server: SshServer, echo: Echo, greeting: bytes) -> None:
    with instead_of(server, greeting):
        sentence = refusal(tunnel(server, echo.port), (SettingsError if b"1.5" in greeting else NetworkError))
    assert f"127.0.0.1:{server.port}" in sentence


def test_what_says_nothing_is_given_up(server: SshServer, echo: Echo) -> None:
    with instead_of(server, None):
        assert "does not answer in time" in refusal(tunnel(server, echo.port, connect_s=0.3), NetworkError)


def test_a_host_that_breaks_off_at_the_login_refused_nothing(server: SshServer, echo: Echo) -> None:
    server.breaks_logins = True
    assert "broke off" in refusal(tunnel(server, echo.port), NetworkError)


def test_a_host_that_takes_for_ever_to_judge_a_login_refused_nothing(server: SshServer, echo: Echo) -> None:
    server.login_s = WAIT_S
    assert "does not answer in time" in refusal(tunnel(server, echo.port, connect_s=0.5), NetworkError)


# --- what is left behind


def test_closing_leaves_nothing(server: SshServer, echo: Echo) -> None:
    before = Leftovers()
    opened = tunnel(server, echo.port)
    port = opened.open()
    said_back(port)
    assert before.new()
    opened.close()
    opened.close()
    assert not ours(before)
    before.assert_nothing_new()
    until(lambda: server.connections == 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("manner", ["silent", "flood"])
def test_closing_leaves_nothing_though_requests_are_in_flight(server: SshServer, manner: str) -> None:
    with Echo(manner) as remote:
        before = Leftovers()
        opened = tunnel(server, remote.port)
        port = opened.open()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"a question")
            until(lambda: server.channels_ever == 2)  # the first one was to see whether the remote port answers
            if manner == "flood":  # nobody reads: sshtunnel waits for its client, with the buffers in between full
                time.sleep(0.2)
            opened.close()
            assert not ours(before)
        before.assert_nothing_new()


@pytest.mark.parametrize(
    "break_it",
    [
        lambda server: server.show_other_host_keys(),
        lambda server: setattr(server, "refuses_keys", True),
        lambda server: setattr(server, "refuses_forwarding", True),
        lambda server: server.pause(),
        lambda server: server.keys.known_hosts.write_text(""),
        lambda server: server.keys.key_file.unlink(),
    ],
    ids=["host key", "login", "forwarding", "no server", "unknown host", "no key"],
)
def test_a_tunnel_that_could_not_be_opened_leaves_nothing(
    server: SshServer, echo: Echo, break_it: Callable[[SshServer], object]
) -> None:
    break_it(server)
    before = Leftovers()
    refusal_of = tunnel(server, echo.port)
    with pytest.raises(MomentsError):
        refusal_of.open()
    before.assert_nothing_new()


def test_a_handshake_that_is_given_up_leaves_no_timer(server: SshServer, echo: Echo) -> None:
    with instead_of(server, b"SSH-2.0-OpenSSH_9.6\r\n"):
        before = Leftovers()
        refusal(tunnel(server, echo.port), NetworkError)
        assert not ours(before)


def test_a_tunnel_that_nobody_closed_keeps_no_process_alive(server: SshServer, echo: Echo) -> None:
    done = subprocess.run(
        child(server, echo.port, "sys.exit(0)"), check=False, capture_output=True, timeout=60, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: server.connections == 0)


def child(server: SshServer, port: int, then: str) -> list[str]:
    program = f"""
import socket, sys, threading
from moments_core.model_entry import Ssh
from moments_resources.models.tunnel import Tunnel
tunnel = Tunnel(Ssh(**{server.entry_fields()!r}), "127.0.0.1", {port})
port = tunnel.open()
print(port, flush=True)
{then}
"""
    return [sys.executable, "-c", program]


def test_kill_9_leaves_neither_port_nor_login(server: SshServer, echo: Echo) -> None:
    with subprocess.Popen(
        child(server, echo.port, "sys.stdin.read()"), stdout=subprocess.PIPE, cwd=ROOT, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert said_back(port) == b"hello"
        assert server.connections == 1
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    until(lambda: server.connections == 0 and server.channels == 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_nothing_is_printed_or_logged_whatever_breaks(server: SshServer, echo: Echo) -> None:
    then = f"""
sys.stdin.readline()                                     # the connection was dropped
with socket.create_connection(("127.0.0.1", port)) as late:
    late.recv(1)
tunnel.close()
try:
    Tunnel(Ssh(**{server.entry_fields()!r}), "127.0.0.1", {dead_port()}).open()
except Exception as error:
    print(type(error).__name__)
import logging
names = ("py.warnings", "sshtunnel.SSHTunnelForwarder", "paramiko.transport")
print([logging.getLogger(name).handlers for name in names])
"""
    with subprocess.Popen(
        child(server, echo.port, then),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server.drop_connections()
        out, err = process.communicate("\n", timeout=WAIT_S)
    assert (out, err) == ("ServiceError\n[[], [], []]\n", "")


# --- what breaks in the middle


def test_a_connection_over_a_tunnel_that_broke_ends_at_once(server: SshServer, echo: Echo) -> None:
    with tunnel(server, echo.port) as opened:
        port = opened.open()
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
            assert exchanged(client, b"hello") == b"hello"
            server.drop_connections()
            assert client.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as late:
            assert ended(late)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_server_that_is_killed_ends_the_calls_and_leaves_nothing(process: SshProcess, echo: Echo) -> None:
    before = Leftovers()
    with tunnel(process, echo.port) as opened, socket.create_connection(("127.0.0.1", opened.open())) as client:
        assert exchanged(client, b"hello") == b"hello"
        process.kill()
        assert ended(client)
    before.assert_nothing_new()
    process.start()
    with tunnel(process, echo.port) as again:
        assert said_back(again.open()) == b"hello"


def test_a_server_that_is_frozen_can_not_hold_the_close(process: SshProcess, echo: Echo) -> None:
    before = Leftovers()
    opened = tunnel(process, echo.port)
    with socket.create_connection(("127.0.0.1", opened.open())) as client:
        assert exchanged(client, b"hello") == b"hello"
        process.freeze()
        client.setblocking(False)
        with suppress(BlockingIOError):  # until everything in between is full
            while client.send(bytes(1_000_000)):
                time.sleep(0.01)
        opened.close()
        assert not ours(before)
    assert "does not answer in time" in refusal(tunnel(process, echo.port, connect_s=0.3), NetworkError)
    process.thaw()
    before.assert_nothing_new()
    with tunnel(process, echo.port) as again:
        assert said_back(again.open()) == b"hello"


# --- interrupts


@contextmanager
def interrupted_after(is_time: Callable[[], object]) -> Iterator[None]:
    """SIGINT to the main thread as soon as something is true, as Ctrl-C sends it."""

    def interrupt() -> None:
        until(is_time)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join(WAIT_S)


def test_an_interrupt_while_it_is_opened_leaves_nothing(server: SshServer, echo: Echo) -> None:
    with instead_of(server, None):
        before = Leftovers()
        made = tunnel(server, echo.port)
        with interrupted_after(lambda: any("paramiko" in name for name in before.new())):
            made.open()
        assert not ours(before)
    made.close()


def test_an_interrupt_while_it_is_closed_leaves_nothing(server: SshServer, echo: Echo) -> None:
    before = Leftovers()
    opened = tunnel(server, echo.port)
    opened.open()
    is_closing = threading.Event()

    def close() -> None:
        is_closing.set()
        opened.close()
        time.sleep(WAIT_S)  # it was faster than the interrupt

    with interrupted_after(is_closing.is_set):
        close()
    before.assert_nothing_new()


def test_closing_it_while_it_is_opened_ends_the_opening(server: SshServer, echo: Echo) -> None:
    with instead_of(server, None):
        before = Leftovers()
        made = tunnel(server, echo.port)
        closer = threading.Thread(
            target=lambda: (until(lambda: any("paramiko" in n for n in before.new())), made.close())
        )
        closer.start()
        with pytest.raises(CancelledError):
            made.open()
        closer.join(WAIT_S)


def test_a_tunnel_that_was_closed_before_opens_nothing(server: SshServer, echo: Echo) -> None:
    made = tunnel(server, echo.port)
    made.close()
    with pytest.raises(CancelledError):
        made.open()
    assert server.connections_ever == 0
