from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moments_core.model_entry import parse_entry
from moments_resources.models.checking import ModelTest, check_entry
from moments_resources.models.served import _connection
from tests.stand_ins.leftovers import Leftovers
from tests.stand_ins.ssh_server import SshServer

KEY = "sk-test-0123456789abcdefghijABCDEFGHIJ"


class Api(ThreadingHTTPServer):
    """Answers every GET with `reply`, and keeps the requests."""

    daemon_threads = True

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = status, body
        self.asked: list[tuple[str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Quiet."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Api]]:
    running: list[tuple[Api, threading.Thread]] = []

    def start(*names: str, status: int = 200, body: bytes | None = None) -> Api:
        listing = json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()
        api = Api(status, listing if body is None else body)
        running.append((api, threading.Thread(target=api.serve_forever, args=(0.01,))))
        running[-1][1].start()
        return api

    yield start
    for api, thread in running:
        api.shutdown()
        thread.join()
        api.server_close()


def tried(fields: Mapping[str, object], connect_s: float = 10) -> ModelTest:
    return check_entry(parse_entry("m", fields), connect_s=connect_s)


def verdicts(result: ModelTest) -> dict[str, bool | None]:
    return {step.name: step.ok for step in result.steps}


def said(result: ModelTest, name: str) -> str:
    (sentence,) = [step.sentence for step in result.steps if step.name == name]
    return sentence


def direct(port: int, **more: object) -> dict[str, object]:
    return {"kind": "chat", "served_name": "big", "remote_host": "127.0.0.1", "remote_port": port, **more}


def hosted(port: int, env: str = "TEST_API_KEY") -> dict[str, object]:
    url = f"http://127.0.0.1:{port}/v1"
    return {"kind": "chat", "served_name": "big", "base_url": url, "api_key_env": env}


# --- directly


def test_a_server_that_knows_the_name_passes(serve: Callable[..., Api]) -> None:
    api = serve("small", "big")
    entry = direct(api.server_port)
    result = tried(entry)
    assert result.ok is True
    assert verdicts(result) == {"entry": True, "reach": True, "serve": True}
    assert api.asked == [("/v1/models", None)]


def test_a_proxy_of_the_environment_is_not_asked(serve: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve("big")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    entry = direct(serve("big").server_port)
    assert tried(entry).ok is True
    assert proxy.asked == []


def test_a_server_that_knows_other_names_fails_and_they_are_told(serve: Callable[..., Api]) -> None:
    entry = direct(serve("small", "evil\x1b[31m\nname", *"abcdef").server_port)
    result = tried(entry)
    assert result.ok is False
    assert "does not know big: it serves 'small', 'evil\\x1b[31m\\nname', 'a'" in said(result, "serve")


def test_a_server_without_models_fails(serve: Callable[..., Api]) -> None:
    entry = direct(serve().server_port)
    assert "it serves no model" in said(tried(entry), "serve")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"data": 5}', b'{"data": [{"name": "big"}]}', b"\xff", b"[" * 100_000]
)
def test_a_reply_that_is_no_list_of_models_fails(serve: Callable[..., Api], body: bytes) -> None:
    entry = direct(serve(body=body).server_port)
    result = tried(entry)
    assert result.ok is False
    assert "is no list of models" in said(result, "serve")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (301, "sends us elsewhere"),
        (401, "wants a key: give base_url"),
        (404, "there is no such page; check path"),
        (503, "answers with status 503"),
    ],
)
def test_a_server_that_refuses_fails_with_its_status_explained(
    serve: Callable[..., Api], status: int, says: str
) -> None:
    api = serve("big", status=status)
    entry = direct(api.server_port)
    result = tried(entry)
    assert result.ok is False
    assert says in said(result, "serve")
    assert len(api.asked) == 1  # no redirect is followed


def test_a_port_on_which_nothing_listens_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    entry = direct(port)
    result = tried(entry)
    assert result.ok is False
    assert "nothing listens on that port" in said(result, "reach")


def test_a_host_that_has_no_address_fails() -> None:
    result = tried(direct(80, remote_host="nobody.invalid"))
    assert result.ok is False
    assert "nobody.invalid:80 can't be reached" in said(result, "reach")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", b""])
def test_a_port_that_speaks_no_http_fails(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        entry = direct(listener.getsockname()[1])
        result = tried(entry)
        thread.join()
    assert verdicts(result) == {"entry": True, "reach": True, "serve": False}
    assert "gave no HTTP answer" in said(result, "serve")


def test_a_server_that_says_nothing_fails_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entry = direct(listener.getsockname()[1])
        result = tried(entry, connect_s=0.1)
    assert verdicts(result) == {"entry": True, "reach": True, "serve": False}


def test_a_certificate_that_nobody_vouches_for_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self_signed(tmp_path))

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        result = tried({"kind": "chat", "served_name": "big", "base_url": url})
        thread.join()
    assert result.ok is False
    assert "its certificate is not trusted" in said(result, "reach")


def test_a_speech_model_that_is_reached_is_not_called_working(serve: Callable[..., Api]) -> None:
    api = serve()
    result = tried({"kind": "asr", "remote_host": "127.0.0.1", "remote_port": api.server_port})
    assert result.ok is None
    assert verdicts(result) == {"entry": True, "reach": True, "serve": None}
    assert said(result, "serve") == (
        "The server answers, GET /transcribe with status 200. Not checked: no sound was sent to be transcribed."
    )


@pytest.mark.parametrize(("status", "ok"), [(404, None), (405, None), (500, False), (503, False)])
def test_a_speech_model_answers_with_anything_but_a_failure(
    serve: Callable[..., Api], status: int, ok: bool | None
) -> None:
    fields = {"kind": "asr", "remote_host": "127.0.0.1", "remote_port": serve(status=status).server_port}
    assert tried(fields).ok is ok


# --- with an API key


def test_the_key_of_the_environment_is_sent_and_never_shown(
    serve: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = serve("big")
    monkeypatch.setenv("TEST_API_KEY", KEY)
    entry = hosted(api.server_port)
    result = tried(entry)
    assert result.ok is True
    assert api.asked == [("/v1/models", f"Bearer {KEY}")]
    assert KEY not in repr(result)


def test_a_key_that_is_refused_is_not_shown_though_the_server_quotes_it(
    serve: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    entry = hosted(serve(status=401, body=f"Incorrect API key: {KEY}".encode()).server_port)
    result = tried(entry)
    assert "refuses the key in TEST_API_KEY" in said(result, "serve")
    assert KEY not in repr(result)


def test_a_variable_that_is_not_set_fails_before_anything_is_sent(serve: Callable[..., Api]) -> None:
    api = serve("big")
    entry = hosted(api.server_port, env="NO_SUCH_TEST_KEY")
    result = tried(entry)
    assert result.ok is False
    assert "NO_SUCH_TEST_KEY is not set" in said(result, "api key")
    assert api.asked == []


@pytest.mark.parametrize("value", [f"{KEY}\r\nX-Other: 1", f"{KEY} ", f"„{KEY}“"])
def test_a_key_that_no_header_could_carry_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TEST_API_KEY", value)
    entry = hosted(1)
    result = tried(entry)
    assert verdicts(result) == {"entry": True, "api key": False}
    assert KEY not in repr(result)


def test_an_ipv6_address_is_reached_at_its_port() -> None:
    connection = _connection("https://[::1]/v1", 1)
    assert (connection.host, connection.port) == ("::1", 443)


# --- through SSH


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    with SshServer(tmp_path / "ssh") as server:
        yield server


def test_a_model_behind_ssh_is_asked_through_its_tunnel(ssh: SshServer, serve: Callable[..., Api]) -> None:
    api = serve("big")
    before = Leftovers()
    entry = direct(api.server_port, ssh=ssh.entry_fields())
    result = tried(entry)
    assert result.ok is True
    assert verdicts(result) == {"entry": True, "ssh key": True, "known hosts": True, "reach": True, "serve": True}
    assert said(result, "reach") == f"127.0.0.1:{api.server_port} accepts connections, through 127.0.0.1."
    assert api.asked == [("/v1/models", None)]
    before.assert_nothing_new()


def test_both_files_are_judged_before_anything_is_opened(ssh: SshServer) -> None:
    ssh.keys.known_hosts.write_text("")
    ssh.keys.key_file.chmod(0o644)
    result = tried(direct(80, ssh=ssh.entry_fields()))
    assert verdicts(result) == {"entry": True, "ssh key": False, "known hosts": False}
    assert "run `chmod 600 " in said(result, "ssh key")
    assert f"ssh-keyscan -p {ssh.port} 127.0.0.1" in said(result, "known hosts")
    assert ssh.connections_ever == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (SshServer.pause, "refuses connections"),
        (SshServer.show_other_host_keys, "this may be an attack"),
        (lambda server: setattr(server, "refuses_keys", True), "refuses the key"),
        (str, "Nothing answers at 127.0.0.1:1 as seen from 127.0.0.1"),
    ],
)
def test_a_way_that_can_not_be_opened_is_named(
    ssh: SshServer, change: Callable[[SshServer], object], says: str
) -> None:
    change(ssh)
    before = Leftovers()
    result = tried(direct(1, ssh=ssh.entry_fields()))
    assert verdicts(result) == {"entry": True, "ssh key": True, "known hosts": True, "reach": False}
    assert says in said(result, "reach")
    before.assert_nothing_new()


def test_a_model_of_another_name_behind_ssh_is_told_from_one_that_is_not_reached(
    ssh: SshServer, serve: Callable[..., Api]
) -> None:
    result = tried(direct(serve("small").server_port, ssh=ssh.entry_fields()))
    assert (verdicts(result)["reach"], verdicts(result)["serve"]) == (True, False)
    assert "does not know big: it serves 'small'" in said(result, "serve")


def self_signed(folder: Path) -> Path:
    """A certificate that we signed ourselves, and its key, in one file."""
    import datetime

    pytest.importorskip("cryptography", reason="it makes the certificate")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(certificate.public_bytes(encoding) + private)
    return path
