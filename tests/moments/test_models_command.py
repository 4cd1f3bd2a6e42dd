from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moments import models_command
from moments.models_command import ModelTest, check_entry, list_models, set_model
from moments.services import Lakehouse
from moments_core.errors import SettingsError
from moments_core.model_entry import parse_entry

KEY = "sk-test-0123456789abcdefghijABCDEFGHIJ"
HOST = "gpu.example.org"
NAMED = f"{HOST} ssh-ed25519 AAAA"


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


@pytest.fixture
def file(lakehouse: Lakehouse, tmp_path: Path) -> Path:
    """The models file of the lakehouse; not there yet."""
    path = tmp_path / "models.yaml"
    object.__setattr__(lakehouse, "settings", lakehouse.settings.model_copy(update={"models": path}))
    return path


def tried(fields: Mapping[str, object], timeout_s: float = 10) -> ModelTest:
    return check_entry(parse_entry("m", fields), timeout_s=timeout_s)


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


def written(file: Path, fields: Mapping[str, object]) -> None:
    file.write_text(json.dumps({"m": fields}))  # JSON is YAML


# --- list and set


def test_without_a_models_file_there_are_no_models(lakehouse: Lakehouse, file: Path) -> None:
    assert list_models(lakehouse) == []


def test_the_list_holds_the_entries_of_the_file_and_nothing_that_is_not_set(lakehouse: Lakehouse, file: Path) -> None:
    written(file, direct(1, defaults={"temperature": 0.3}))
    (entry,) = list_models(lakehouse)
    assert entry.pop("updated_at")
    assert entry == {
        "key": "m",
        "kind": "chat",
        "served_name": "big",
        "remote_host": "127.0.0.1",
        "remote_port": 1,
        "supports_video": False,
        "parallel": 1,
        "timeout_s": 300.0,
        "defaults": {"temperature": 0.3},
        "price": {"input_per_million": 0.0, "output_per_million": 0.0, "per_hour": 0.0},
        "updated_by": "models.yaml",
        "in_file": "same",
    }
    json.dumps(entry)


def test_a_relative_models_file_lies_in_the_current_folder(
    lakehouse: Lakehouse, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(file, direct(1))
    monkeypatch.chdir(file.parent)
    object.__setattr__(lakehouse, "settings", lakehouse.settings.model_copy(update={"models": Path("models.yaml")}))
    assert [entry["key"] for entry in list_models(lakehouse)] == ["m"]


def test_an_edit_outlives_the_file_and_the_list_says_so(lakehouse: Lakehouse, file: Path) -> None:
    written(file, direct(1))
    assert set_model(lakehouse, "m", ["parallel=4", "defaults.top_k=20"])["parallel"] == 4
    (entry,) = list_models(lakehouse)
    assert (entry["parallel"], entry["defaults"], entry["in_file"]) == (4, {"top_k": 20}, "different")
    file.unlink()
    assert [entry["in_file"] for entry in list_models(lakehouse)] == ["absent"]


def test_a_wrong_edit_changes_nothing(lakehouse: Lakehouse, file: Path) -> None:
    written(file, direct(1))
    with pytest.raises(SettingsError, match="parallel must be"):
        set_model(lakehouse, "m", ["timeout_s=5", "parallel=0"])
    assert list_models(lakehouse)[0]["timeout_s"] == 300.0


def test_a_broken_models_file_is_named(lakehouse: Lakehouse, file: Path) -> None:
    file.write_text("m: {kind: chta}")
    with pytest.raises(SettingsError, match=r"models\.yaml: Model m: kind must be 'asr', 'chat' or 'vision'"):
        list_models(lakehouse)


# --- test


def test_a_model_of_the_file_is_tested(lakehouse: Lakehouse, file: Path, serve: Callable[..., Api]) -> None:
    written(file, direct(serve("big").server_port))
    assert models_command.test_model(lakehouse, "m").ok is True


def test_an_unknown_model_can_not_be_tested(lakehouse: Lakehouse, file: Path) -> None:
    with pytest.raises(SettingsError, match="There are no models"):
        models_command.test_model(lakehouse, "m")


# --- test, directly


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
        result = tried(entry, timeout_s=0.1)
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
    assert "Not checked: no sound was sent to /transcribe" in said(result, "serve")


# --- test, with an API key


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
    connection = models_command._connection("https://[::1]/v1", 1)
    assert (connection.host, connection.port) == ("::1", 443)


# --- test, through SSH


def behind_ssh(folder: Path, known: str, port: int = 22) -> dict[str, object]:
    key, hosts = folder / "id", folder / "known_hosts"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nnot a real one\n")
    key.chmod(0o600)
    hosts.write_text(known)
    ssh = {"host": HOST, "port": port, "user": "moments", "key_file": str(key), "known_hosts": str(hosts)}
    return direct(80, remote_host="worker-16", ssh=ssh)


def hashed(name: str) -> str:
    salt = b"twenty bytes of salt"
    digest = hmac.digest(salt, name.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()} ssh-ed25519 AAAA"


def test_a_model_behind_ssh_is_never_called_working_while_the_tunnel_is_not_tried(tmp_path: Path) -> None:
    entry = behind_ssh(tmp_path, NAMED)
    result = tried(entry)
    assert result.ok is None
    assert verdicts(result) == {"entry": True, "ssh key": True, "known hosts": True, "reach": None}
    assert said(result, "reach").startswith("Not checked: ")


@pytest.mark.parametrize(
    ("line", "port", "names_it"),
    [
        (f"{HOST} ssh-ed25519 AAAA", 22, True),
        (f"{HOST.upper()},10.0.0.7 ssh-ed25519 AAAA comment", 22, True),
        ("*.example.org ssh-ed25519 AAAA", 22, True),
        ("gp?.example.org ssh-ed25519 AAAA", 22, True),
        (f"[{HOST}]:2222 ssh-ed25519 AAAA", 2222, True),
        (hashed(HOST), 22, True),
        (hashed(f"[{HOST}]:2222"), 2222, True),
        (hashed("other.example.org"), 22, False),
        ("|1|no base64|= ssh-ed25519 AAAA", 22, False),
        ("|1|AAAA ssh-ed25519 AAAA", 22, False),
        (f"{HOST} ssh-ed25519 AAAA", 2222, False),
        (f"[{HOST}]:2222 ssh-ed25519 AAAA", 22, False),
        (f"*.example.org,!{HOST} ssh-ed25519 AAAA", 22, False),
        (f"@revoked {HOST} ssh-ed25519 AAAA", 22, False),
        (f"@cert-authority {HOST} ssh-ed25519 AAAA", 22, False),
        (f"# {HOST} ssh-ed25519 AAAA", 22, False),
        (HOST, 22, False),
        ("gpu-example-org ssh-ed25519 AAAA", 22, False),
        ("", 22, False),
    ],
)
def test_known_hosts_is_read_as_ssh_reads_it(tmp_path: Path, line: str, port: int, names_it: bool) -> None:
    entry = behind_ssh(tmp_path, f"{line}\n", port)
    result = tried(entry)
    assert verdicts(result)["known hosts"] is names_it
    assert result.ok is (None if names_it else False)
    assert names_it or f"ssh-keyscan -p {port} {HOST}" in said(result, "known hosts")


def test_a_line_that_openssh_hashed_is_understood(tmp_path: Path) -> None:
    entry = behind_ssh(tmp_path, "")
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"{HOST} {public}\n")
    try:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hosts)], check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("OpenSSH is not installed")
    assert HOST not in hosts.read_text()
    assert verdicts(tried(entry))["known hosts"] is True


def test_known_hosts_that_is_not_there_fails(tmp_path: Path) -> None:
    entry = behind_ssh(tmp_path, "")
    (tmp_path / "known_hosts").unlink()
    assert "is not there or is empty" in said(tried(entry), "known hosts")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_private_key_that_others_can_read_fails(tmp_path: Path, mode: int) -> None:
    entry = behind_ssh(tmp_path, NAMED)
    (tmp_path / "id").chmod(mode)
    result = tried(entry)
    assert result.ok is False
    assert "run `chmod 600 " in said(result, "ssh key")


def test_a_private_key_that_is_not_there_fails(tmp_path: Path) -> None:
    entry = behind_ssh(tmp_path, NAMED)
    (tmp_path / "id").unlink()
    assert "No such file or directory" in said(tried(entry), "ssh key")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.write_text("ssh-ed25519 AAAA me\n")])
def test_what_is_no_private_key_fails_and_keeps_nobody_waiting(tmp_path: Path, make: Callable[[Path], object]) -> None:
    entry = behind_ssh(tmp_path, NAMED)
    (tmp_path / "id").unlink()
    make(tmp_path / "id")
    assert "is no private key" in said(tried(entry), "ssh key")


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
