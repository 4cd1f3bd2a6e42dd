"""A service account of our own, and the check of addresses that it signed (V4, as GCS describes it)."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.stand_ins.proxy_server import Answer, Asked


class Account:
    """A service account and its RSA key."""

    email = "moments@stand-in.iam.gserviceaccount.com"

    @cached_property
    def private_key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, message: bytes) -> bytes:
        return self.private_key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        try:
            self.private_key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def key_file(self, folder: Path, token_uri: str) -> Path:
        """The key as Google hands it out."""
        pem = self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = {
            "type": "service_account",
            "project_id": "stand-in",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": token_uri,
        }
        path = folder / "service-account.json"
        path.write_text(json.dumps(key))
        return path


def signature_fault(asked: Asked, account: Account, clock_ahead_s: int) -> Answer | None:
    """What GCS answers to an address that is not, or no longer, validly signed; None where it is."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}
    if "X-Goog-Signature" not in query:
        return _refusal(403, "AccessDenied", "Anonymous caller does not have storage.objects.get access.")
    made = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    now = datetime.now(UTC) + timedelta(seconds=clock_ahead_s)
    if now > made + timedelta(seconds=int(query["X-Goog-Expires"])):
        return _refusal(400, "ExpiredToken", "The provided token has expired.")
    signer, _, scope = query["X-Goog-Credential"].partition("/")
    message = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, _request_hash(asked)]).encode()
    if signer != account.email or not account.has_signed(message, bytes.fromhex(query["X-Goog-Signature"])):
        return _refusal(403, "SignatureDoesNotMatch", "The signature that was given does not match ours.")
    return None


def _request_hash(asked: Asked) -> str:
    parts = urlsplit(asked.target)
    signed = "&".join(sorted(part for part in parts.query.split("&") if not part.startswith("X-Goog-Signature=")))
    elements = [asked.method, parts.path, signed, f"host:{asked.header('host')}\n", "host", "UNSIGNED-PAYLOAD"]
    return hashlib.sha256("\n".join(elements).encode()).hexdigest()


def _refusal(status: int, code: str, message: str) -> Answer:
    return Answer(
        status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    )
