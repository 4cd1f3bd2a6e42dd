from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import text

from moments import models_command
from moments.models_command import list_models, set_model
from moments.services import Lakehouse
from moments_core.errors import ServiceError, SettingsError
from moments_resources.models.breaker import FAILURES, SPAN_S, rest_s
from moments_resources.models.calls import CallLedger
from moments_resources.models.trial import try_model
from moments_resources.turns import Turns
from tests.stand_ins import faults
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.ssh_server import SshServer


@pytest.fixture
def file(lakehouse: Lakehouse, tmp_path: Path) -> Path:
    """The models file of the lakehouse; not there yet."""
    path = tmp_path / "models.yaml"
    object.__setattr__(lakehouse, "settings", lakehouse.settings.model_copy(update={"models": path}))
    return path


def direct(port: int, **more: object) -> dict[str, object]:
    return {"kind": "chat", "served_name": "big", "remote_host": "127.0.0.1", "remote_port": port, **more}


def written(file: Path, fields: Mapping[str, object]) -> None:
    file.write_text(json.dumps({"m": fields}))  # JSON is YAML


# --- list and set


def test_without_a_models_file_there_are_no_models(lakehouse: Lakehouse, file: Path) -> None:
    assert list_models(lakehouse) == []


def test_the_list_holds_the_entries_of_the_file_and_nothing_that_is_not_set(lakehouse: Lakehouse, file: Path) -> None:
    written(file, direct(1, defaults={"temperature": 0.3}))
    (entry,) = list_models(lakehouse)
    assert entry.pop("updated_at")
    assert entry == {
        "key": "m",
        "kind": "chat",
        "served_name": "big",
        "remote_host": "127.0.0.1",
        "remote_port": 1,
        "supports_video": False,
        "parallel": 1,
        "timeout_s": 300.0,
        "defaults": {"temperature": 0.3},
        "price": {"input_per_million": 0.0, "output_per_million": 0.0, "per_hour": 0.0},
        "updated_by": "models.yaml",
        "in_file": "same",
    }
    json.dumps(entry)


def test_a_relative_models_file_lies_in_the_current_folder(
    lakehouse: Lakehouse, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(file, direct(1))
    monkeypatch.chdir(file.parent)
    object.__setattr__(lakehouse, "settings", lakehouse.settings.model_copy(update={"models": Path("models.yaml")}))
    assert [entry["key"] for entry in list_models(lakehouse)] == ["m"]


def test_an_edit_outlives_the_file_and_the_list_says_so(lakehouse: Lakehouse, file: Path) -> None:
    written(file, direct(1))
    assert set_model(lakehouse, "m", ["parallel=4", "defaults.top_k=20"])["parallel"] == 4
    (entry,) = list_models(lakehouse)
    assert (entry["parallel"], entry["defaults"], entry["in_file"]) == (4, {"top_k": 20}, "different")
    file.unlink()
    assert [entry["in_file"] for entry in list_models(lakehouse)] == ["absent"]


def test_a_wrong_edit_changes_nothing(lakehouse: Lakehouse, file: Path) -> None:
    written(file, direct(1))
    with pytest.raises(SettingsError, match="parallel must be"):
        set_model(lakehouse, "m", ["timeout_s=5", "parallel=0"])
    assert list_models(lakehouse)[0]["timeout_s"] == 300.0


def test_a_broken_models_file_is_named(lakehouse: Lakehouse, file: Path) -> None:
    file.write_text("m: {kind: chta}")
    with pytest.raises(SettingsError, match=r"models\.yaml: Model m: kind must be 'asr', 'chat' or 'vision'"):
        list_models(lakehouse)


# --- test


def test_a_model_of_the_file_is_tested(lakehouse: Lakehouse, file: Path) -> None:
    with ModelServer(served=("big",)) as server:
        written(file, direct(server.port))
        assert models_command.test_model(lakehouse, "m").ok is True


def test_a_model_behind_ssh_is_tested_through_its_tunnel(lakehouse: Lakehouse, file: Path, tmp_path: Path) -> None:
    with ModelServer(served=("big",)) as server, SshServer(tmp_path / "ssh") as ssh:
        written(file, direct(server.port, ssh=ssh.entry_fields()))
        assert models_command.test_model(lakehouse, "m").ok is True
        assert ssh.channels_ever > 0


@pytest.mark.parametrize(("off_s", "verdict"), [(0.2, True), (-0.8, False)])
def test_a_model_that_watches_video_is_asked_for_the_time_of_an_event(
    lakehouse: Lakehouse, file: Path, off_s: float, verdict: bool
) -> None:
    def told(asked: Asked) -> str:
        return json.dumps({"change_time": asked.seen[0].change_ms / 1000 + off_s} if asked.seen else {"answer": 7})

    with ModelServer(answer=told, served=("big",)) as server:
        written(file, {**direct(server.port), "kind": "vision", "supports_video": True})
        found = models_command.test_model(lakehouse, "m")
    assert found.ok is verdict
    assert found.steps[-1].name == "clock"
    assert f"{abs(off_s):.2f} s" in found.steps[-1].sentence


def test_a_table_that_differs_from_the_file_is_told_to_whoever_edits_the_file(lakehouse: Lakehouse, file: Path) -> None:
    with ModelServer(answer=lambda _: '{"answer": 7}', served=("big",)) as server:
        written(file, direct(server.port))
        assert [step.name for step in models_command.test_model(lakehouse, "m").steps if step.name == "file"] == []
        written(file, direct(server.port, parallel=3))
        found = models_command.test_model(lakehouse, "m")
    assert (found.ok, found.steps[0].name) == (True, "file")
    assert "moments models set" in found.steps[0].sentence


def test_a_model_whose_clock_can_not_be_told_has_failed_the_test(lakehouse: Lakehouse, file: Path) -> None:
    def told(asked: Asked) -> str:
        return "I see blue and yellow." if asked.seen else '{"answer": 7}'

    with ModelServer(answer=told, served=("big",)) as server:
        written(file, {**direct(server.port), "kind": "vision", "supports_video": True})
        found = models_command.test_model(lakehouse, "m")
    assert (found.ok, found.steps[-1].name) == (False, "clock")


def test_a_model_that_does_not_answer_in_the_form_asked_for_has_failed_the_test(
    lakehouse: Lakehouse, file: Path
) -> None:
    with ModelServer(answer=lambda _: "Seven, I would say.", served=("big",)) as server:
        written(file, direct(server.port))
        found = models_command.test_model(lakehouse, "m")
    assert (found.ok, found.steps[-1].name) == (False, "call")


@pytest.mark.parametrize(("fault", "verdict"), [(None, True), (faults.not_json, False), (faults.status(500), False)])
def test_a_speech_model_hears_a_second_of_silence(
    lakehouse: Lakehouse, file: Path, fault: faults.Fault | None, verdict: bool
) -> None:
    with ModelServer() as server:
        server.fault_for = lambda _: fault
        written(file, {"kind": "asr", "remote_host": "127.0.0.1", "remote_port": server.port})
        found = models_command.test_model(lakehouse, "m")
    assert (found.ok, found.steps[-1].name) == (verdict, "call")


def test_a_model_that_is_left_alone_is_called_by_its_test(lakehouse: Lakehouse, file: Path) -> None:
    """Whoever calls it otherwise waits, and is told to run the test."""
    with ModelServer(served=("big",)) as server:
        written(file, direct(server.port))
        _break(lakehouse, "m")
        assert rest_s(lakehouse.database, "m") > 0
        assert models_command.test_model(lakehouse, "m").ok is True
        assert rest_s(lakehouse.database, "m") > 0  # it was not waited for
        assert len(server.asked) == 1


def _break(lakehouse: Lakehouse, model: str) -> None:
    """As calls leave it that failed again and again until now."""
    attempt = lakehouse.history.open_attempt("web-0123456789abcdef", "moments", run_id="run")
    ledger = CallLedger(lakehouse.database, attempt)
    for _ in range(FAILURES):
        ledger.fail(ledger.begin(model, "0" * 64, None), ServiceError("It is down."), seconds=1)
    earlier = "update model_calls set started_at = started_at - make_interval(secs => :span * call_id)"
    with lakehouse.database.begin() as connection:
        connection.execute(text(earlier), {"span": SPAN_S / (FAILURES - 2)})


def test_a_test_does_not_wait_for_ever_behind_videos(lakehouse: Lakehouse) -> None:
    with ModelServer() as server, Turns(lakehouse.database).turn("model:m", 1):
        step = try_model(server.entry("m", "chat"), database=lakehouse.database, queue_s=1)
        assert server.asked == []
    assert step.ok is False
    assert step.sentence.startswith("The model m is at work for videos")


def test_an_unknown_model_can_not_be_tested(lakehouse: Lakehouse, file: Path) -> None:
    with pytest.raises(SettingsError, match="There is no model"):
        models_command.test_model(lakehouse, "m")
