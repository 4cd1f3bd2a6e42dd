"""`moments clean`: what it prints, what it leaves alone, and when it wants a second word."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import text

from moments.cleaning import retention_of
from moments.services import Lakehouse
from moments.settings import Settings
from moments_resources.step import Step, StepRequest

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def put(lakehouse: Lakehouse, tmp_path: Path) -> Callable[..., None]:
    """`put("a.jpg", …)`: a version of an asset that names these objects; the one before is long superseded."""

    def putting(*names: str, named: bool = True) -> None:
        path = tmp_path / "object"
        path.write_bytes(b"one")
        keys = [f"videos/web-1/scene_cuts/0123/{name}" for name in names]
        stored = [lakehouse.store.copy_in(path, key).as_json() for key in keys]
        if named:
            with Step(lakehouse.catalogue, tmp_path / "scratch", StepRequest("web-1", "scene_cuts", "run-1")) as step:
                step.commit([{"time_ms": 10, "score": 1.0}], stored)

    return putting


@pytest.fixture
def aged(lakehouse: Lakehouse) -> Callable[[], None]:
    def age() -> None:
        with lakehouse.database.begin() as connection:
            for table, column in (("artifacts", "superseded_at"), ("garbage", "found_at")):
                ago = {"ago": timedelta(days=31)}
                connection.execute(text(f"update {table} set {column} = {column} - cast(:ago as interval)"), ago)  # noqa: S608

    return age


def keys(lakehouse: Lakehouse) -> list[str]:
    return [key.rpartition("/")[2] for key in list(lakehouse.store.keys())]


def test_a_clean_over_two_nights(
    lakehouse: Lakehouse, moments_command: Command, put: Callable[..., None], aged: Callable[[], None]
) -> None:
    put("old.jpg")
    put("a.jpg", "b.jpg", "c.jpg")
    aged()
    ahead = moments_command("clean", "--dry-run", "--json")
    assert ahead.returncode == 0, ahead.stderr
    said = json.loads(ahead.stdout)
    assert (said["dry_run"], said["versions"], said["objects"], said["found"]) == (True, 1, 0, 0)
    first = moments_command("clean")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Removed: 1 superseded versions, 1 of their rows")
    assert "Noted for a later clean: 1 objects" in first.stdout
    assert "objects that no row names: 4 seen, 1 found" in first.stderr
    assert sorted(keys(lakehouse)) == ["a.jpg", "b.jpg", "c.jpg", "old.jpg"]
    aged()
    second = moments_command("clean", "--json")
    went = json.loads(second.stdout)
    assert (went["objects"], went["bytes"], went["versions"]) == (1, 3, 0)
    assert sorted(keys(lakehouse)) == ["a.jpg", "b.jpg", "c.jpg"]


def test_over_half_of_everything_goes_at_the_second_word_alone(
    lakehouse: Lakehouse, moments_command: Command, put: Callable[..., None], aged: Callable[[], None]
) -> None:
    for number in range(100):
        put(f"{number}.jpg")
    aged()
    refused = moments_command("clean")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "This would remove 99 of 100 versions and 0 of 100 objects" in refused.stderr
    assert "--bulk" in refused.stderr
    assert len(keys(lakehouse)) == 100
    assert lakehouse.catalogue.current("web-1", "scene_cuts") is not None
    meant = moments_command("clean", "--bulk")
    assert meant.returncode == 0, meant.stderr
    assert "Removed: 99 superseded versions" in meant.stdout
    current = lakehouse.catalogue.current("web-1", "scene_cuts")
    assert current is not None
    assert (current.version, lakehouse.catalogue.rows(current)) == (100, [{"time_ms": 10, "score": 1.0}])


def test_the_limits_come_from_the_settings(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = retention_of(lakehouse).limits
    assert (limits.versions, limits.runs, limits.garbage) == (timedelta(30), timedelta(30), timedelta(hours=24))
    for name, value in (("VERSIONS_DAYS", "1"), ("RUNS_DAYS", "2.5"), ("GARBAGE_HOURS", "3")):
        monkeypatch.setenv(f"MOMENTS_KEEP_{name}", value)
    set_: Any = Lakehouse(Settings(_env_file=None), lakehouse.database, lakehouse.store)
    limits = retention_of(set_).limits
    assert (limits.versions, limits.runs, limits.garbage) == (timedelta(1), timedelta(2.5), timedelta(hours=3))


def test_a_clean_beside_another_fails_with_a_sentence(lakehouse: Lakehouse, moments_command: Command) -> None:
    with lakehouse.database.try_lock("retention"):
        done = moments_command("clean")
    assert (done.returncode, done.stdout) == (1, "")
    assert "moments: Another clean is at work: wait until it has ended." in done.stderr
