"""Where a video comes from: the normal form of its URL, its video id, and which addresses are nobody's but ours."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from typing import TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from moments_core.errors import SourceError

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_LENGTH = 2048  # characters; what browsers, proxies and the sitemap protocol agree on
VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST_WITH_PORT = re.compile(r"[\w-]+(\.[\w-]+)*:\d+(/|$)")  # "localhost:8000/x": a host, though it reads as a scheme
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")  # "C:\\talk.mp4": a path of Windows
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PLAIN_ADDRESS = re.compile(r"[!-~]*")  # ASCII without spaces and control characters
_PLAIN_WORD = re.compile(r"[\w./-]{1,80}")  # safe to repeat in a message: holds no credentials

# Parameters that say who shared a link and never which video it is. `si` and `feature` mean that on YouTube only;
# elsewhere they may choose the video.
_TRACKING = re.compile(
    r"utm_\w+|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|twclid|ttclid|igshid|mc_cid|mc_eid|mkt_tok|_hsenc|_hsmi"
)
_YOUTUBE_TRACKING = frozenset({"si", "feature", "pp", "ab_channel"})
_YOUTUBE_HOST = re.compile(r"(.+\.)?(youtube\.com|youtube-nocookie\.com|youtu\.be)")

# What lets its bearer in: signed addresses (`X-Amz-Signature`, `Policy`, `Key-Pair-Id`, `sig`), and what pages put into
# their links. Rather one name too many: a masked parameter costs a click, a shown one an account.
_SECRET_NAME = re.compile(
    r"token|secret|passw|passcode|^pass$|pwd|credential|signature|hmac|jwt|sess(ion|id)|policy|expir|^x-(amz|goog)-"
    r"|auth(?!or(?!i))|(api|access).?key|key$|(?<![a-z])key(?![a-z])|sig$|(?<![a-z])sig(?![a-z])|^hdn",
    re.IGNORECASE,
)
# A JSON Web Token, and what a random generator makes: 40 letters and more with digits among them. Ids of videos and
# lists are shorter (YouTube 11 and 34, a UUID 36); in a title digits stand apart.
_SECRET_VALUE = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?=(?:.*[0-9][A-Za-z]){2})[\w+/=~.-]{40,}", re.ASCII)
_ADDRESS = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)(?:[^/?#]*@)?([^#]*).*", re.DOTALL)

_NAME_OF_OURS = frozenset({"web", "file"})  # prefixes of ids that no site may claim


def parse_url(text: str) -> str:
    """The normal form of a submitted http(s) URL: two spellings of one address give one string.

    Lower-case scheme and host, IDNA host, no default port, no fragment, no tracking parameters, percent-encoding
    and dot segments resolved, query parameters sorted by name (equal names keep their order).

    >>> parse_url("HTTPS://Example.ORG:443/a/../%7Evideo?b=2&utm_source=x&a=1#t=30")
    'https://example.org/~video?a=1&b=2'
    >>> parse_url("http://bücher.example")
    'http://xn--bcher-kva.example/'

    The result names a video; it is not for fetching, since a signed query may not survive the sorting.
    Raises SourceError; its message never repeats credentials.
    """
    _refuse_unreadable(text)
    parts = _split(text)
    host = _normal_host(parts)
    netloc = host + _normal_port(parts)
    url = urlunsplit((parts.scheme, netloc, _normal_path(parts.path), _normal_query(parts.query, host), ""))
    if len(url) > MAX_URL_LENGTH:
        raise _too_long(len(url))
    return url


def redacted(url: str) -> str:
    """Scheme, host, port and path of a URL, for logs and texts of others: no credentials, no query.

    >>> redacted("https://me:secret@example.org:8443/talk.mp4?token=abc#x")
    'https://example.org:8443/talk.mp4'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable address)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def public_url(url: str) -> str:
    """A URL for tables, pages and messages: it tells which video is meant, and opens no door.

    The query is kept as it was written, but for values that look secret, by their parameter's name or by themselves:
    these are `***`. No credentials, no fragment. What has no `//` (a file's name, an upload's key) has neither.
    A path is taken for public: nobody can tell a secret folder from another.

    >>> public_url("https://me:secret@www.youtube.com/watch?v=dQw4w9WgXcQ&token=abc#t=3")
    'https://www.youtube.com/watch?v=dQw4w9WgXcQ&token=***'
    """
    address, mark, query = _ADDRESS.sub(r"\1\2", url, count=1).partition("?")
    return address + mark + "".join(map(_masked, re.split("([&;])", query)))


def video_id_for_url(normal_url: str) -> str:
    """`web-` and 16 hex digits of the SHA-256 of a URL in the form that `parse_url` gives."""
    return f"web-{_digest(normal_url)}"


def video_id_for_site(extractor: str, site_id: str) -> str:
    """`youtube-dQw4w9WgXcQ`: a known site's own id; hashed where it is not path-safe or too long."""
    name = re.sub(r"[^a-z0-9]", "", extractor.lower())[:40]
    if not name or name in _NAME_OF_OURS:
        raise ValueError(f"a site needs a name of letters, not one of {sorted(_NAME_OF_OURS)}: {extractor!r}")
    video_id = f"{name}-{site_id}"
    return video_id if site_id and VIDEO_ID.fullmatch(video_id) else f"{name}-{_digest(site_id)}"


def video_id_for_content(sha256_hex: str) -> str:
    """`file-` and the first 16 hex digits of the SHA-256 of a file's bytes."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256_hex):
        raise ValueError("a SHA-256 has 64 lower-case hex digits")
    return f"file-{sha256_hex[:16]}"


def parse_video_id(text: str) -> str:
    """`text`, if it has the form of a video id (1 to 80 of A-Z a-z 0-9 _ -); else SourceError."""
    if VIDEO_ID.fullmatch(text):
        return text
    raise SourceError("This is not a video id (1 to 80 letters, digits, _ or -): `moments status` lists the ids.")


def is_private(address: IPAddress) -> bool:
    """True for every address that is not global unicast.

    An IPv6 address that carries an IPv4 address is judged by what it carries: the packet ends there.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _SPECIAL_V4)
    carried = _carried_v4(address)
    if carried:
        return any(is_private(inner) for inner in carried)
    return address not in _GLOBAL_UNICAST or any(address in network for network in _SPECIAL_V6)


def _refuse_unreadable(text: str) -> None:
    if not text:
        raise SourceError("The address is empty: give an http:// or https:// URL.")
    if len(text) > MAX_URL_LENGTH:
        raise _too_long(len(text))
    if text.startswith("-"):
        raise SourceError("The address starts with '-' and reads as an option: give an http:// or https:// URL.")
    # The pattern first: nearly all addresses are plain, and a look at each letter is a third of the work.
    if not _PLAIN_ADDRESS.fullmatch(text) and any(unicodedata.category(letter)[0] in "CZ" for letter in text):
        if "://" not in text:  # the name of a file that is not there, most likely
            raise _not_a_url(text)
        raise SourceError("The address holds a space or a control character: remove it, or write it as %20.")


def _too_long(length: int) -> SourceError:
    return SourceError(f"The address has {length} characters, more than {MAX_URL_LENGTH}: give a shorter one.")


def _split(text: str) -> SplitResult:
    scheme = _SCHEME.match(text)
    if scheme is None or _HOST_WITH_PORT.match(text) or _DRIVE.match(text):
        raise _not_a_url(text)
    if scheme[1].lower() not in _DEFAULT_PORTS:
        raise SourceError(f"Addresses that start with {scheme[1][:20]}: are not fetched, only http: and https:.")
    try:
        return urlsplit(text)
    except ValueError as error:  # "[" without "]", or letters that NFKC turns into "/" or "@"
        raise SourceError("The host of the address can't be read: check its spelling.") from error


def _not_a_url(text: str) -> SourceError:
    named = f"'{text}'" if _PLAIN_WORD.fullmatch(text) else "This"
    return SourceError(
        f"{named} is neither a web address nor a file that exists: give a URL that starts with https://."
    )


def _normal_host(parts: SplitResult) -> str:
    if "@" in parts.netloc:
        raise SourceError("The address holds a user name or password: remove it, for addresses are stored and shown.")
    host = parts.hostname
    if not host:
        raise SourceError("The address has no host: write it as https://host/path.")
    return _bracketed_v6(host) if ":" in host else _ascii_host(host)


def _bracketed_v6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError as error:
        raise SourceError("The host of the address is no valid IPv6 address: check its spelling.") from error
    if address.scope_id:
        raise SourceError("The host of the address names a network interface: only global addresses are fetched.")
    return f"[{address.compressed}]"


def _ascii_host(host: str) -> str:
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise SourceError("The host of the address is no valid host name: check its spelling.")
    return name


def _normal_port(parts: SplitResult) -> str:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise SourceError("The port of the address is not a number from 1 to 65535: check its spelling.")
    return "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"


def _normal_path(path: str) -> str:
    kept: list[str] = []
    segments = _percent_encoded(path, safe="/:@!$&'()*+,;=").split("/")[1:]
    for segment in segments:
        if segment == ".." and kept:
            kept.pop()
        elif segment not in (".", ".."):
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _normal_query(query: str, host: str) -> str:
    pairs = [pair for pair in _percent_encoded(query, safe="/:@!$&'()*+,;=?").split("&") if pair]
    kept = [pair for pair in pairs if not _is_tracking(_name(pair), host)]
    return "&".join(sorted(kept, key=_name))


def _name(pair: str) -> str:
    return pair.partition("=")[0]


def _masked(pair: str) -> str:
    """A parameter with its value or, where that is secret, with `***`; of an address in it the path is left."""
    name, equals, value = pair.partition("=") if "=" in pair else ("", "", pair)
    plain = unquote(value)
    if (equals and _SECRET_NAME.search(unquote(name))) or _SECRET_VALUE.fullmatch(plain):
        return name + equals + "***"
    is_open = "://" not in plain or redacted(plain) == plain
    return name + equals + (value if is_open else quote(redacted(plain), safe=""))


def _is_tracking(name: str, host: str) -> bool:
    on_youtube = name in _YOUTUBE_TRACKING and _YOUTUBE_HOST.fullmatch(host)
    return bool(on_youtube or _TRACKING.fullmatch(name))


def _percent_encoded(text: str, *, safe: str) -> str:
    """RFC 3986, 6.2.2: unreserved letters plain, all others as %XX with upper-case digits."""
    resolved = re.sub(r"%([0-9A-Fa-f]{2})", _plain_if_unreserved, text)
    return quote(re.sub(r"%(?![0-9A-F]{2})", "%25", resolved), safe=safe + "%")


def _plain_if_unreserved(escape: re.Match[str]) -> str:
    letter = chr(int(escape[1], 16))
    return letter if re.fullmatch(r"[A-Za-z0-9._~-]", letter) else escape[0].upper()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _carried_v4(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """IPv4 addresses inside: mapped (::ffff:0:0/96), NAT64 (64:ff9b::/96), 6to4 (2002::/16), Teredo (2001::/32)."""
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.ipv4_mapped or address in _NAT64:
        return (low,)
    if address.sixtofour:
        return (address.sixtofour,)
    return address.teredo or ()


# The special-purpose registries of IANA (RFC 6890 and later), written out: the answers of `ipaddress` differ between
# patch releases of one Python version. 192.88.99.0/24 was the 6to4 relay.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
