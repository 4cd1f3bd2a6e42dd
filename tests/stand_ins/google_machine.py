"""A machine of Google's on loopback: its metadata server, and IAM behind a proxy that ends TLS itself.

No key lies on such a machine: its account is known by a token, and IAM signs for it.
"""

from __future__ import annotations

import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.stand_ins.gcs_signature import Account
from tests.stand_ins.proxy_server import Answer, Asked, ProxyServer

_IAM = "iamcredentials.googleapis.com"
_TOKEN = "ya29.machine"  # noqa: S105 - opens nothing


class GoogleMachine:
    """`environment` makes Google's libraries of another process believe that they run on this machine."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.may_sign = True
        self._account = account
        self._certificate = _certificate(folder)

    def __enter__(self) -> Self:
        self._server = ProxyServer(self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    @property
    def environment(self) -> dict[str, str]:
        place = self._server.url.removeprefix("http://")
        return {
            "GCE_METADATA_HOST": place,
            "GCE_METADATA_IP": place,
            "HTTPS_PROXY": self._server.url,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self._certificate),
        }

    def _answer(self, asked: Asked) -> None:
        if asked.method == "CONNECT":
            assert asked.target == f"{_IAM}:443"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            asked.send(Answer(200, headers={}))
            asked.in_tls(context, self._iam)
        else:
            asked.send(self._metadata(asked.target.partition("?")[0]))

    def _metadata(self, path: str) -> Answer:
        found: object = None
        if path.endswith("/token"):
            found = {"access_token": _TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        elif path.endswith("/service-accounts/default/"):
            found = {"aliases": ["default"], "email": self._account.email, "scopes": []}
        elif path.endswith("/project-id"):
            found = "stand-in"
        elif path != "/":
            return Answer(404, headers=_FLAVOR)
        return Answer(200, json.dumps(found).encode(), {**_FLAVOR, "Content-Type": "application/json"})

    def _iam(self, head: bytes, body: bytes) -> bytes:
        """The whole reply to a call of signBlob."""
        assert f"/serviceAccounts/{self._account.email}:signBlob".encode() in head
        assert f"Bearer {_TOKEN}".encode() in head
        if not self.may_sign:
            return _reply(403, {"error": {"code": 403, "message": "Permission 'signBlob' denied", "status": "DENIED"}})
        signature = self._account.sign(base64.b64decode(json.loads(body)["payload"]))
        return _reply(200, {"keyId": "1", "signedBlob": base64.b64encode(signature).decode()})


_FLAVOR = {"Metadata-Flavor": "Google"}


def _reply(status: int, body: object) -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status} Stand-in\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


def _certificate(folder: Path) -> Path:
    """A certificate of IAM's name, signed by itself, with its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _IAM)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_IAM)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "iam.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
