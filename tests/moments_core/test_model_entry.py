from __future__ import annotations

import traceback
from typing import Any

import pytest

from moments_core.errors import SettingsError
from moments_core.model_entry import ModelEntry, check_field, parse_entry

SSH = {"host": "gpu.example.org", "port": 22, "user": "moments", "key_file": "~/.ssh/id_ed25519"}
VISION: dict[str, Any] = {
    "kind": "vision",
    "served_name": "qwen3-vl-fp8",
    "path": "/v1",
    "remote_host": "worker-16",
    "remote_port": 8010,
    "ssh": SSH | {"known_hosts": "~/.ssh/known_hosts"},
    "supports_video": True,
    "context_tokens": 32768,
    "parallel": 1,
    "timeout_s": 300,
    "defaults": {"temperature": 0.3, "top_p": 0.9, "max_tokens": 4096},
    "price": {"input_per_million": 0.0, "output_per_million": 0.0, "per_hour": 0.0},
}
DIRECT = {name: value for name, value in VISION.items() if name != "ssh"}
HOSTED = {
    "kind": "chat",
    "served_name": "example-large",
    "base_url": "https://api.example.org/v1/",
    "api_key_env": "EXAMPLE_API_KEY",
}
SECRETS = [
    "sk-proj-abcdefghij0123456789ABCD",
    "hf_abcdefghijABCDEFGHIJ0123456789",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "AKIAIOSFODNN7EXAMPLE",
    "DEADBEEFDEADBEEFDEADBEEFDEADBEEF",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
]


def refusal(fields: object, key: str = "qwen") -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse_entry(key, fields)
    return caught.value


def test_the_entry_of_the_contract_is_read() -> None:
    entry = parse_entry("qwen3_vl_fp8", VISION)
    assert entry.key == "qwen3_vl_fp8"
    assert entry.model_dump(exclude={"key"}, exclude_none=True) == VISION


def test_text_is_read_as_the_type_of_its_field() -> None:
    as_text = {name: str(value) for name, value in VISION.items() if not isinstance(value, dict)}
    blocks = {
        name: {inner: str(part) for inner, part in value.items()}
        for name, value in VISION.items()
        if isinstance(value, dict)
    }
    assert parse_entry("qwen", as_text | blocks) == parse_entry("qwen", VISION)


def test_what_is_left_out_has_a_default() -> None:
    entry = parse_entry(
        "qwen", {"kind": "vision", "served_name": "q", "remote_host": "h", "remote_port": 1, "ssh": SSH}
    )
    assert (entry.parallel, entry.timeout_s, entry.supports_video, entry.context_tokens) == (1, 300.0, False, None)
    assert entry.ssh is not None
    assert entry.ssh.known_hosts == "~/.ssh/known_hosts"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (DIRECT, "http://worker-16:8010/v1"),
        (DIRECT | {"remote_host": "2001:db8::1", "path": "/"}, "http://[2001:db8::1]:8010"),
        (DIRECT | {"path": None}, "http://worker-16:8010/v1"),
        (VISION, None),
        (HOSTED, "https://api.example.org/v1"),
        ({"kind": "asr", "remote_host": "10.0.0.7", "remote_port": 8006}, "http://10.0.0.7:8006/transcribe"),
    ],
)
def test_the_direct_address_follows_from_the_entry(fields: object, url: str | None) -> None:
    assert parse_entry("qwen", fields).direct_url == url


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("suports_video", "supports_video"),
        ("ssh_host", "ssh.host"),
        ("temperature", "defaults.temperature"),
        ("api_key", "api_key_env"),
        ("timeout", "timeout_s"),
    ],
)
def test_an_unknown_field_is_refused_by_name_with_the_one_that_was_meant(field: str, meant: str) -> None:
    error = refusal(VISION | {field: "x"})
    assert str(error) == f"Model qwen: {field} is not a field; did you mean {meant}?"
    assert error.evidence == {"key": "qwen", "field": field}


def test_an_unknown_field_of_a_block_is_refused_by_its_dotted_name() -> None:
    assert "ssh.prot is not a field; did you mean ssh.port?" in str(refusal(VISION | {"ssh": SSH | {"prot": 1}}))


def test_an_unknown_field_that_resembles_none_is_answered_with_all_fields() -> None:
    assert "zzz is not a field; the fields are kind, served_name, " in str(refusal(VISION | {"zzz": 1}))


def test_a_misspelt_field_is_named_rather_than_the_one_that_it_leaves_missing() -> None:
    fields = {"knd" if name == "kind" else name: value for name, value in VISION.items()}
    assert "knd is not a field; did you mean kind?" in str(refusal(fields))


def test_the_key_is_no_field() -> None:
    assert "key is not a field" in str(refusal(VISION | {"key": "other"}))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("kind", "video", "must be 'asr', 'chat' or 'vision'"),
        ("served_name", "two words", "must be a name without spaces"),
        ("served_name", 5, "must be text"),
        ("served_name", None, "is missing: a vision model is called by the name"),
        ("path", "v1", "must be a path such as /v1"),
        ("path", "/v1?key=x", "must be a path such as /v1"),
        ("remote_host", "-oProxyCommand=x", "must be a host name or an IP address"),
        ("remote_host", "a..b", "must be a host name or an IP address"),
        ("remote_host", "http://worker", "must be a host name or an IP address"),
        ("remote_host", "x" * 64, "must be a host name or an IP address"),
        ("remote_host", ".".join(["x" * 63] * 5), "must be a host name or an IP address"),
        ("remote_port", 0, "must be greater than or equal to 1"),
        ("remote_port", 65_536, "must be less than or equal to 65535"),
        ("remote_port", "eight", "must be a whole number"),
        ("remote_port", 80.5, "must be a whole number"),
        ("remote_port", None, "is missing: remote_host needs it"),
        ("supports_video", "perhaps", "must be true or false"),
        ("context_tokens", 0, "must be greater than or equal to 256"),
        ("parallel", 0, "must be greater than or equal to 1"),
        ("parallel", 1001, "must be less than or equal to 1000"),
        ("timeout_s", 0, "must be greater than 0"),
        ("timeout_s", 100_000, "must be less than or equal to 86400"),
        ("timeout_s", "nan", "must be a finite number"),
        ("timeout_s", "soon", "must be a number"),
        ("ssh", "gpu.example.org", "must be a map of fields"),
    ],
)
def test_a_value_out_of_bounds_is_refused(field: str, value: object, says: str) -> None:
    error = refusal(VISION | {field: value})
    assert f"Model qwen: {field} {says}" in str(error)
    assert error.evidence["field"] == field


@pytest.mark.parametrize(
    ("block", "field", "value"),
    [
        ("ssh", "host", ""),
        ("ssh", "port", 70_000),
        ("ssh", "user", "-l root"),
        ("ssh", "user", None),
        ("ssh", "key_file", "id_ed25519"),
        ("ssh", "key_file", "/keys/a\nb"),
        ("ssh", "known_hosts", "hosts"),
        ("defaults", "temperature", 2.1),
        ("defaults", "temperature", float("nan")),
        ("defaults", "top_p", 0),
        ("defaults", "top_p", 1.1),
        ("defaults", "top_k", -2),
        ("defaults", "max_tokens", 0),
        ("defaults", "max_tokens", 40_000),
        ("price", "per_hour", -1),
        ("price", "input_per_million", float("inf")),
        ("price", "output_per_million", float("nan")),
    ],
)
def test_a_value_of_a_block_out_of_bounds_is_refused(block: str, field: str, value: object) -> None:
    error = refusal(VISION | {block: VISION[block] | {field: value}})
    assert error.evidence["field"] == f"{block}.{field}"


@pytest.mark.parametrize("key", ["", "local", "Local", "a b", "-x", "x" * 65, "é", "../x"])
def test_a_key_that_could_not_be_chosen_is_refused(key: str) -> None:
    assert "key must be 1 to 64 letters" in str(refusal(VISION, key))


@pytest.mark.parametrize("fields", [None, "chat", [], 7])
def test_an_entry_that_is_no_map_is_refused(fields: object) -> None:
    assert "must be a map of fields" in str(refusal(fields))


@pytest.mark.parametrize("extra", [{"remote_host": "h"}, {"remote_port": 1}, {"ssh": SSH}, {"path": "/v1"}])
def test_base_url_stands_alone(extra: dict[str, object]) -> None:
    error = refusal(HOSTED | extra)
    assert "can't stand beside base_url" in str(error) or error.evidence["field"] == "remote_port"


def test_a_model_without_an_address_is_refused() -> None:
    assert "remote_host is missing" in str(refusal({"kind": "chat", "served_name": "x"}))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.org/v1",
        "ftp://api.example.org",
        "https://",
        "https://a b/",
        "https://api.example.org:0/v1",
        "https://api.example.org:99999/v1",
        "https://[::1/v1",
        "https://api.example.org/v1#x",
        "https://api.example.org/v1\nX: y",
        "https://" + "x" * 600,
    ],
)
def test_a_base_url_that_is_no_address_is_refused(url: str) -> None:
    assert refusal(HOSTED | {"base_url": url}).evidence["field"] == "base_url"


@pytest.mark.parametrize("url", ["https://me:hunter2@api.example.org/v1", "https://api.example.org/v1?key=hunter2"])
def test_a_base_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    assert "hunter2" not in everything_shown(refusal(HOSTED | {"base_url": url}))


def test_a_key_is_sent_over_https_or_on_this_machine_only() -> None:
    assert "base_url must be https://" in str(refusal(HOSTED | {"base_url": "http://api.example.org/v1"}))
    parse_entry("hosted", HOSTED | {"base_url": "http://127.0.0.1:9000/v1"})


def test_api_key_env_belongs_to_base_url() -> None:
    assert "api_key_env belongs to base_url" in str(refusal(DIRECT | {"api_key_env": "KEY"}))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_key_in_place_of_its_variable_is_refused_without_repeating_it(secret: str) -> None:
    error = refusal(HOSTED | {"api_key_env": secret})
    assert error.evidence["field"] == "api_key_env"
    assert secret not in everything_shown(error)


@pytest.mark.parametrize("field", ["served_name", "base_url"])
def test_a_key_in_another_field_is_refused_without_repeating_it(field: str) -> None:
    secret = SECRETS[0]
    error = refusal(HOSTED | {field: f"https://{secret}.example.org/"})
    assert "looks like a secret" in str(error)
    assert secret not in everything_shown(error)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_key_in_place_of_a_name_is_not_repeated(secret: str) -> None:
    assert secret not in everything_shown(refusal(VISION | {f"{secret}0": "x"}))


def test_a_key_in_place_of_the_models_key_is_not_repeated() -> None:
    assert SECRETS[0] not in everything_shown(refusal({}, SECRETS[0]))


@pytest.mark.parametrize("name", ["sk-telecom-ax-4.0-light", "hf_small_instruct_awq_2026", "Qwen/Qwen3-VL-8B-FP8"])
def test_a_model_name_that_begins_like_a_key_is_none(name: str) -> None:
    assert parse_entry("qwen", VISION | {"served_name": name}).served_name == name


def test_a_speech_model_watches_no_video() -> None:
    fields = {"kind": "asr", "remote_host": "h", "remote_port": 1, "supports_video": True}
    assert "supports_video can't be true for kind asr" in str(refusal(fields))


def test_the_longest_sound_of_a_call_belongs_to_speech_models() -> None:
    speech = {"kind": "asr", "remote_host": "h", "remote_port": 1, "longest_s": "120"}
    assert parse_entry("parakeet", speech).longest_s == 120
    assert "longest_s belongs to kind asr" in str(refusal(VISION | {"longest_s": 120}))
    assert "longest_s" in str(refusal(speech | {"longest_s": "nan"}))


@pytest.mark.parametrize("way", ["url", "inline"])
def test_a_model_is_shown_clips_by_address_or_along_with_the_question(way: str) -> None:
    assert parse_entry("qwen", VISION | {"video_by": way}).video_by == way
    assert "video_by must be 'url' or 'inline'" in str(refusal(VISION | {"video_by": "post"}))


def test_an_entry_that_was_read_is_read_again_as_the_same() -> None:
    entry = parse_entry("hosted", HOSTED)
    assert parse_entry("hosted", entry.model_dump(exclude={"key"}, exclude_none=True)) == entry


def test_only_fields_of_the_dotted_form_can_be_named() -> None:
    check_field("qwen", "defaults.top_k")
    with pytest.raises(SettingsError, match=r"default\.top_k is not a field; did you mean defaults\.top_k\?"):
        check_field("qwen", "default.top_k")


def test_an_entry_can_not_be_changed_in_place() -> None:
    entry = ModelEntry.model_validate(HOSTED | {"key": "hosted"})
    with pytest.raises(ValueError, match="frozen"):
        entry.parallel = 7  # type: ignore[misc]


def everything_shown(error: BaseException) -> str:
    """What a log would hold: the message, the evidence and the whole traceback."""
    return "".join(traceback.format_exception(error)) + str(getattr(error, "evidence", ""))
