"""A lakehouse with things in it that are as old as a test says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from moments_core.retention import Limits
from moments_resources.catalogue import Artifact
from moments_resources.database import Database
from moments_resources.retention.part import Cleaned, Part, Retention
from moments_resources.step import Step
from moments_resources.store.interface import ObjectStore

Make = Callable[..., Artifact]


@pytest.fixture
def retention(database: Database, store: ObjectStore, tmp_path: Path) -> Retention:
    limits = Limits(timedelta(days=30), timedelta(days=30), timedelta(hours=24))
    return Retention(database, store, tmp_path / "scratch", tmp_path / "logs", limits)


@pytest.fixture
def make(new_step: Callable[..., Step]) -> Make:
    """`make(asset, *keys, inputs=…)`: a new version of an asset that names these objects."""

    def made(asset: str, *keys: str, inputs: dict[str, int] | None = None, **request: Any) -> Artifact:
        with new_step(asset, **request) as step:
            step.inputs = inputs or {}
            rows = [{"time_ms": 10, "score": 1.0}] if asset == "scene_cuts" else []
            return step.commit(rows, [{"key": key, "bytes": 3, "sha256": ""} for key in keys])

    return made


@pytest.fixture
def age(sql: Callable[..., Any]) -> Callable[..., None]:
    """`age("artifacts", "superseded_at", days=31)`: as if all of it had been so much earlier."""

    def aged(table: str, column: str, **ago: float) -> None:
        sql(f"update {table} set {column} = {column} - cast(:ago as interval)", ago=timedelta(**ago))  # noqa: S608

    return aged


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., str]:
    """`put(store, key)`: an object of three bytes."""

    def putting(store: ObjectStore, key: str) -> str:
        path = tmp_path / "object"
        path.write_bytes(b"one")
        store.copy_in(path, key)
        return key

    return putting


def run(part: Part[Any]) -> Cleaned:
    """One clean of one part."""
    total = Cleaned()
    for piece in part.candidates():
        total.update(part.remove(piece))
    return total


def weigh(part: Part[Any]) -> Cleaned:
    total = Cleaned()
    for piece in part.candidates():
        total.update(part.weigh(piece))
    return total


@pytest.fixture(name="run")
def _run() -> Callable[[Part[Any]], Cleaned]:
    return run


@pytest.fixture(name="weigh")
def _weigh() -> Callable[[Part[Any]], Cleaned]:
    return weigh
