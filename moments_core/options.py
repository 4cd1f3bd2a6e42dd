"""What a submission can ask for: the options of `moments process`, of an intake row and of a run."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from moments_core.errors import SettingsError

DEFAULT_MIN_SECONDS = 25.0


class Options(BaseModel):
    """None means: not asked for; the default of the asset that reads it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str | None = Field(None, min_length=1, max_length=500, description="What to look for.")
    max_moments: int | None = Field(None, ge=1, le=1000, description="Keep the best N moments.")
    min_seconds: float | None = Field(None, gt=0, le=36_000, description="Shortest moment, in seconds.")
    max_seconds: float | None = Field(None, gt=0, le=36_000, description="Longest moment, in seconds.")
    captions: bool | None = Field(None, description="Use the video's own captions.")
    generation_model: str | None = Field(None, min_length=1, description="Model that finds the moments.")
    refinement_model: str | None = Field(None, min_length=1, description="Model that refines them.")
    force: bool | None = Field(None, description="Make everything again, also what is there.")
    revive: bool | None = Field(None, description="Bring the video back if it was taken down.")

    @property
    def of_a_run(self) -> dict[str, object]:
        """What a run is told. Whether the video may come back is decided when its submission is taken in."""
        return self.model_dump(exclude_none=True, exclude={"revive"})

    @field_validator("query", "generation_model", "refinement_model")
    @classmethod
    def _can_be_stored(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:  # PostgreSQL's text can't hold it
            raise ValueError("must not hold a NUL character")
        return value

    @model_validator(mode="after")
    def _bounds_agree(self) -> Self:
        if self.max_seconds is not None and self.max_seconds < (self.min_seconds or 0):
            raise ValueError("max_seconds must not be below min_seconds")
        return self


def read_options(raw: object) -> Options:
    """Options of an intake row or a command. Raises SettingsError naming the field that is wrong."""
    try:
        return Options.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:80] or "options"
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"Option {field}: {message}.", field=field) from error
