"""`moments doctor`: each part is tried for real; what doesn't work comes with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from moments.remote_models import FIND, HEAR, REFINE, Task
from moments.services import Lakehouse, connect, is_up, open_store
from moments.settings import Settings, load_settings
from moments_core.errors import MomentsError
from moments_core.finder.find import LocalFinder
from moments_core.model_entry import ModelEntry
from moments_core.snapping import LocalRefiner
from moments_resources.media.runner import FfmpegRunner
from moments_resources.models.checking import check_entry
from moments_resources.models.registry import Models, read_models_file, unknown_model
from moments_resources.speech import LOCAL_SPEECH

_AT_ONCE = 8  # models that are tried side by side


class Finding(NamedTuple):
    """One thing that was checked; `ok` is None where it could not be."""

    name: str
    ok: bool | None
    sentence: str


def examine() -> list[Finding]:
    """Check everything, also after something failed. Raises SettingsError where there is nothing to check with."""
    settings = load_settings()
    # A store's address that is none is one finding of several: what else is looked at needs no store.
    lakehouse = connect(settings.model_copy(update={"store_url": None}))
    tables = _try("tables", lambda: _tables(settings, lakehouse))
    models = _Models(lakehouse, are_there=is_up(settings) and tables.ok is True)
    return [
        _try("database", lambda: _database(settings, lakehouse)),
        tables,
        _try("store", lambda: open_store(settings).check()),
        _try("ffmpeg", _ffmpeg),
        models.bound("speech to text", settings.asr_model, LOCAL_SPEECH, HEAR),
        models.bound("moment finder", settings.generation_model, {"local": LocalFinder}, FIND),
        models.bound("moment refiner", settings.refinement_model, {"local": LocalRefiner}, REFINE),
        *_left_over(),
        *models.tried(),
        *_signing(settings, models),
    ]


def _try(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except MomentsError as error:
        return Finding(name, False, str(error))


def _signing(settings: Settings, models: _Models) -> Iterator[Finding]:
    """Models that open clips by address need addresses that are signed."""
    watching = [entry for entry in models.entries() if entry.supports_video and entry.video_by != "inline"]
    if watching and (settings.store_url or "").startswith("gs:"):
        yield _try("signed addresses", lambda: _signed(settings))


def _signed(settings: Settings) -> str:
    open_store(settings).signed_url("checks/signing", lifetime_s=60)
    return "Addresses of clips can be signed for models that watch them."


def _database(settings: Settings, lakehouse: Lakehouse) -> str:
    from sqlalchemy import text

    if not is_up(settings):
        return "The embedded PostgreSQL is not running; it starts when it is needed, or with `moments up`."
    with lakehouse.database.begin() as connection:
        version = connection.scalar(text("show server_version"))
    kind = "behind MOMENTS_DATABASE_URL" if settings.database_url else "embedded"
    return f"PostgreSQL {version}, {kind}, answers."


def _tables(settings: Settings, lakehouse: Lakehouse) -> str:
    if not is_up(settings):
        return "Not looked at: the embedded PostgreSQL is not running."
    return lakehouse.database.schema_state()


def _ffmpeg() -> str:
    from moments_resources.media.container import ffmpeg_exe

    done = FfmpegRunner().run([ffmpeg_exe(), "-hide_banner", "-version"], timeout_s=30)
    return f"{done.stdout.decode().splitlines()[0]}."


def _left_over() -> Iterator[Finding]:
    """Databases outside of a state folder that is gone: as root they can't lie inside of it (docs/adr/0003)."""
    from moments.embedded_postgres import orphans

    for folder in orphans():
        told = f"{folder} is the database of a state folder that is gone: remove it if you don't miss it."
        yield Finding("left-over database", None, told)


class _Models:
    """The models as a step would have them: the rows of the table, and what the models file would add to it.

    Nothing is added here: who asks what is wrong must not find it changed. `are_there`: whether the table can be read.
    """

    def __init__(self, lakehouse: Lakehouse, *, are_there: bool) -> None:
        self._lakehouse = lakehouse
        self._are_there = are_there

    def bound(self, name: str, key: str, built_in: Mapping[str, Any], task: Task) -> Finding:
        """What does a task: a part of this program, or a model."""
        if key in built_in:
            return _try(name, lambda: f"{built_in[key]().recipe} is bound.")
        if not self._are_there:
            return Finding(name, None, f"Not looked at: the model {key} stands in tables that can't be read now.")
        return _try(name, lambda: self._bound(key, task))

    def tried(self) -> Iterator[Finding]:
        """What is found on the way to each model."""
        if not self._are_there:
            yield Finding("models", None, "Not looked at: they stand in tables that can't be read now.")
            return
        try:
            entries = list(self._entries().values())
            # Side by side: servers that don't answer take ten seconds each.
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for entry, tested in zip(entries, pool.map(check_entry, entries), strict=True):
                    for step in tested.steps:
                        yield Finding(f"{entry.key}: {step.name}", step.ok, step.sentence)
        except MomentsError as error:
            yield Finding("models", False, str(error))

    def entries(self) -> list[ModelEntry]:
        """Those that can be read; what can't is a finding of `tried`."""
        if not self._are_there:
            return []
        try:
            return list(self._entries().values())
        except MomentsError:
            return []

    def _bound(self, key: str, task: Task) -> str:
        entries = self._entries()
        if key not in entries:
            raise unknown_model(key, list(entries))
        task.check(entries[key])
        return f"The model {key} is bound."

    def _entries(self) -> dict[str, ModelEntry]:
        from_file = read_models_file(self._lakehouse.settings.models)
        rows = [row.entry for row in Models(self._lakehouse.database).rows()]
        return {entry.key: entry for entry in (*from_file, *rows)}
