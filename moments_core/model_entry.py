"""A model that moments can call: one entry of models.yaml, one row of the table `models`.

An entry says where a model answers and how to call it. It never holds a secret: a hosted API's key stands in an
environment variable, which the entry names. No message here repeats a value, since a key pasted into the wrong field
would end up in a log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Literal, LiteralString, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from moments_core.errors import SettingsError

BUILT_IN = "local"  # names the makers that need no model; an entry of this name could never be chosen

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})"
_IPV6 = r"[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f.]{0,15}){2,8}"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?|{_IPV6}")
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z_.]{0,39}")  # safe to repeat: no digits, so hardly a key

# Shapes of keys that get pasted into the wrong field: OpenAI and its kin, Hugging Face, GitHub, Google, AWS, a JWT,
# a private key. Long unbroken runs only, so that a model called `sk-telecom-ax` or `hf_small_instruct` passes.
_SECRET = re.compile(
    r"-----BEGIN|\bsk-[\w-]*[A-Za-z0-9]{20}|\b(gsk|hf|gh[opsu]|glpat|r8)[_-][A-Za-z0-9]{20}"
    r"|\bAIza[\w-]{30}|\b(AKIA|ASIA)[A-Z0-9]{16}|\beyJ[\w-]{10,}\.eyJ"
)


def _shaped(pattern: str, says: str) -> AfterValidator:
    """Text of this shape that holds no secret; `says` completes the sentence "FIELD …"."""

    def check(value: str) -> str:
        if _SECRET.search(value):
            raise PydanticCustomError("secret", "holds what looks like a secret; no secret may stand in an entry")
        if re.fullmatch(pattern, value) is None:
            raise PydanticCustomError("shape", "{says}", {"says": says})
        return value

    return AfterValidator(check)


_ADDRESS: LiteralString = "must be an address such as https://api.example.org/v1"


def _api_address(value: str) -> str:
    """`value` without a slash at its end. Query strings and user names are refused: that is where keys hide."""
    parts = _split(value)
    if parts is None or parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.hostname or ""):
        raise PydanticCustomError("address", _ADDRESS)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise PydanticCustomError("address", "must be a plain address: no user, password, query or fragment")
    return value.rstrip("/")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        is_possible = parts.port != 0
    except ValueError:  # unbalanced brackets, a port that is no number or too large
        return None
    return parts if is_possible else None


_HOST_SHAPE = _shaped(rf"(?=.{{1,253}}$)({_HOST.pattern})", "must be a host name or an IP address")
_FILE_SHAPE = _shaped(r"(/|~/)[^\x00-\x1f\x7f]{1,1000}", "must be the path of a file and start with / or ~/")

Key = Annotated[
    str,
    _shaped(
        rf"(?!(?i:{BUILT_IN})$)[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}",
        f"must be 1 to 64 letters, digits, dots, dashes or underscores, and not {BUILT_IN!r}, which is built in",
    ),
]
Host = Annotated[str, _HOST_SHAPE]
FilePath = Annotated[str, _FILE_SHAPE]
BaseUrl = Annotated[str, _shaped(r"[!-~]{1,500}", _ADDRESS), AfterValidator(_api_address)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Money = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
# A key in capitals is a valid variable name too (AWS, plain hexadecimal): no name of 20 letters lacks an underscore.
VariableName = Annotated[
    str,
    _shaped(
        r"(?![A-Z0-9]{20})[A-Z][A-Z0-9_]{1,63}",
        "must be the name of an environment variable, such as EXAMPLE_API_KEY, and not the key itself",
    ),
]


class _Block(BaseModel):
    # hide_input: a ValidationError in a traceback must not show what was pasted.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Ssh(_Block):
    """The way to a model that only an SSH host can reach. Keys only: a password would be a secret in the entry."""

    host: Host
    port: Port = 22
    user: Annotated[str, _shaped(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", "must be a user name")]
    key_file: FilePath
    known_hosts: FilePath = "~/.ssh/known_hosts"


class Defaults(_Block):
    """What a call asks for where its caller says nothing; None leaves it to the server."""

    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="-1 (vLLM) or None: all tokens.")
    max_tokens: int | None = Field(None, ge=1, le=10_000_000)


class Price(_Block):
    """What the model costs, in the currency of your choice: the same one for all models."""

    input_per_million: Money = 0.0
    output_per_million: Money = 0.0
    per_hour: Money = 0.0

    def of_tokens(self, tokens_in: int, tokens_out: int) -> float:
        """Cost of a prompt and a reply of so many tokens."""
        return (tokens_in * self.input_per_million + tokens_out * self.output_per_million) / 1e6

    def of_time(self, seconds: float) -> float:
        """Cost of a call that takes so long."""
        return seconds * self.per_hour / 3600


class ModelEntry(_Block):
    """One model: reached at `remote_host:remote_port`, through `ssh` if that is given, or at `base_url`."""

    key: Key
    kind: Literal["asr", "chat", "vision"]
    served_name: Annotated[str, _shaped(r"[!-~]{1,200}", "must be a name without spaces")] | None = None
    path: Annotated[str, _shaped(r"/[\w./~-]{0,200}", "must be a path such as /v1")] | None = None
    remote_host: Host | None = None
    remote_port: Port | None = None
    ssh: Ssh | None = None
    base_url: BaseUrl | None = None
    api_key_env: VariableName | None = None
    supports_video: bool = False
    video_by: Literal["url", "inline"] | None = Field(
        None, description="How it is shown a clip: an address that it can open, or the bytes; None: as the store can."
    )
    longest_s: float | None = Field(
        None, ge=10, le=36_000, allow_inf_nan=False, description="asr: longest sound of one call, in seconds."
    )
    context_tokens: int | None = Field(None, ge=256, le=100_000_000)
    parallel: int = Field(1, ge=1, le=1000, description="Calls at once, over the whole installation.")
    timeout_s: float = Field(300.0, gt=0, le=86_400, allow_inf_nan=False, description="Longest wait for one reply.")
    defaults: Defaults = Defaults()
    price: Price = Price()

    @model_validator(mode="after")
    def _is_reached_in_one_way(self) -> Self:
        if self.base_url is None and self.remote_host is None:
            raise _rule("remote_host", "is missing: give remote_host and remote_port, or base_url for a hosted API")
        if self.remote_host is not None and self.remote_port is None:
            raise _rule("remote_port", "is missing: remote_host needs it")
        if self.base_url is not None:
            for name in ("remote_host", "remote_port", "ssh", "path"):
                if getattr(self, name) is not None:
                    raise _rule(name, "can't stand beside base_url, which is the whole address")
        return self

    @model_validator(mode="after")
    def _key_travels_encrypted(self) -> Self:
        if self.api_key_env is None:
            return self
        if self.base_url is None:
            raise _rule("api_key_env", "belongs to base_url: a model behind remote_host is called without a key")
        parts = urlsplit(self.base_url)
        if parts.scheme != "https" and not _LOOPBACK.fullmatch(parts.hostname or ""):
            raise _rule("base_url", "must be https:// where api_key_env is given, or the key could be read on its way")
        return self

    @model_validator(mode="after")
    def _kind_agrees(self) -> Self:
        if self.kind != "asr" and self.served_name is None:
            raise _rule("served_name", f"is missing: a {self.kind} model is called by the name that its server knows")
        if self.kind == "asr" and self.supports_video:
            raise _rule("supports_video", "can't be true for kind asr, which hears sound alone")
        if self.kind != "asr" and self.longest_s is not None:
            raise _rule("longest_s", "belongs to kind asr: it is the longest sound of one call")
        if (self.defaults.max_tokens or 0) > (self.context_tokens or float("inf")):
            raise _rule("defaults.max_tokens", "must not be above context_tokens")
        return self

    @property
    def http_path(self) -> str:
        """Path on the server, behind `remote_host`; not for `base_url`, which holds its own."""
        return self.path or ("/transcribe" if self.kind == "asr" else "/v1")

    @property
    def direct_url(self) -> str | None:
        """Address without a slash at its end, or None where the way leads through SSH.

        `asr`: where sound is posted to. `chat` and `vision`: the base, in front of `/chat/completions`.
        """
        if self.base_url is not None:
            return self.base_url
        if self.ssh is not None or self.remote_host is None:
            return None
        host = f"[{self.remote_host}]" if ":" in self.remote_host else self.remote_host
        return f"http://{host}:{self.remote_port}{self.http_path}".rstrip("/")


def parse_entry(key: str, fields: object) -> ModelEntry:
    """The entry of models.yaml that stands under `key`. Text is read as the type of its field.

    Raises SettingsError naming the field; evidence: `key`, `field`. No value is ever repeated.
    """
    if not isinstance(fields, Mapping):
        raise SettingsError(f"Model {shown_key(key)}: must be a map of fields, such as kind: chat.", key=shown_key(key))
    if "key" in fields:
        raise _refused(key, "key", "is not a field: the key is the name in front of the entry")
    try:
        return ModelEntry.model_validate({**fields, "key": key})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # A misspelt field explains the missing one that it was meant to be.
        first = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in first["loc"]) or str(first.get("ctx", {}).get("field", ""))
        # Not chained: pydantic names an unknown field as it stands, and that may be a key that was pasted.
        raise _refused(key, field, _says(first, field)) from None


def check_field(key: str, field: str) -> None:
    """Refuse a field that no entry has, in the dotted form (`ssh.host`). Raises SettingsError."""
    if field not in FIELDS:
        raise _refused(key, field, _unknown(field))


BLOCKS: Mapping[str, type[_Block]] = {"ssh": Ssh, "defaults": Defaults, "price": Price}

#: Every field in the dotted form, the blocks themselves among them.
FIELDS = tuple(name for name in ModelEntry.model_fields if name != "key") + tuple(
    f"{block}.{name}" for block, fields in BLOCKS.items() for name in fields.model_fields
)

_SAYS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "model_type": "must be a map of fields",
}


def _rule(field: str, says: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{says}", {"field": field, "says": says})


def _says(fault: ErrorDetails, field: str) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(field)
    return _SAYS.get(fault["type"]) or fault["msg"].replace("Input should", "must").replace("String should", "must")


def _unknown(field: str) -> str:
    close = difflib.get_close_matches(field, FIELDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(FIELDS)}."
    return f"is not a field; {hint}"


def _refused(key: str, field: str, says: str) -> SettingsError:
    name = field if _PLAIN_NAME.fullmatch(field) else "a field"
    sentence = f"Model {shown_key(key)}: {name} {says}"
    return SettingsError(sentence if sentence[-1] in ".?" else f"{sentence}.", key=shown_key(key), field=name)


def shown_key(key: str) -> str:
    """A model's key as it may be repeated: what was asked for may be a secret in the wrong place."""
    return key if re.fullmatch(r"[\w.-]{1,64}", key) and not _SECRET.search(key) else "(unreadable key)"
