"""Settings: environment variables and a `.env`, nothing else. Each has an embedded default."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from moments_core.budget import Budget, parse_budget
from moments_core.errors import SettingsError
from moments_core.retrying import MOST_TRIES

PROJECT = Path(__file__).parents[1]

#: How many steps of a kind run at once, over the whole installation.
DEFAULT_POOLS = {"audio": 2, "asr": 2, "generation": 2, "clips": 4, "refinement": 1, "download": 2}

_POOL = re.compile(r"\s*([a-z_]+)\s*=\s*(\d{1,4})\s*")


class Settings(BaseSettings):
    """Every setting, under the name `MOMENTS_` and its own."""

    model_config = SettingsConfigDict(env_prefix="MOMENTS_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(PROJECT / ".moments", description="State folder: database, store, logs, scratch.")
    database_url: str | None = Field(None, description="PostgreSQL of lakehouse and Dagster; else the bundled one.")
    store_url: str | None = Field(None, description="file:///path or gs://bucket/prefix; else $MOMENTS_HOME/store.")
    models: Path = Field(Path("models.yaml"), description="Path of the models file.")
    asr_model: str = Field("local", description="Key of the speech model.")
    generation_model: str = Field("local", description="Key of the model that finds moments.")
    refinement_model: str = Field("local", description="Key of the model that refines them.")
    allow_private_hosts: bool = Field(False, description="Let sources come from loopback and private addresses.")
    pools: Annotated[dict[str, int], NoDecode] = Field(DEFAULT_POOLS, description="Limits: asr=2,refinement=1,…")
    max_hours: float = Field(6.0, gt=0, le=1000, description="Longest video, in hours.")
    max_gigabytes: float = Field(20.0, gt=0, le=10_000, description="Largest video, in gigabytes.")
    tries: int = Field(MOST_TRIES, ge=1, le=100, description="Failed runs in a row that end a submission.")
    max_list: int = Field(100, ge=1, le=10_000, description="Videos that one list may become.")
    keep_versions_days: float = Field(30, ge=0, le=36_500, description="Days that superseded versions are kept.")
    keep_runs_days: float = Field(30, ge=0, le=36_500, description="Days that ended runs and their logs are kept.")
    keep_garbage_hours: float = Field(24, ge=0, le=87_600, description="Hours that objects without a row are kept.")
    cache_gigabytes: float = Field(50.0, gt=0, le=1_000_000, description="What this machine keeps of a gs:// store.")

    video_budget: Annotated[Budget, NoDecode] = Field(Budget(), description="Model calls a video: cost=1,tokens=…")
    day_budget: Annotated[Budget, NoDecode] = Field(Budget(), description="Model calls a day (UTC), as above.")
    alert_webhook: SecretStr | None = Field(None, description="http(s) URL that alerts are posted to; a secret.")
    alert_wait_minutes: float = Field(5.0, ge=0, le=1440, description="How long a bad state stays before an alert.")

    @field_validator("alert_webhook")
    @classmethod
    def _checked_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not is_web_address(value.get_secret_value()):
            raise ValueError("this is no http(s) URL such as https://chat.example.org/hooks/…")
        return value

    @field_validator("pools", mode="before")
    @classmethod
    def _parsed_pools(cls, value: object) -> object:
        return parse_pools(value) if isinstance(value, str) else value

    @field_validator("video_budget", "day_budget", mode="before")
    @classmethod
    def _parsed_budget(cls, value: object) -> object:
        return parse_budget(value) if isinstance(value, str) else value

    @cached_property
    def state(self) -> Path:
        """The state folder as an absolute path."""
        return self.home.expanduser().absolute()


def is_web_address(text: str) -> bool:
    """Whether it has a scheme and a host that can be asked."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def parse_pools(text: str) -> dict[str, int]:
    """`asr=2,refinement=1` over the defaults. Raises ValueError naming the part that is wrong."""
    pools = dict(DEFAULT_POOLS)
    for part in filter(str.strip, text.split(",")):
        match = _POOL.fullmatch(part)
        if match is None or match[1] not in pools or int(match[2]) < 1:
            known = ", ".join(DEFAULT_POOLS)
            raise ValueError(f"{part.strip()!r} is no limit such as asr=2 (at least 1) for one of: {known}")
        pools[match[1]] = int(match[2])
    return pools


def load_settings() -> Settings:
    """The settings in force. Raises SettingsError with one sentence for a wrong one."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = "MOMENTS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("The file .env of this folder can't be read as UTF-8 text: mend or remove it.") from error
