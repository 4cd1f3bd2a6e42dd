"""`moments doctor`: each part is tried for real; what doesn't work comes with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from moments.remote_models import FIND, HEAR, REFINE, RemoteModels, Task
from moments.services import Lakehouse, connect, is_up, open_store
from moments.settings import Settings, load_settings
from moments_core.errors import MomentsError
from moments_core.finder.find import LocalFinder
from moments_core.snapping import LocalRefiner
from moments_resources.media.runner import FfmpegRunner
from moments_resources.models.checking import check_entry
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
    checks: list[tuple[str, Callable[[], str]]] = [
        ("database", lambda: _database(settings, lakehouse)),
        ("tables", lambda: _tables(settings, lakehouse)),
        ("store", lambda: open_store(settings).check()),
        ("ffmpeg", _ffmpeg),
        ("speech to text", lambda: _bound(lakehouse, settings.asr_model, LOCAL_SPEECH, HEAR)),
        ("moment finder", lambda: _bound(lakehouse, settings.generation_model, {"local": LocalFinder}, FIND)),
        ("moment refiner", lambda: _bound(lakehouse, settings.refinement_model, {"local": LocalRefiner}, REFINE)),
    ]
    return [*(_try(name, check) for name, check in checks), *_left_over(), *_models(lakehouse)]


def _try(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except MomentsError as error:
        return Finding(name, False, str(error))


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


def _bound(lakehouse: Lakehouse, key: str, built_in: Mapping[str, Any], task: Task) -> str:
    if key in built_in:
        return f"{built_in[key]().recipe} is bound."
    if not is_up(lakehouse.settings):
        return f"Not looked at: the model {key} stands in the database, and that is not running."
    RemoteModels(lakehouse, FfmpegRunner).entry(key, task)
    return f"The model {key} is bound."


def _left_over() -> Iterator[Finding]:
    """Databases outside of a state folder that is gone: as root they can't lie inside of it (docs/adr/0003)."""
    from moments.embedded_postgres import orphans

    for folder in orphans():
        told = f"{folder} is the database of a state folder that is gone: remove it if you don't miss it."
        yield Finding("left-over database", None, told)


def _models(lakehouse: Lakehouse) -> Iterator[Finding]:
    if not is_up(lakehouse.settings):
        return
    try:
        entries = [row.entry for row in lakehouse.models().rows()]
        # Side by side: servers that don't answer take ten seconds each.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for entry, tested in zip(entries, pool.map(check_entry, entries), strict=True):
                for step in tested.steps:
                    yield Finding(f"{entry.key}: {step.name}", step.ok, step.sentence)
    except MomentsError as error:
        yield Finding("models", False, str(error))
