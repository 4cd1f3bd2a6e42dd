"""Google Cloud Storage on a loopback port: the real gcp-storage-emulator in a process of its own, behind a proxy.

The proxy adds what the emulator leaves out (generation preconditions, signatures, tokens, chunks that are sent again),
counts the bytes of objects that pass, and plays faults on demand.

with GcsServer() as gcs:
    gcs.create_bucket("media")
    os.environ["STORAGE_EMULATOR_HOST"] = gcs.url
    gcs.faults.append(Fault("upload", "cut", after=1))    # the second upload request breaks off half way
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.stand_ins.gcs_signature import Account, signature_fault
from tests.stand_ins.proxy_server import Answer, Asked, ProxyServer

# By itself it writes the descriptions of all objects anew with each one that comes, for a later start, which there is
# none of in memory: half an hour into a fault run that took nearly half of a core.
_EMULATOR = """
import sys
from gcp_storage_emulator.server import create_server
from gcp_storage_emulator.storage import Storage
Storage._write_config_to_file = lambda self: None
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
server.stop()
"""
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")
_COPY = re.compile(r"/storage/v1/b/(?P<source_bucket>[^/]+)/o/(?P<source>[^/]+)/rewriteTo/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")  # fmt: skip  # noqa: E501
_BUCKET = re.compile(r"(?:/upload)?/storage/v1/b/(?P<bucket>[^/]+)/o")
_SIGNED = re.compile(r"/(?P<bucket>[^/]+)/(?P<name>.+)")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_GRAIN = 2**18  # GCS keeps whole multiples of 256 KiB
_TOKEN = "ya29.stand-in"  # noqa: S105 - opens nothing


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind.

    on: upload (a whole object, or a chunk), start (of a resumable upload), download, describe, delete, copy, list,
        signed, token, or any.
    what: status | hang | cut (half of the body, then a reset) | lose_answer (done, but nobody is told)
        | keep_part, corrupt_sent (an uploaded chunk) | corrupt (one bit of a download)
        | wrong_crc32c (in an upload's answer).
    """

    on: str
    what: str = "status"
    status: int = 503
    message: str = "The stand-in was told to fail."
    times: int = 1
    after: int = 0  # so many requests of the kind go well before


@dataclass
class _Call:
    """A request, understood."""

    kind: str
    asked: Asked
    query: Mapping[str, str]
    bucket: str = ""
    name: str = ""
    source: str = ""
    session: str = ""
    data: bytes = b""


@dataclass
class _Session:
    """A resumable upload."""

    bucket: str
    name: str
    received: int = 0
    is_done: bool = False


@dataclass
class GcsServer:
    """`uploaded` and `downloaded` hold bytes of content by object name, as they passed, whole or not."""

    faults: list[Fault] = field(default_factory=list)
    uploaded: Counter[str] = field(default_factory=Counter)
    downloaded: Counter[str] = field(default_factory=Counter)
    calls: list[str] = field(default_factory=list)  # the kinds of the requests so far
    wants_tokens: bool = False
    refuses_keys: bool = False
    clock_ahead_s: int = 0
    account: Account = field(default_factory=Account)

    def __enter__(self) -> Self:
        self._emulator = subprocess.Popen(
            [sys.executable, "-c", _EMULATOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._emulator.stdout is not None
        self._port = int(self._emulator.stdout.readline())
        self._sessions: dict[str, _Session] = {}
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._proxy = ProxyServer(self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.close()
        self._emulator.communicate()  # ends with its standard input

    @property
    def url(self) -> str:
        return self._proxy.url

    def create_bucket(self, name: str) -> None:
        """A bucket that is there; names of no bucket get the 404 of GCS."""
        assert self._emulate("POST", "/storage/v1/b", json.dumps({"name": name}).encode()).status == 200

    def key_file(self, folder: Path) -> Path:
        """A service account's key, for GOOGLE_APPLICATION_CREDENTIALS."""
        return self.account.key_file(folder, f"{self.url}/token")

    def objects(self, bucket: str) -> dict[str, dict[str, Any]]:
        """What is stored, as it is described."""
        listed = json.loads(self._emulate("GET", f"/storage/v1/b/{bucket}/o").body)
        return {item["name"]: item for item in listed["items"]}

    def content(self, bucket: str, name: str) -> bytes | None:
        """What is stored under a name; None where nothing is."""
        found = self._emulate("GET", f"{_address(bucket, name)}?alt=media")
        return found.body if found.status == 200 else None

    def forget(self) -> None:
        """Faults and counters as at the beginning; what is stored stays."""
        for kept in (self.faults, self.uploaded, self.downloaded, self.calls):
            kept.clear()
        self.wants_tokens = self.refuses_keys = False
        self.clock_ahead_s = 0

    def _answer(self, asked: Asked) -> None:
        call = _understood(asked)
        fault = self._fault(call)
        what = fault.what if fault is not None else ""
        if what == "hang":
            asked.hang()
        elif what == "cut" and call.kind == "upload":
            self._count(self.uploaded, self._named(call), len(asked.read_half()))
            asked.reset()
        elif fault is not None and what == "status":
            asked.read_all()
            asked.send(_error(fault.status, fault.message))
        else:
            call.data = asked.read_all()
            if what == "keep_part":
                call.data = call.data[: len(call.data) // 2 // _GRAIN * _GRAIN]
            if what == "corrupt_sent":
                call.data = _with_a_wrong_bit(call.data)
            self._finish(call, what, self._refused(call) or self._done(call))

    def _finish(self, call: _Call, what: str, answer: Answer) -> None:
        if what == "wrong_crc32c":
            answer = answer.with_json(crc32c="AAAAAA==")
        if what == "corrupt":
            answer = answer.with_body(_with_a_wrong_bit(answer.body))
        is_content = call.kind in {"download", "signed"} and answer.status < 300
        if is_content:
            self._count(self.downloaded, call.name, len(answer.body) // (2 if what == "cut" else 1))
        send = {"lose_answer": lambda _: call.asked.reset(), "cut": call.asked.send_half}.get(what, call.asked.send)
        send(answer)

    def _refused(self, call: _Call) -> Answer | None:
        if call.kind == "token":
            return self._token()
        if call.kind == "signed":
            return signature_fault(call.asked, self.account, self.clock_ahead_s)
        if self.wants_tokens and call.asked.header("authorization") != f"Bearer {_TOKEN}":
            return _error(401, "Invalid Credentials")
        return None

    def _token(self) -> Answer:
        if self.refuses_keys:
            body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return Answer(400, json.dumps(body).encode())
        return Answer(200, json.dumps({"access_token": _TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode())

    def _done(self, call: _Call) -> Answer:
        if call.kind == "signed":
            headers = {"Range": call.asked.header("range")} if call.asked.header("range") else {}
            return self._emulate("GET", f"{_address(call.bucket, call.name)}?alt=media", headers=headers)
        wanted = call.query.get("generation")
        if wanted is not None and self._generation(call.bucket, call.name) != wanted:
            return _error(404, f"No such object: {call.bucket}/{call.name}")
        if call.kind in {"upload", "start", "copy", "delete"}:
            with self._writing:  # a precondition and its write are one
                return self._written(call)
        return self._forward(call, call.data)

    def _written(self, call: _Call) -> Answer:
        expected = call.query.get("ifGenerationMatch")
        if call.session:
            return self._chunk(call, expected)
        name = self._named(call)
        if call.kind == "upload":
            self._count(self.uploaded, name, len(_content(call)))
        if not self._holds(call.bucket, name, expected):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        answer = self._forward(call, call.data)
        if call.kind == "start" and answer.status == 200:
            session = parse_qs(urlsplit(answer.headers["Location"]).query)["upload_id"][0]
            self._sessions[session] = _Session(call.bucket, name)
        return answer

    def _chunk(self, call: _Call, expected: str | None) -> Answer:
        """A piece of a resumable upload. What came before is ignored, as GCS does; the emulator would refuse it."""
        session = self._sessions.get(call.session)
        if session is None:
            return _error(404, "Upload session not found.")
        self._count(self.uploaded, session.name, len(call.data))
        if session.is_done:
            return self._emulate("GET", _address(session.bucket, session.name))
        start, total = _chunk_place(call)
        data = call.data[session.received - start :]
        start, end = session.received, session.received + len(data)
        if end == total and not self._holds(session.bucket, session.name, expected):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        answer = self._forward(call, data, {"Content-Range": f"bytes {start}-{end - 1}/{total}"})
        session.received, session.is_done = end, answer.status == 200
        return answer

    def _holds(self, bucket: str, name: str, expected: str | None) -> bool:
        return expected is None or self._generation(bucket, name) == expected

    def _generation(self, bucket: str, name: str) -> str:
        """The generation that is stored under a name; "0" where none is."""
        found = self._emulate("GET", _address(bucket, name))
        return str(json.loads(found.body)["generation"]) if found.status == 200 else "0"

    def _forward(self, call: _Call, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        passed = {name: value for name, value in call.asked.headers.items() if name.lower() != "content-length"}
        answer = self._emulate(call.asked.method, call.asked.target, body, {**passed, **(headers or {})})
        if answer.status == 404:  # with a body, as GCS has it
            return _error(404, f"No such object: {call.bucket}/{call.name}")
        return answer

    def _emulate(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._port)
        try:
            given = {**(headers or {"Content-Type": "application/json"}), "Content-Length": str(len(body))}
            connection.request(method, target, body or None, given)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return Answer(answer.status, answer.read(), kept)
        finally:
            connection.close()

    def _named(self, call: _Call) -> str:
        if call.session in self._sessions:
            return self._sessions[call.session].name
        return call.name or str(json.loads(_metadata(call)).get("name", "")) if call.data else call.name

    def _fault(self, call: _Call) -> Fault | None:
        with self._lock:
            self.calls.append(call.kind)
            fault = next((item for item in self.faults if item.on in {call.kind, "any"}), None)
            if fault is None:
                return None
            if fault.after:
                fault.after -= 1
                return None
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            return fault

    def _count(self, counter: Counter[str], name: str, size: int) -> None:
        with self._lock:
            counter[name] += size


_HOP = {"content-length", "connection", "server", "date"}


def _understood(asked: Asked) -> _Call:
    parts = urlsplit(asked.target)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path == "/token":
        return _Call("token", asked, query)
    for pattern in (_COPY, _OBJECT, _BUCKET, _SIGNED):
        match = pattern.fullmatch(parts.path)
        if match is not None:
            found = {name: unquote(value) for name, value in match.groupdict().items() if name != "source_bucket"}
            return _Call(_kind(asked.method, pattern, query), asked, query, session=query.get("upload_id", ""), **found)
    return _Call("other", asked, query)


def _kind(method: str, pattern: re.Pattern[str], query: Mapping[str, str]) -> str:
    if pattern is _COPY:
        return "copy"
    if pattern is _SIGNED:
        return "signed"
    if pattern is _BUCKET:
        if method == "GET":
            return "list"
        return "start" if query.get("uploadType") == "resumable" and "upload_id" not in query else "upload"
    if method == "DELETE":
        return "delete"
    return "download" if query.get("alt") == "media" else "describe"


def _metadata(call: _Call) -> bytes:
    return _parts(call)[0] if "uploadType=multipart" in call.asked.target else call.data


def _content(call: _Call) -> bytes:
    return _parts(call)[1]


def _parts(call: _Call) -> list[bytes]:
    """The two bodies of a multipart upload: description and content."""
    boundary = re.search(rb'boundary="?([^";]+)', call.asked.header("content-type").encode())
    assert boundary is not None
    pieces = call.data.split(b"--" + boundary[1])[1:3]
    return [piece.partition(b"\r\n\r\n")[2][:-2] for piece in pieces]


def _chunk_place(call: _Call) -> tuple[int, int]:
    place = _RANGE.fullmatch(call.asked.header("content-range"))
    assert place is not None, call.asked.header("content-range")
    return int(place[1]), int(place[3])


def _with_a_wrong_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _address(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"


def _error(status: int, message: str) -> Answer:
    body = {"error": {"code": status, "message": message, "errors": [{"message": message, "domain": "global"}]}}
    return Answer(status, json.dumps(body).encode())
