"""Runs of the whole job: in this process, where a test needs many, and through the command line, where it needs one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from moments.results import Results
from moments.services import Lakehouse, prepare_dagster
from moments.worker import run_submission
from moments_core.options import Options

Json = dict[str, Any]


@pytest.fixture
def take(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Json]:
    """`take(source, **options)`: submit, run the job in this process, return the result as `process --json` has it."""
    # Set and deleted by us, so that the value which `prepare_dagster` sets goes with this test.
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")
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
