"""Which maker does a job: one interface, several makers, chosen by a setting or for a single run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from moments_core.options import Options

if TYPE_CHECKING:
    from moments_resources.step import Step

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """Makers by key: those that are built in, else a model of the registry, which is asked anew for each step.

    `option` names the field of Options that may ask for another one than the default.
    """

    built_in: Mapping[str, Callable[[], T]]
    from_registry: Callable[[str, Step], T]
    default: str
    option: str | None = None

    def choose(self, options: Options, step: Step) -> T:
        """The maker for these options. Raises SettingsError for a key that nobody answers to."""
        key = (getattr(options, self.option) if self.option else None) or self.default
        return self.built_in[key]() if key in self.built_in else self.from_registry(key, step)
