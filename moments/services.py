"""The services that the program stands on: started, found and stopped in one place."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from moments.embedded_postgres import EmbeddedPostgres
from moments.settings import PROJECT, Settings
from moments_core.errors import ServiceError, SettingsError
from moments_resources.catalogue import Catalogue
from moments_resources.database import Database
from moments_resources.health import HealthProbe
from moments_resources.history import History
from moments_resources.intake import Intake
from moments_resources.pools import WAITING
from moments_resources.store.cache import LocalCache
from moments_resources.store.file import FileStore
from moments_resources.store.gcs import GcsPlace, GcsStore
from moments_resources.store.interface import ObjectStore
from moments_resources.webhook import Webhook

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from moments_resources.models.registry import Models

#: Held by the supervisor of `moments daemon` and `moments dev`: two daemons on one instance launched one run twice.
DAEMON_LOCK = "daemon"

_POOLS_LOCK = "pools"


def submission_lock(intake_id: int) -> str:
    """Held by the worker process of a submission as long as it lives: tells work in hand from work left behind."""
    return f"submission:{intake_id}"


@dataclass(frozen=True)
class Lakehouse:
    """What every command works on."""

    settings: Settings
    database: Database
    store: ObjectStore

    @property
    def history(self) -> History:
        return History(self.database, tries=self.settings.tries)

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.history)

    @property
    def intake(self) -> Intake:
        return Intake(self.database, self.store)

    def models(self) -> Models:
        """The models registry, with what the models file adds to it. Raises SettingsError for a file that is wrong."""
        from moments_resources.models.registry import Models

        models = Models(self.database)
        models.seed_from(self.settings.models)
        return models


def connect(settings: Settings) -> Lakehouse:
    """The lakehouse that the settings name; nothing is started or contacted before it is used."""
    return Lakehouse(settings, Database(lambda: database_url(settings)), open_store(settings))


def up(settings: Settings) -> Lakehouse:
    """Start what is embedded, bring the schema up to date, and tell Dagster where it lives. Safe to call again."""
    make_folder(settings.state)
    ensure_server(settings)
    lakehouse = connect(settings)
    lakehouse.database.migrate()
    prepare_dagster(settings)
    return lakehouse


def ensure_server(settings: Settings) -> None:
    """Start the embedded server where it is down. A server behind a URL is left alone."""
    if settings.database_url is None:
        EmbeddedPostgres(settings.state).ensure_running()


def is_up(settings: Settings) -> bool:
    """Whether there is a server to talk to. A server behind a URL is taken to be up."""
    return settings.database_url is not None or EmbeddedPostgres(settings.state).address() is not None


def down(settings: Settings) -> bool:
    """Stop the embedded server; says whether one ran. A server behind a URL is left alone."""
    return settings.database_url is None and EmbeddedPostgres(settings.state).stop()


def database_url(settings: Settings) -> str:
    """URL of the lakehouse. Raises ServiceError where the embedded server is down."""
    if settings.database_url is not None:
        return settings.database_url
    address = EmbeddedPostgres(settings.state).address()
    if address is None:
        raise ServiceError("The embedded PostgreSQL is not running: start it with `moments up`.")
    return address.url


def health_probe(settings: Settings) -> HealthProbe:
    """Looks at the installation; nothing is started, and no store needed, for that."""
    return HealthProbe(Database(lambda: database_url(settings)), settings.state, DAEMON_LOCK)


def alert_webhook(settings: Settings) -> Webhook | None:
    """Where alerts go; None where nobody wants them."""
    return None if settings.alert_webhook is None else Webhook(settings.alert_webhook.get_secret_value())


def open_store(settings: Settings) -> ObjectStore:
    """The object store that the settings name. Raises SettingsError for an address that is none."""
    if settings.store_url is None:
        return FileStore(settings.state / "store")
    parts = urlsplit(settings.store_url)
    if parts.scheme == "gs":
        cache = LocalCache(settings.state / "cache", int(settings.cache_gigabytes * 1e9))
        return GcsStore(GcsPlace.parse(settings.store_url), cache)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise SettingsError(
            f"MOMENTS_STORE_URL must be file:///path or gs://bucket/prefix, not {parts.scheme or 'empty'}://…."
        )
    return FileStore(Path(unquote(parts.path)))


def prepare_dagster(settings: Settings) -> None:
    """Give this process and its children Dagster's home, unless the operator has chosen one."""
    if "DAGSTER_HOME" in os.environ:
        return
    home = settings.state / "dagster"
    make_folder(home)
    source, target = PROJECT / "dagster.yaml", home / "dagster.yaml"
    if not target.exists() or target.read_bytes() != source.read_bytes():
        part = home / f"dagster.yaml.{os.getpid()}"
        shutil.copyfile(source, part)
        part.replace(target)
    os.environ["DAGSTER_HOME"] = str(home)


def apply_pools(instance: DagsterInstance, settings: Settings) -> None:
    """Open Dagster's pools to as many steps as are at work or wait in our own queues (moments_resources/pools.py)."""
    if _changed_pools(instance, settings):
        # The first two workers of a fresh lakehouse both inserted the same limits, and one of them died of it.
        with connect(settings).database.lock(_POOLS_LOCK):
            for name, limit in _changed_pools(instance, settings).items():
                instance.event_log_storage.set_concurrency_slots(name, limit)


def _changed_pools(instance: DagsterInstance, settings: Settings) -> dict[str, int]:
    known = {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}
    wanted = {name: limit + WAITING for name, limit in settings.pools.items()}
    return {name: limit for name, limit in wanted.items() if known.get(name) != limit}


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The folder {path} can't be made: {error.strerror}. Check MOMENTS_HOME.") from error
