"""What `moments doctor` finds where something is missing, and that it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from moments.doctor import Finding, examine
from moments.services import Lakehouse
from moments_core.model_entry import parse_entry
from moments_resources.models.registry import Models
from tests.stand_ins.gcs_server import GcsServer
from tests.stand_ins.model_server import ModelServer

Findings = Callable[[], dict[str, Finding]]


@pytest.fixture
def findings(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Findings:
    """What is found, by name; the models file is `models.yaml`, not there yet."""
    monkeypatch.setenv("MOMENTS_MODELS", str(tmp_path / "models.yaml"))
    monkeypatch.chdir(tmp_path)
    return lambda: {finding.name: finding for finding in examine()}


def changed(lakehouse: Lakehouse, statement: str) -> None:
    with lakehouse.database.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "drop schema public cascade; create schema public",
        "update alembic_version set version_num = '0001'; alter table models drop column kind",
    ],
    ids=["without tables", "a migration behind"],
)
def test_models_are_not_looked_at_where_the_tables_are_not_ours(
    findings: Findings, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setenv("MOMENTS_REFINEMENT_MODEL", "qwen")
    changed(lakehouse, statement)
    found = findings()
    assert found["tables"] == Finding(
        "tables", False, "The tables are not those of this program yet: run `moments up`."
    )
    for name in ("moment refiner", "models"):
        assert found[name].ok is None
        assert found[name].sentence.startswith("Not looked at: ")
    assert found["moment finder"].ok is True


def test_models_of_the_file_are_looked_at_and_not_written_into_the_table(
    findings: Findings, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOMENTS_GENERATION_MODEL", "big")
    with ModelServer(served=("big",)) as server:
        fields = {"kind": "chat", "served_name": "big", "remote_host": "127.0.0.1", "remote_port": server.port}
        (tmp_path / "models.yaml").write_text(json.dumps({"big": fields, "moved": {**fields, "remote_port": 1}}))
        Models(lakehouse.database).seed([parse_entry("moved", fields)], seeded_by="somebody")
        found = findings()
    assert found["moment finder"] == Finding("moment finder", True, "The model big is bound.")
    assert found["big: serve"].ok is True
    assert found["moved: serve"].ok is True  # the table is the truth
    assert [row.entry.key for row in Models(lakehouse.database).rows()] == ["moved"]


@pytest.mark.parametrize(
    ("key", "words"), [("bigg", "There is no model bigg: did you mean big?"), ("ears", "is of kind asr and can't find")]
)
def test_a_task_without_a_model_that_can_do_it_is_a_finding(
    findings: Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, words: str
) -> None:
    monkeypatch.setenv("MOMENTS_GENERATION_MODEL", key)
    with ModelServer() as server:
        place = {"remote_host": "127.0.0.1", "remote_port": server.port}
        (tmp_path / "models.yaml").write_text(
            json.dumps({"big": {"kind": "chat", "served_name": "big", **place}, "ears": {"kind": "asr", **place}})
        )
        found = findings()["moment finder"]
    assert found.ok is False
    assert words in found.sentence


@pytest.mark.parametrize(("video_by", "is_found"), [(None, True), ("inline", False)])
def test_a_model_that_opens_clips_by_address_needs_credentials_that_can_sign(
    findings: Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, video_by: str | None, is_found: bool
) -> None:
    """A person's login, as on most laptops, can do everything else."""
    login = tmp_path / "login.json"
    login.write_text('{"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}')
    entry = {"kind": "vision", "served_name": "big", "remote_host": "127.0.0.1", "remote_port": 9}
    fields = {**entry, "supports_video": True, **({"video_by": video_by} if video_by else {})}
    (tmp_path / "models.yaml").write_text(json.dumps({"qwen": fields}))
    with GcsServer() as gcs:
        gcs.create_bucket("media")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
        monkeypatch.setenv("MOMENTS_STORE_URL", "gs://media/x")
        found = findings()
    assert found["store"].ok is True
    assert ("signed addresses" in found) is is_found
    if is_found:
        assert found["signed addresses"].ok is False
        assert "iam.serviceAccountTokenCreator" in found["signed addresses"].sentence
