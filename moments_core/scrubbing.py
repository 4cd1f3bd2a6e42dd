"""What a server said, without what must not be kept of it: keys, signatures, whole files."""

from __future__ import annotations

import re

_SIGNATURES = re.compile(r"(?i)(X-Goog-(?:Signature|Credential|Security-Token)=)[^&\s\"'\\]+")
_SECRETS = re.compile(r"(?i)(bearer\s+)\S+|\bsk-[\w-]{8,}|\?[^\s\"']*|data:[\w/]+;base64,\S+")


def without_secrets(text: str, secret: str | None = None) -> str:
    """`text` as it is, but for `secret` and the signatures of addresses."""
    text = text.replace(secret, "***") if secret else text
    return _SIGNATURES.sub(r"\1***", text)


def scrubbed(text: str, secret: str | None = None, *, limit: int = 300) -> str:
    """The beginning of `text` in one line of at most `limit` characters, without queries of addresses and files."""
    short = without_secrets(text[: 20 * limit], secret)
    plain = " ".join(_SECRETS.sub(lambda found: f"{found[1] or ''}***", short).split())
    return "".join(letter for letter in plain if letter.isprintable())[:limit].rstrip(". ")
