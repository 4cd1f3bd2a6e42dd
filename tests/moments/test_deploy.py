"""The files of deploy/: what they name exists, they agree with each other and with the code, and Dagster takes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.workspace.load import location_origins_from_yaml_paths

from moments.cli import main
from moments.code_server import LOCATION
from moments.query import run_query
from moments.services import Lakehouse
from moments.settings import PROJECT, Settings

DEPLOY = PROJECT / "deploy"
OPERATIONS = PROJECT / "docs" / "operations.md"
SETTINGS = {f"MOMENTS_{name.upper()}" for name in Settings.model_fields}
SERVICES = {"postgres", "migrate", "code", "webserver", "daemon"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Its instructions and their arguments, in order."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


@pytest.fixture
def instance(lakehouse: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """Made from the production file, on the test's PostgreSQL."""
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("COMPUTE_LOGS", str(tmp_path / "logs"))
    with DagsterInstance.get() as instance:
        yield instance


def test_the_production_instance_keeps_its_runs_in_our_postgresql(instance: DagsterInstance) -> None:
    assert instance.get_runs() == []
    storage = instance.get_ref().storage_data
    assert storage is not None
    assert storage.class_name == "LakehouseStorage"
    assert type(instance.run_launcher).__name__ == "DefaultRunLauncher"
    assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    assert instance.run_monitoring_max_runtime_seconds == 43200
    assert not instance.telemetry_enabled


def test_production_and_embedded_default_differ_only_where_the_file_says_so() -> None:
    production, embedded = (
        yaml.safe_load(path.read_text()) for path in (DEPLOY / "dagster.yaml", PROJECT / "dagster.yaml")
    )
    for same in ("storage", "retention", "telemetry", "nux"):
        assert production[same] == embedded[same]
    assert production["concurrency"]["pools"] == embedded["concurrency"]["pools"]
    assert production["run_coordinator"]["config"].items() >= embedded["run_coordinator"]["config"].items()
    assert production["run_monitoring"].items() >= embedded["run_monitoring"].items()
    limits = "tag_concurrency_limits"
    assert production["concurrency"]["runs"][limits] == embedded["concurrency"]["runs"][limits]
    assert set(production) - set(embedded) == {"compute_logs", "run_launcher"}


def test_dagster_reads_the_workspace_and_it_names_the_code_server(compose: dict[str, Any]) -> None:
    (origin,) = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    command = compose["services"]["code"]["command"]
    assert (origin.host, origin.location_name) == ("code", "moments")  # type: ignore[attr-defined]
    assert str(origin.port) == command[command.index("-p") + 1]  # type: ignore[attr-defined]
    assert command[1:3] == ["-m", "moments.code_server"]
    assert origin.location_name == LOCATION


def test_the_image_is_made_of_what_is_there_from_a_lock_with_hashes(dockerfile: list[tuple[str, str]]) -> None:
    copied = [rest.split()[:-1] for word, rest in dockerfile if word == "COPY" and not rest.startswith("--from")]
    sources = [source for sources in copied for source in sources]
    allowed = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == allowed
    assert all((PROJECT / source).exists() for source in sources)
    lock = (PROJECT / "requirements" / "run.lock").read_text()
    pinned = re.findall(r"^\S+==\S+.*\\\n(?=    --hash=sha256:)", lock, flags=re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[^\s#]", lock, flags=re.MULTILINE)) > 50
    assert any("--require-hashes" in rest for word, rest in dockerfile if word == "RUN")


def test_the_image_is_run_by_nobody_and_holds_no_secret(dockerfile: list[tuple[str, str]]) -> None:
    bases = [rest.split()[0] for word, rest in dockerfile if word == "FROM"]
    assert set(bases) == {"python:${PYTHON}"}
    assert ("ARG", "PYTHON=3.11-slim") in dockerfile
    last_user = [rest for word, rest in dockerfile if word == "USER"][-1]
    assert last_user == "moments"
    variables = " ".join(rest for word, rest in dockerfile if word in {"ENV", "ARG"})
    assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL", variables)


def test_the_image_starts_the_code_server_as_compose_does(
    dockerfile: list[tuple[str, str]], compose: dict[str, Any]
) -> None:
    (command,) = (rest for word, rest in dockerfile if word == "CMD")
    assert yaml.safe_load(command) == compose["services"]["code"]["command"]


def test_compose_refers_only_to_what_it_declares(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == SERVICES
    for service in services.values():
        assert set(service.get("depends_on", {})) <= SERVICES
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if isinstance(volume, str)}
        assert {name for name in named if not name.startswith(".")} <= set(compose["volumes"])
        assert all((DEPLOY / name).exists() for name in named if name.startswith("."))
    build = services["code"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()


def test_what_holds_secrets_is_kept_out_of_git(compose: dict[str, Any]) -> None:
    binds = [volume for volume in compose["services"]["code"]["volumes"] if isinstance(volume, dict)]
    files = [file if isinstance(file, str) else file["path"] for file in compose["services"]["code"]["env_file"]]
    places = [bind["source"] for bind in binds] + [secret["file"] for secret in compose["secrets"].values()] + files
    assert all(bind["read_only"] for bind in binds)
    ignored = (DEPLOY / ".gitignore").read_text().split()
    assert {place.removeprefix("./").split("/")[0] for place in places} == {name.rstrip("/") for name in ignored}


def test_nothing_but_the_ui_is_published_and_that_on_loopback(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"webserver": ["127.0.0.1:${UI_PORT:-3000}:3000"]}
    assert compose["networks"]["data"] == {"internal": True}
    assert compose["services"]["postgres"]["networks"] == ["data"]


def test_keys_and_rights_on_the_bucket_are_in_the_code_server_alone(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        text = yaml.safe_dump(service)
        assert ("secrets/ssh" in text, "secrets/google" in text) == (name == "code", name == "code")
        assert "PASSWORD:" not in text


def test_every_variable_of_ours_is_a_setting(compose: dict[str, Any]) -> None:
    settings = compose["services"]["code"]["environment"].keys() | compose["x-moments"]["environment"].keys()
    assert {name for name in settings if name.startswith("MOMENTS_")} == settings
    for path in (DEPLOY / "compose.yaml", DEPLOY / ".env.example", DEPLOY / "Dockerfile", OPERATIONS):
        named = set(re.findall(r"\bMOMENTS_[A-Z_]+\b", path.read_text()))
        assert named <= SETTINGS, path.name


def test_the_example_settings_are_valid() -> None:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    ours = {name.removeprefix("MOMENTS_").lower(): value for name, value in example.items() if name in SETTINGS}
    settings = Settings(_env_file=None, **ours)  # type: ignore[arg-type]
    assert settings.store_url == "gs://example-moments/lakehouse"
    assert settings.generation_model == "qwen3_vl_fp8"


def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
    if shutil.which("docker") is None or _docker_compose(tmp_path, "version").returncode:
        pytest.skip("this machine has no docker compose")
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns(".env", "secrets", "config"))
    shutil.copy(DEPLOY / ".env.example", tmp_path / "deploy" / ".env")
    checked = _docker_compose(tmp_path / "deploy", "config", "-q")
    assert checked.returncode == 0, checked.stderr


def _docker_compose(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MOMENTS_", "COMPOSE_"))}
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, cwd=folder, env=clean, check=False, capture_output=True, text=True)


def test_the_sentences_that_operations_explains_are_said_by_the_program() -> None:
    table = OPERATIONS.read_text().partition("## What to do when")[2].partition("## Capacity")[0]
    explained = re.findall(r"“(.+?)”", table)
    assert len(explained) > 15
    said = " ".join(path.read_text() for floor in PROJECT.glob("moments*") for path in floor.rglob("*.py"))
    joined = re.sub(r'"\s+f?"', "", said)
    assert [sentence for sentence in explained if sentence not in joined] == []


def test_operations_names_real_commands_files_and_services() -> None:
    text = OPERATIONS.read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    commands = set(re.findall(r"\bcode moments ([a-z]+)\b", blocks))
    assert commands <= set(main.commands)
    assert {"doctor", "submit", "status", "sql"} <= commands
    used = set(re.findall(r"docker compose (?:exec(?: -T)?|stop(?: --timeout \d+)?|restart|logs) ([a-z]+)", blocks))
    assert used <= SERVICES
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (OPERATIONS.parent / target).exists() or target.startswith("https://"), target


def test_every_query_of_operations_runs(lakehouse: Lakehouse) -> None:
    queries = re.findall(r"moments sql(?: --csv)? \"(.*?)\"", OPERATIONS.read_text(), flags=re.DOTALL)
    assert len(queries) >= 5
    for query in queries:
        with run_query(lakehouse, query) as answer:
            assert answer.columns
