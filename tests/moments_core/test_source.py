from __future__ import annotations

import doctest
import hashlib
import ipaddress

import pytest

from moments_core import source
from moments_core.errors import SourceError
from moments_core.source import (
    VIDEO_ID,
    is_private,
    parse_url,
    parse_video_id,
    public_url,
    redacted,
    video_id_for_content,
    video_id_for_site,
    video_id_for_url,
)

SPELLINGS = [
    ("https://example.org", "https://example.org/"),
    ("HTTP://Example.ORG:80/Talk", "http://example.org/Talk"),
    ("https://example.org:443/a", "https://example.org/a"),
    ("https://example.org:8443/a", "https://example.org:8443/a"),
    ("http://example.org:443/a", "http://example.org:443/a"),
    ("https://example.org./a", "https://example.org/a"),
    ("https://example.org/a#t=30", "https://example.org/a"),
    ("https://example.org/%7ename/%e4", "https://example.org/~name/%E4"),
    ("https://example.org/ä", "https://example.org/%C3%A4"),
    ("https://example.org/100%", "https://example.org/100%25"),
    ("https://example.org/a%2Fb", "https://example.org/a%2Fb"),
    ("https://example.org/a/./b/../c/", "https://example.org/a/c/"),
    ("https://example.org/a/%2e%2e/c/..", "https://example.org/"),
    ("https://example.org/a//b", "https://example.org/a//b"),
    ("https://example.org/?", "https://example.org/"),
    ("https://example.org/?b=2&a=1&&c", "https://example.org/?a=1&b=2&c"),
    ("https://example.org/?a=2&b&a=1", "https://example.org/?a=2&a=1&b"),
    ("https://example.org/?q=a+b%20c&x=%2b", "https://example.org/?q=a+b%20c&x=%2B"),
    ("https://example.org/?v=1&utm_source=x&fbclid=y&gclid=z", "https://example.org/?v=1"),
    ("https://example.org/?si=1&feature=2", "https://example.org/?feature=2&si=1"),
    ("https://youtu.be/abc?si=1&feature=share", "https://youtu.be/abc"),
    ("https://m.youtube.com/watch?v=x&pp=1", "https://m.youtube.com/watch?v=x"),
    ("https://notyoutube.com/?si=1", "https://notyoutube.com/?si=1"),
    ("https://Bücher.example/", "https://xn--bcher-kva.example/"),
    ("http://[2001:DB8:0:0::1]:80/a", "http://[2001:db8::1]/a"),
    ("http://127.0.0.1:8000/a.mp4", "http://127.0.0.1:8000/a.mp4"),
]

REFUSED = [
    ("", "empty"),
    (" https://example.org/", "space"),
    ("https://example.org/a b", "space"),
    ("https://example.org/a\n", "control character"),
    ("https://example.org/\x00", "control character"),
    ("https://example.org/\u202egpj.mp4", "control character"),
    ("https://example.org/\udc80", "control character"),
    ("https://example.org/" + "a" * 2048, "more than 2048"),
    ("https://example.org/" + "ä" * 1000, "more than 2048"),
    ("--exec", "option"),
    ("-", "option"),
    ("file:///etc/passwd", "only http: and https:"),
    ("ftp://example.org/a.mp4", "only http: and https:"),
    ("javascript:alert(1)", "only http: and https:"),
    ("data:video/mp4;base64,AAAA", "only http: and https:"),
    ("ytsearch:cats", "only http: and https:"),
    ("https:///talk.mp4", "no host"),
    ("https:example.org", "no host"),
    ("https://", "no host"),
    ("https://example.org:0/", "port"),
    ("https://example.org:99999/", "port"),
    ("https://example.org:http/", "port"),
    ("https://exa mple.org/", "space"),
    ("https://a..b/", "host name"),
    ("https://" + "a" * 64 + ".org/", "host name"),
    ("https://" + ".".join(["abc"] * 80) + "/", "host name"),
    ("https://exam%70le.org/", "host name"),
    ("https://example.org\\.evil.org/", "host name"),
    ("https://[::1/", "can't be read"),
    ("https://[12345::]/", "can't be read|IPv6"),
    ("https://[fe80::1%25eth0]/", "IPv6|interface"),
    ("https://example.org℀evil/", "can't be read"),
    ("talk.mp4", "'talk.mp4' is neither"),
    ("localhost:8000/talk.mp4", "is neither"),
    ("//example.org/talk.mp4", "is neither"),
]


@pytest.mark.parametrize(("text", "normal"), SPELLINGS)
def test_two_spellings_of_one_address_have_one_normal_form(text: str, normal: str) -> None:
    assert parse_url(text) == normal


@pytest.mark.parametrize("normal", [normal for _, normal in SPELLINGS])
def test_a_normal_form_is_its_own_normal_form(normal: str) -> None:
    assert parse_url(normal) == normal


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_what_is_no_web_address_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    ["https://me:hunter2@example.org/", "https://hunter2@example.org/", "me:hunter2@example.org/a", "me@hunter2"],
)
def test_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.evidence == {}


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(source).failed == 0


def test_a_redacted_address_holds_neither_credentials_nor_query() -> None:
    assert redacted("https://u:p@example.org/a?token=1#f") == "https://example.org/a"
    assert redacted("https://[u:p@example.org/") == "(unreadable address)"


PUBLIC = [
    "https://www.youtube.com/watch?v=dQw4w9WgXcQ&list=PLrAXtmErZgOeiKm4sgNOknGvNjby9efdf&t=3",
    "https://example.org/a?author=me&keyword=k&design=2&b=2&a=1&&flag",
    "https://example.org/a?id=123e4567-e89b-12d3-a456-426614174000",
    "https://example.org/a?t=Talk+About+Compost+Heaps+in+our+Gardens+of+2024",
    "https://example.org/a@b?from=https%3A%2F%2Fexample.org%2F",
    "upload:uploads/ab12/talk.mp4",
    "talk #3.mp4",
]


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_address_tells_which_video_is_meant(url: str) -> None:
    assert public_url(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:geheim@example.org/a?v=1#geheim", "https://example.org/a?v=1"),
        ("//u:geheim@example.org/a", "//example.org/a"),
        ("https://[u:geheim@example.org/", "https://example.org/"),
        ("https://h/a?X-Amz-Credential=geheim&v=1", "https://h/a?X-Amz-Credential=***&v=1"),
        ("https://h/a?X-Goog-Date=geheim", "https://h/a?X-Goog-Date=***"),
        ("https://h/a?Policy=geheim&Expires=geheim", "https://h/a?Policy=***&Expires=***"),
        ("https://h/a?AWSAccessKeyId=geheim&Signature=geheim", "https://h/a?AWSAccessKeyId=***&Signature=***"),
        ("https://h/a?Key-Pair-Id=geheim&sv=1&sig=geheim", "https://h/a?Key-Pair-Id=***&sv=1&sig=***"),
        ("https://h/a?key=geheim;access_token=geheim;v=1", "https://h/a?key=***;access_token=***;v=1"),
        ("https://h/a?to%6ben=geheim&password=geheim", "https://h/a?to%6ben=***&password=***"),
        ("https://h/a?apikey=geheim&auth=geheim", "https://h/a?apikey=***&auth=***"),
        ("https://h/a?authorization=geheim&PHPSESSID=geheim", "https://h/a?authorization=***&PHPSESSID=***"),
        ("https://h/a?client_secret=geheim&pass=geheim", "https://h/a?client_secret=***&pass=***"),
        ("https://h/a?x=eyJhbGciOi.eyJzdWIi.geheim", "https://h/a?x=***"),
        ("https://h/a?x=9f86d081884c7d659a2feaa0c55ad015a3bfgeheim", "https://h/a?x=***"),
        ("https://h/a?eyJhbGciOi.eyJzdWIi.geheim", "https://h/a?***"),
        ("https://h/a?v=1&u=https%3A%2F%2Fu%3Ageheim%40c%2Fx%3Fq%3Dgeheim", "https://h/a?v=1&u=https%3A%2F%2Fc%2Fx"),
        ("h/a?token=geheim", "h/a?token=***"),
    ],
)
def test_a_public_address_opens_no_door(url: str, shown: str) -> None:
    assert public_url(url) == shown
    assert public_url(shown) == shown


def test_the_id_of_a_url_is_a_digest_of_its_normal_form() -> None:
    url = parse_url("https://EXAMPLE.org/a")
    assert video_id_for_url(url) == f"web-{hashlib.sha256(b'https://example.org/a').hexdigest()[:16]}"


def test_the_id_of_a_site_is_the_sites_own() -> None:
    assert video_id_for_site("Youtube", "dQw4w9WgXcQ") == "youtube-dQw4w9WgXcQ"
    assert video_id_for_site("twitch:vod", "v123") == "twitchvod-v123"


@pytest.mark.parametrize("site_id", ["../../etc", "a b", "", "x" * 100, "ü", "a\n"])
def test_a_site_id_that_is_not_path_safe_is_hashed(site_id: str) -> None:
    video_id = video_id_for_site("vimeo", site_id)
    assert video_id == f"vimeo-{hashlib.sha256(site_id.encode()).hexdigest()[:16]}"
    assert VIDEO_ID.fullmatch(video_id)


@pytest.mark.parametrize("name", ["web", "File", "", "::"])
def test_no_site_can_take_a_name_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match="a site needs a name"):
        video_id_for_site(name, "1")


def test_the_id_of_a_file_is_a_digest_of_its_content() -> None:
    digest = hashlib.sha256(b"bytes").hexdigest()
    assert video_id_for_content(digest) == f"file-{digest[:16]}"
    with pytest.raises(ValueError, match="64"):
        video_id_for_content("abc")


@pytest.mark.parametrize("text", ["", "a/b", "..", "a b", "a" * 81, "a\n", "é"])
def test_what_is_no_video_id_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="not a video id"):
        parse_video_id(text)


def test_a_video_id_is_taken_as_it_is() -> None:
    assert parse_video_id("youtube-a_B-9") == "youtube-a_B-9"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1",  # noqa: S104
        "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fc00::1", "fd12::1", "fec0::1",
        "ff02::1", "100::1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::808:808", "2002:7f00:1::",
        "2002:c0a8:101::1", "2001:0:808:808::80ff:fffe", "2001:db8::1", "2001:2::1", "2001:10::1", "3fff::1", "5f00::1",
        "4000::1",
    ],
)  # fmt: skip
def test_what_is_not_global_unicast_is_private(address: str) -> None:
    assert is_private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1",
        "223.255.255.255", "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "::ffff:8.8.8.8",
        "64:ff9b::808:808", "2002:808:808::1",
    ],
)  # fmt: skip
def test_global_unicast_is_not_private(address: str) -> None:
    assert not is_private(ipaddress.ip_address(address))


@pytest.mark.parametrize("code", range(128))
def test_of_ascii_only_printable_letters_are_taken(code: int) -> None:
    letter = chr(code)
    address = f"https://example.org/{letter}x"
    if letter.isprintable() and letter != " ":
        assert parse_url(address).startswith("https://example.org/")
    else:
        with pytest.raises(SourceError, match="control character"):
            parse_url(address)
