"""Which maker does a job: one interface, several makers, chosen by a setting or for a single run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from moments_core.errors import SettingsError
from moments_core.options import Options

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """Makers by key. `option` names the field of Options that may ask for another one than the default."""

    makers: Mapping[str, Callable[[], T]]
    default: str
    option: str | None = None

    def choose(self, options: Options) -> T:
        """The maker for these options. Raises SettingsError for a key that nobody answers to."""
        key = (getattr(options, self.option) if self.option else None) or self.default
        if key not in self.makers:
            known = ", ".join(sorted(self.makers))
            raise SettingsError(f"There is no model {key!r} for this: choose one of {known}.", model=key)
        return self.makers[key]()
