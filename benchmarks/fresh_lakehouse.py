"""An installation of one's own for a benchmark: its database, its state folder, its Dagster; nothing is left of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moments.services import Lakehouse


@contextmanager
def fresh_lakehouse(**settings: object) -> Iterator[Lakehouse]:
    """A new lakehouse, which the environment names too, for the processes that a benchmark starts.

    `settings`: values of MOMENTS_… variables, by their names in lower case.
    """
    from moments.embedded_postgres import EmbeddedPostgres
    from moments.services import up
    from moments.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith(("MOMENTS_", "DAGSTER_HOME"))]:
            del os.environ[name]
        os.environ["MOMENTS_HOME"] = str(Path(folder) / "home")
        os.environ.update({f"MOMENTS_{name.upper()}": str(value) for name, value in settings.items()})
        chosen = Settings(_env_file=None)
        try:
            lakehouse = up(chosen)
            yield lakehouse
            lakehouse.database.engine.dispose()
        finally:
            EmbeddedPostgres(chosen.state).remove()  # as root it lies outside of the folder
