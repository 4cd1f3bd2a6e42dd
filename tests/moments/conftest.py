"""Runs of the whole job: in this process, where a test needs many, and through the command line, where it needs one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from moments import worker
from moments.results import Results
from moments.services import Lakehouse, prepare_dagster
from moments.settings import Settings
from moments.worker import run_submission
from moments_core.options import Options
from moments_resources.database import Database
from moments_resources.store.file import FileStore
from tests.moments.production import Production, production_path, until
from tests.stand_ins.model_server import ModelServer

Json = dict[str, Any]


@pytest.fixture
def take(lakehouse: Lakehouse) -> Callable[..., Json]:
    """`take(source, **options)`: submit, run the job in this process, return the result as `process --json` has it."""
    prepare_dagster(lakehouse.settings)

    def taken(source: str | Path, **options: Any) -> Json:
        row = lakehouse.intake.submit(str(source), Options(**options), submitted_by="test")
        if lakehouse.intake.refusal(row) is None:
            run_submission(lakehouse, row.intake_id)
        return Results(lakehouse).submission(row, str(source))

    return taken


@pytest.fixture
def moments_command(lakehouse: Lakehouse) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`moments_command("sql", "select 1")`: the real command, in a process of its own, on the test's lakehouse."""
    return run_command


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Short enough for a socket's address."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as short:
        yield Path(short)


@pytest.fixture
def code_server(lakehouse: Lakehouse, short_folder: Path) -> Iterator[psutil.Process]:
    """Our own, at `code.sock` of the short folder; on the test's lakehouse, or it would start a server that stays."""
    command = [sys.executable, "-m", "moments.code_server", "--socket", str(short_folder / "code.sock")]
    process = subprocess.Popen(command)
    seen = psutil.Process(process.pid)
    family: list[psutil.Process] = []
    try:
        until((short_folder / "code.sock").exists)
        family = seen.children(recursive=True)
        yield seen
    finally:
        for one in [*family, seen]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@pytest.fixture(scope="session")
def run_moments() -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `moments_command`, on whatever lakehouse `environment` names."""
    return run_command


def run_command(
    *arguments: str, stdin: str = "", environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moments.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**_without_settings(), **(environment or {})} if environment else dict(os.environ),
        cwd=cwd,
    )


def json_lines(text: str) -> Sequence[Json]:
    return [json.loads(line) for line in text.splitlines()]


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MOMENTS_", "DAGSTER_"))}


@pytest.fixture(scope="module")
def shared_lakehouse(
    copied_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lakehouse]:
    """One lakehouse for all tests of a file, open to local servers; the environment names it too."""
    with pytest.MonkeyPatch.context() as patch, copied_database() as url:
        for name in [name for name in os.environ if name.startswith(("MOMENTS_", "DAGSTER_"))]:
            patch.delenv(name)
        patch.setenv("MOMENTS_HOME", str(tmp_path_factory.mktemp("shared") / "home"))
        patch.setenv("MOMENTS_DATABASE_URL", url)
        patch.setenv("MOMENTS_ALLOW_PRIVATE_HOSTS", "1")
        patch.setenv("DAGSTER_HOME", "")
        patch.delenv("DAGSTER_HOME")
        settings = Settings(_env_file=None)
        prepare_dagster(settings)
        database = Database(url)
        yield Lakehouse(settings, database, FileStore(settings.state / "store"))
        database.engine.dispose()


@pytest.fixture(scope="module")
def take_all(shared_lakehouse: Lakehouse) -> Callable[..., dict[str, Json]]:
    """`take_all({name: source})`: submits all, runs the workers, as many at once as `at_once` says; the results."""

    def taken(sources: Mapping[str, str | Path], *, at_once: int = 3) -> dict[str, Json]:
        submit, refusal = shared_lakehouse.intake.submit, shared_lakehouse.intake.refusal
        rows = {name: submit(str(source), Options(), submitted_by="test") for name, source in sources.items()}
        _work([row.intake_id for row in rows.values() if refusal(row) is None], at_once)
        results = Results(shared_lakehouse)
        return {
            name: {"intake_id": row.intake_id, **results.submission(row, str(sources[name]))}
            for name, row in rows.items()
        }

    return taken


def _work(intake_ids: Sequence[int], at_once: int) -> None:
    """The real worker's `main` for each, in forks of this process: they share its imports (5 s of CPU)."""
    for name in ("moments.definitions", "yt_dlp.extractor.extractors", "pandas", "av", "scipy.sparse.linalg"):
        import_module(name)
    with warnings.catch_warnings():
        # From Python 3.12 on for any fork beside threads; those of local servers hold nothing that a worker needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        with ProcessPoolExecutor(at_once, mp_context=get_context("fork")) as pool:
            list(pool.map(worker.main, map(str, intake_ids)))


@pytest.fixture(scope="module")
def small_production(
    copied_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    """The production path of a file's tests, with one small video that went through all of it."""
    with (
        copied_database() as url,
        ModelServer(served=("stand-in",)) as models,
        production_path(tmp_path_factory.mktemp("production"), url, models) as production,
    ):
        result = production.process(production.video)
        assert result["status"] == "completed", result["error"]
        yield production


@pytest.fixture(scope="session")
def clear_failure() -> Callable[..., str]:
    return assert_clear_failure


def assert_clear_failure(
    house: Lakehouse, result: Json, *, failure_class: str, words: str, asset: str = "raw_video"
) -> str:
    """What a user relies on when a video fails: a named asset, a class, one sentence, and nothing lost or left."""
    assert result["status"] == "failed", result
    assert result["failed_asset"] == asset
    assert result["error"]["class"] == failure_class, result["error"]
    reason: str = result["error"]["reason"]
    assert words in reason
    assert_one_sentence(reason, house)
    rows = Results(house).rows
    submitted = rows("select * from public.intake_state where intake_id = :id", id=result["intake_id"])
    state = "waiting" if failure_class == "transient" else "failed"  # a daemon would try it again
    assert [(row["state"], row["cause"]) for row in submitted] == [(state, reason)]
    attempts = rows("select * from public.pipeline_history where intake_id = :id", id=result["intake_id"])
    assert {attempt["outcome"] for attempt in attempts} <= {"failed", "retrying", "completed"}
    assert attempts[-1]["cause"] == reason
    failures = "select f.class from public.failures f where f.cause = :cause and f.asset = :asset"
    assert {row["class"] for row in rows(failures, cause=reason, asset=asset)} == {failure_class}
    assert asset not in result["assets"]
    return reason


def assert_one_sentence(reason: str, house: Lakehouse | None = None) -> None:
    """It ends like a sentence, is one, and shows no inside: no path of ours, no class of Python, no traceback."""
    assert reason.endswith((".", "?"))
    assert "\n" not in reason
    assert not re.search(r"[.!?] [A-Z]", reason), reason
    assert not re.search(r"Traceback|\w(Error|Exception)\b|\berrno\b|<class", reason), reason
    if house is not None:
        assert str(house.settings.state) not in reason
        assert not re.search(r"\bscratch\b|\bstore/", reason), reason


@pytest.fixture(scope="session")
def left_running() -> Callable[[], list[str]]:
    """Command lines of the processes below this one that are no server of the tests."""

    def running() -> list[str]:
        below = psutil.Process().children(recursive=True)
        return [" ".join(child.cmdline()) for child in below if "postgres" not in child.name()]

    return running
