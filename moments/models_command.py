"""`moments models`: list, change and test the models. Plain data comes out; the CLI shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moments_core.errors import MomentsError
from moments_core.model_entry import ModelEntry
from moments_resources.models.checking import ModelTest, Step, check_entry
from moments_resources.models.registry import Models, parse_changes

if TYPE_CHECKING:
    from moments.services import Lakehouse


def list_models(lakehouse: Lakehouse) -> list[dict[str, Any]]:
    """All models, by key, each with `updated_at`, `updated_by` and `in_file`: same, different or absent.

    Raises SettingsError for a models file or a row that can't be read.
    """
    models, from_file = _seeded(lakehouse)
    return [
        _shown(row.entry)
        | {"updated_at": row.updated_at.isoformat(), "updated_by": row.updated_by}
        | {"in_file": _comparison(row.entry, from_file.get(row.entry.key))}
        for row in models.rows()
    ]


def set_model(lakehouse: Lakehouse, key: str, assignments: list[str]) -> dict[str, Any]:
    """Change a model by `field=value` words and give back the whole entry. Raises SettingsError; nothing is changed."""
    models, _ = _seeded(lakehouse)
    return _shown(models.edit(key, parse_changes(key, assignments)))


def test_model(lakehouse: Lakehouse, key: str) -> ModelTest:
    """Check a model: its entry, the way to it, one small call; and where it watches video, its clock.

    Raises SettingsError for a key that nobody has given.
    """
    from moments_resources.models.trial import try_model

    models, from_file = _seeded(lakehouse)
    entry = models.entry(key)
    steps = list(check_entry(entry).steps)
    if all(step.ok is not False for step in steps):
        # What the way alone could not tell, the call does.
        steps = [step for step in steps if step.ok] + [try_model(entry, database=lakehouse.database)]
    if entry.supports_video and all(step.ok for step in steps):
        steps.append(_clock(lakehouse, entry))
    verdict = all(step.ok for step in steps)
    if _comparison(entry, from_file.get(key)) == "different":
        steps.insert(0, Step("file", None, _NOT_THE_FILE))
    return ModelTest(verdict, steps)


_NOT_THE_FILE = (
    "The table of models says something else than the models file, which is read for new keys alone: what is tested is "
    "the table, and `moments models set` changes it."
)


def _clock(lakehouse: Lakehouse, entry: ModelEntry) -> Step:
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.models.clock import MOST_OFF_MS, clock_sentence, measured_clock_error_ms

    try:
        off_ms = measured_clock_error_ms(
            entry, database=lakehouse.database, store=lakehouse.store, ffmpeg=FfmpegRunner()
        )
    except MomentsError as error:
        return Step("clock", False, str(error))
    return Step("clock", abs(off_ms) <= MOST_OFF_MS, clock_sentence(off_ms))


def _seeded(lakehouse: Lakehouse) -> tuple[Models, dict[str, ModelEntry]]:
    models = Models(lakehouse.database)
    return models, {entry.key: entry for entry in models.seed_from(lakehouse.settings.models)}


def _shown(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_none=True)


def _comparison(entry: ModelEntry, in_file: ModelEntry | None) -> str:
    if in_file is None:
        return "absent"
    return "same" if entry == in_file else "different"
