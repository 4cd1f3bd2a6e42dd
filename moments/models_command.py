"""`moments models`: list, change and test the models. Plain data comes out; the CLI shows it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from moments_core.model_entry import ModelEntry, Ssh
from moments_resources.models.registry import Models, parse_changes, read_models_file

if TYPE_CHECKING:
    from moments.services import Lakehouse

CONNECT_S = 10.0  # seconds for a connection and for each read: a loaded vLLM answers /models within one
_MAX_REPLY_BYTES = 4_000_000  # a hosted API lists some hundred models of about 500 bytes


class Step(NamedTuple):
    """One thing that was looked at. `ok` is None where it could not be checked."""

    name: str
    ok: bool | None
    sentence: str


class ModelTest(NamedTuple):
    """What a test found. `ok`: True, it works; False, something is wrong; None, nothing is, as far as one can see."""

    ok: bool | None
    steps: list[Step]


_WANTS_A_KEY = "the server wants a key: give base_url, and in api_key_env the variable that holds the key"


def list_models(lakehouse: Lakehouse) -> list[dict[str, Any]]:
    """All models, by key, each with `updated_at`, `updated_by` and `in_file`: same, different or absent.

    Raises SettingsError for a models file or a row that can't be read.
    """
    models, from_file = _seeded(lakehouse)
    return [
        _shown(row.entry)
        | {"updated_at": row.updated_at.isoformat(), "updated_by": row.updated_by}
        | {"in_file": _comparison(row.entry, from_file.get(row.entry.key))}
        for row in models.rows()
    ]


def set_model(lakehouse: Lakehouse, key: str, assignments: list[str]) -> dict[str, Any]:
    """Change a model by `field=value` words and give back the whole entry. Raises SettingsError; nothing is changed."""
    models, _ = _seeded(lakehouse)
    return _shown(models.edit(key, parse_changes(key, assignments)))


def test_model(lakehouse: Lakehouse, key: str) -> ModelTest:
    """Check what can be checked of a model. Raises SettingsError for a key that nobody has given."""
    models, _ = _seeded(lakehouse)
    return check_entry(models.entry(key))


def check_entry(entry: ModelEntry, *, timeout_s: float = CONNECT_S) -> ModelTest:
    """Check what can be checked of an entry without asking the model anything that costs.

    A model behind SSH is judged by its key and known hosts alone; its result is never more than "not checked".
    `timeout_s`: for the connection, and for each read.
    """
    steps = [Step("entry", True, f"The entry of {entry.key} is valid."), *_checks(entry, timeout_s)]
    verdicts = {step.ok for step in steps}
    return ModelTest(False if False in verdicts else None if None in verdicts else True, steps)


def _seeded(lakehouse: Lakehouse) -> tuple[Models, dict[str, ModelEntry]]:
    path = lakehouse.settings.models
    entries = read_models_file(path)
    models = Models(lakehouse.database)
    models.seed(entries, seeded_by=path.name)
    return models, {entry.key: entry for entry in entries}


def _shown(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_none=True)


def _comparison(entry: ModelEntry, in_file: ModelEntry | None) -> str:
    if in_file is None:
        return "absent"
    return "same" if entry == in_file else "different"


def _checks(entry: ModelEntry, timeout_s: float) -> Iterator[Step]:
    if entry.ssh is not None:
        yield _key_file(Path(entry.ssh.key_file).expanduser())
        yield _known_hosts(entry.ssh)
        yield Step("reach", None, f"Not checked: reaching {entry.key} through {entry.ssh.host} is not tested yet.")
    elif entry.direct_url is not None:
        yield from _direct(entry, entry.direct_url, timeout_s)


def _key_file(path: Path) -> Step:
    try:
        mode = path.stat().st_mode
        first_line = _first_line(path)
    except OSError as error:
        return Step("ssh key", False, f"{path} can't be read ({error.strerror}): set ssh.key_file to the private key.")
    if b"PRIVATE KEY" not in first_line:
        return Step("ssh key", False, f"{path} is no private key: set ssh.key_file to the file without .pub.")
    if mode & 0o077:
        return Step("ssh key", False, f"{path} is open to other users: run `chmod 600 {path}`.")
    return Step("ssh key", True, f"{path} is a private key that you alone can read.")


def _first_line(path: Path) -> bytes:
    if not path.is_file():  # a pipe or a device would keep us waiting
        return b""
    with path.open("rb") as file:
        return file.readline(200)


def _known_hosts(ssh: Ssh) -> Step:
    path = Path(ssh.known_hosts).expanduser()
    name = ssh.host.lower() if ssh.port == 22 else f"[{ssh.host.lower()}]:{ssh.port}"
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        return Step("known hosts", False, f"{path} can't be read ({error.strerror}): check its permissions.")
    if not lines:
        return Step("known hosts", False, f"{path} is not there or is empty: {_how_to_know(ssh)}.")
    if any(_vouches(line, name) for line in lines):
        return Step("known hosts", True, f"{path} names {name}.")
    return Step("known hosts", False, f"{path} does not name {name}: {_how_to_know(ssh)}.")


def _how_to_know(ssh: Ssh) -> str:
    return (
        f"compare the output of `ssh-keyscan -p {ssh.port} {ssh.host}` with the fingerprint that its "
        f"administrator gives you, and add it to {ssh.known_hosts}"
    )


def _vouches(line: str, name: str) -> bool:
    """Whether a line of known_hosts holds a key for `name` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

    Lines with a marker don't count, since the marker stands where the host would: @revoked is the contrary, and an
    @cert-authority is no key of the host.
    """
    fields = line.split()
    if len(fields) < 3:
        return False
    if fields[0].startswith("|1|"):
        return _is_hash_of(name, fields[0])
    patterns = fields[0].lower().split(",")
    denied = any(_fits(name, pattern[1:]) for pattern in patterns if pattern.startswith("!"))
    return not denied and any(_fits(name, pattern) for pattern in patterns)


def _is_hash_of(name: str, hashed: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.split("|")[2:])
    except ValueError:  # not three parts, or no base64: no line that ssh would read
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), hashlib.sha1), digest)


def _fits(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), name) is not None


def _direct(entry: ModelEntry, url: str, timeout_s: float) -> Iterator[Step]:
    key = os.environ.get(entry.api_key_env, "") if entry.api_key_env else None
    if key is not None:
        yield _api_key(entry, key)
        if not _is_sendable(key):
            return
    connection = _connection(url, timeout_s)
    try:
        connection.connect()
        yield Step("reach", True, f"{connection.host}:{connection.port} accepts connections.")
        yield _serves(entry, connection, urlsplit(url).path, key)
    except (OSError, UnicodeError) as error:
        yield Step("reach", False, f"{connection.host}:{connection.port} can't be reached: {_why(error)}.")
    finally:
        connection.close()


def _connection(url: str, timeout_s: float) -> HTTPConnection:
    """A connection of its own: it follows no redirect, which would carry the key along, and knows no proxy."""
    parts = urlsplit(url)
    # Always with its port: without one, http.client takes the end of an IPv6 address for it.
    if parts.scheme == "https":
        return HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=timeout_s)
    return HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)


def _api_key(entry: ModelEntry, key: str) -> Step:
    if not key:
        return Step("api key", False, f"The environment variable {entry.api_key_env} is not set: put the key there.")
    if not _is_sendable(key):
        return Step("api key", False, f"The value of {entry.api_key_env} holds spaces or signs that no key has.")
    return Step("api key", True, f"The environment variable {entry.api_key_env} is set.")


def _is_sendable(key: str) -> bool:
    return re.fullmatch(r"[!-~]+", key) is not None


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time; check the address and the firewall"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens on that port; check the port, or start the server"
    return str(getattr(error, "strerror", None) or "its name can't be resolved")


def _serves(entry: ModelEntry, connection: HTTPConnection, path: str, key: str | None) -> Step:
    if entry.kind == "asr":
        return Step("serve", None, f"Not checked: no sound was sent to {path or '/'} to be transcribed.")
    try:
        connection.request("GET", f"{path}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        body = response.read(_MAX_REPLY_BYTES)
    except (HTTPException, OSError):
        return Step("serve", False, f"The server broke off or gave no HTTP answer to GET {path}/models.")
    if response.status != 200:
        return Step("serve", False, f"GET {path}/models: {_refusal(entry, response.status)}.")
    return _listed(entry, _names(body), path)


def _refusal(entry: ModelEntry, status: int) -> str:
    """What a status means. Not the server's own words: a reply to a wrong key may quote the key."""
    if status in {401, 403}:
        return f"the server refuses the key in {entry.api_key_env}" if entry.api_key_env else _WANTS_A_KEY
    if status == 404:
        return "there is no such page; check path or base_url, which mostly ends in /v1"
    if 300 <= status < 400:
        return "the server sends us elsewhere; give its final address"
    return f"the server answers with status {status}"


def _names(body: bytes) -> list[str] | None:
    """The models in a reply to GET /models, or None where it is no such reply."""
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _listed(entry: ModelEntry, names: list[str] | None, path: str) -> Step:
    if names is None:
        return Step("serve", False, f"GET {path}/models: the reply is no list of models; is this an OpenAI-like API?")
    if entry.served_name in names:
        return Step("serve", True, f"The server knows {entry.served_name}.")
    some = ", ".join(ascii(name[:60]) for name in names[:5]) + (", …" if len(names) > 5 else "")
    known = f"it serves {some}" if names else "it serves no model"
    return Step("serve", False, f"The server does not know {entry.served_name}: {known}. Set served_name.")
