from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from moments_core.errors import SettingsError
from moments_core.model_entry import Ssh
from moments_resources.models.known_hosts import HostKeys, fingerprint, read_host_keys

HOST = "gpu.example.org"


def blob(kind: str = "ssh-ed25519", rest: bytes = b"\0\0\0\x20" + b"k" * 32) -> bytes:
    return len(kind).to_bytes(4, "big") + kind.encode() + rest


def written(key: bytes, kind: str = "ssh-ed25519") -> str:
    return f"{kind} {base64.b64encode(key).decode()}"


OURS = blob()
OTHER = blob(rest=b"\0\0\0\x20" + b"o" * 32)
KEY = written(OURS)


def hashed(name: str) -> str:
    salt = b"12345678901234567890"
    parts = (salt, hmac.digest(salt, name.encode(), hashlib.sha1))
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in parts)


def read(folder: Path, *lines: str, port: int = 22, host: str = HOST) -> HostKeys:
    path = folder / "known_hosts"
    path.write_text("\n".join(lines) + "\n")
    return read_host_keys(Ssh(host=host, port=port, user="u", key_file="/k", known_hosts=str(path)))


@pytest.mark.parametrize(
    ("line", "port"),
    [
        (f"{HOST} {KEY}", 22),
        (f"  {HOST}\t{KEY}  a comment", 22),
        (f"{HOST.upper()},10.0.0.7 {KEY} comment", 22),
        (f"*.example.org {KEY}", 22),
        (f"gp?.example.org {KEY}", 22),
        (f"[{HOST}]:2222 {KEY}", 2222),
        (f"[*.example.org]:2222 {KEY}", 2222),
        (f"{hashed(HOST)} {KEY}", 22),
        (f"{hashed(f'[{HOST}]:2222')} {KEY}", 2222),
    ],
)
def test_a_line_that_names_the_host_vouches_for_its_key(tmp_path: Path, line: str, port: int) -> None:
    keys = read(tmp_path, line, port=port)
    assert keys.trusted == (OURS,)
    keys.judge(OURS)


@pytest.mark.parametrize(
    ("line", "port"),
    [
        (f"{hashed('other.example.org')} {KEY}", 22),
        (f"|1|no base64|= {KEY}", 22),
        (f"|1|AAAA {KEY}", 22),
        (f"{HOST} {KEY}", 2222),
        (f"[{HOST}]:2222 {KEY}", 22),
        (f"*.example.org,!{HOST} {KEY}", 22),
        (f"@revoked {HOST} {KEY}", 22),
        (f"@cert-authority {HOST} {KEY}", 22),
        (f"# {HOST} {KEY}", 22),
        (f"#{HOST} {KEY}", 22),
        (f"@ {HOST}", 22),
        ("@revoked", 22),
        (HOST, 22),
        (f"{HOST} ssh-ed25519 no-base64!", 22),
        (f"{HOST} ssh-ed25519 AAAA", 22),
        (f"{HOST} {written(OURS, 'ssh-rsa')}", 22),  # says one type, holds another
        (f"gpu-example-org {KEY}", 22),
        ("", 22),
    ],
)
def test_any_other_line_does_not_and_the_error_says_how_to_add_one(tmp_path: Path, line: str, port: int) -> None:
    with pytest.raises(SettingsError, match=f"ssh-keyscan -p {port} {HOST}"):
        read(tmp_path, line, port=port)


def test_a_line_that_openssh_hashed_is_understood(tmp_path: Path) -> None:
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    path = tmp_path / "known_hosts"
    path.write_text(f"{HOST} {public}\n")
    try:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True, timeout=30)
        shown = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("OpenSSH is not installed")
    assert HOST not in path.read_text()
    (key,) = read(tmp_path, path.read_text()).trusted
    assert fingerprint(key) in shown.stdout.decode()


def test_each_of_several_keys_is_good(tmp_path: Path) -> None:
    rsa = blob("ssh-rsa")
    keys = read(tmp_path, f"{HOST} {written(rsa, 'ssh-rsa')}", f"other {KEY}", f"{HOST} {KEY}", f"{HOST} {KEY}")
    assert keys.types == ("ssh-rsa", "ssh-ed25519")
    keys.judge(OURS)
    keys.judge(rsa)


def test_another_key_is_called_an_attack(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="this may be an attack") as caught:
        read(tmp_path, f"{HOST} {KEY}").judge(OTHER)
    assert caught.value.evidence == {"shown": f"ssh-ed25519 {fingerprint(OTHER)}"}


def test_a_key_of_another_type_is_not_trusted_on_sight(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"host key of type ssh-rsa, .* with others alone \(ssh-ed25519\)"):
        read(tmp_path, f"{HOST} {KEY}").judge(blob("ssh-rsa"))


@pytest.mark.parametrize("host", [HOST, "*"])
def test_a_revoked_key_is_refused_though_a_line_vouches_for_it(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="revokes: don't connect"):
        read(tmp_path, f"{HOST} {KEY}", f"@revoked {host} {KEY}").judge(OURS)


@pytest.mark.parametrize("key", [b"", b"\xff\xff\xff\xff", b"\0\0\0\x06\x1b[31m\n", OURS[:-1], OURS + b"\0"])
def test_what_is_no_key_is_refused_and_can_not_write_on_the_terminal(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, f"{HOST} {KEY}").judge(key)
    assert str(caught.value).isprintable()


def test_an_ipv6_address_is_a_name_like_any_other(tmp_path: Path) -> None:
    assert read(tmp_path, f"::1 {KEY}", host="::1").trusted
    assert read(tmp_path, f"[::1]:2222 {KEY}", host="::1", port=2222).trusted


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, Path.touch, str])
def test_a_file_that_is_none_keeps_nobody_waiting(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "known_hosts")
    with pytest.raises(SettingsError, match="is not there or is empty"):
        read_host_keys(Ssh(host=HOST, user="u", key_file="/k", known_hosts=str(tmp_path / "known_hosts")))
