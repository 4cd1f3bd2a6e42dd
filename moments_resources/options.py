"""The options of `moments process` as run config, so that the Launchpad and a backfill offer them too."""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from moments_core.options import Options, read_options


class RunOptions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What this run asks for. What it leaves empty is taken from the video's submission, then from the defaults."""

    query: str | None = Field(None, description="What to look for, in your own words.")
    max_moments: int | None = Field(None, description="Keep the best N moments.")
    min_seconds: float | None = Field(None, description="Shortest moment, in seconds.")
    max_seconds: float | None = Field(None, description="Longest moment, in seconds.")
    captions: bool | None = Field(None, description="Use the video's own captions instead of speech recognition.")
    generation_model: str | None = Field(None, description="Key of the model that finds the moments.")
    refinement_model: str | None = Field(None, description="Key of the model that refines them.")
    force: bool = Field(False, description="Make everything again, also what is there with the same recipe.")

    def over(self, submitted: object) -> Options:
        """This run's options, completed by those of a submission. Raises SettingsError for a wrong one."""
        asked = {name: getattr(self, name) for name in Options.model_fields if name in type(self).model_fields}
        above, below = read_options(asked), read_options(submitted).model_copy(update={"force": None})
        # Read again as one: each may be right alone, and the bounds of one contradict the other's.
        return read_options(below.model_dump(exclude_none=True) | above.model_dump(exclude_none=True))
