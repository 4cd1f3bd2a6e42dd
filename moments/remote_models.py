"""Makers that call a model: which one answers to a key of the registry, asked anew for every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from moments_core.budget import Budgets
from moments_core.errors import SettingsError
from moments_core.time import to_ms

if TYPE_CHECKING:
    from moments.services import Lakehouse
    from moments_core.content import MomentFinder, MomentRefiner
    from moments_core.model_entry import ModelEntry
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.models.caller import ModelCaller
    from moments_resources.models.chat import ChatModel
    from moments_resources.speech import SpeechToText
    from moments_resources.step import Step


class Task(NamedTuple):
    """What a model is chosen for, and the kinds of models that can do it."""

    name: str
    kinds: frozenset[str]

    def check(self, entry: ModelEntry) -> None:
        """Raises SettingsError for a model that can't do it."""
        if entry.kind not in self.kinds:
            raise SettingsError(
                f"The model {entry.key} is of kind {entry.kind} and can't {self.name}: choose one of kind "
                f"{' or '.join(sorted(self.kinds))}, or `local`.",
                model=entry.key,
            )


HEAR = Task("hear speech", frozenset({"asr"}))
FIND = Task("find moments", frozenset({"chat", "vision"}))
REFINE = Task("refine moments", frozenset({"chat", "vision"}))


@dataclass(frozen=True)
class RemoteModels:
    """Each method gives the maker for a key and the step that it works for, or raises SettingsError.

    Nothing is contacted before the maker is at work; what it opens is closed when the step ends.
    """

    lakehouse: Lakehouse
    ffmpeg: Callable[[], FfmpegRunner]

    def speech(self, key: str, step: Step) -> SpeechToText:
        from moments_resources.models.parakeet import LONGEST_MS, ParakeetSpeech

        entry = self.entry(key, HEAR)
        longest_ms = to_ms(entry.longest_s) if entry.longest_s is not None else LONGEST_MS
        return ParakeetSpeech(self._caller(entry, step), longest_ms=longest_ms)

    def finder(self, key: str, step: Step) -> MomentFinder:
        from moments_resources.models.chat_finder import ChatFinder

        return ChatFinder(self._chat(self.entry(key, FIND), step))

    def refiner(self, key: str, step: Step) -> MomentRefiner:
        """A model that can watch a video sees the clips; any other one reads the transcript."""
        from moments_resources.models.text_refiner import TextRefiner
        from moments_resources.models.video_refiner import VideoRefiner

        chat = self._chat(self.entry(key, REFINE), step)
        if chat.entry.supports_video:
            return VideoRefiner(chat, ffmpeg=self.ffmpeg(), store=self.lakehouse.store, step=step)
        return TextRefiner(chat)

    def entry(self, key: str, task: Task) -> ModelEntry:
        """The model of this key. Raises SettingsError where there is none, or none for this task."""
        entry = self.lakehouse.models().entry(key)
        task.check(entry)
        return entry

    def _chat(self, entry: ModelEntry, step: Step) -> ChatModel:
        from moments_resources.models.chat import ChatModel, chat_parameters

        return ChatModel(self._caller(entry, step, decided_by=chat_parameters(entry)))

    def _caller(self, entry: ModelEntry, step: Step, decided_by: dict[str, object] | None = None) -> ModelCaller:
        from moments_resources.models.caller import ModelCaller
        from moments_resources.models.calls import CallLedger
        from moments_resources.models.link import ModelLink

        database, settings = self.lakehouse.database, self.lakehouse.settings
        budgets = Budgets(settings.video_budget, settings.day_budget)
        return ModelCaller(
            entry,
            link=step.hold(ModelLink(entry)),
            database=database,
            ledger=CallLedger(database, step.attempt, budgets=budgets, measure=step.measure, since_run=step.is_forced),
            decided_by=decided_by,
        )
