"""The production path, set up wrongly: `moments doctor` and a run both say what is wrong and what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import asyncssh
import pytest

from tests.moments.conftest import assert_one_sentence, json_lines
from tests.moments.production import Json, Production, entries, small_video
from tests.stand_ins.faults import cut_by_length, prose, quoting_the_key, saying, wrong_schema
from tests.stand_ins.gcs_server import Fault
from tests.stand_ins.ssh_keys import HOST, known_line

PATIENCE_S = 90  # of a command on a busy machine; alone it takes 15 s at most
API_KEY = "kept-in-the-environment-7f3a"

#: What is said of each model that is set up wrongly, and in which class a run fails.
BROKEN = {
    "missing_key": ("can't be read (No such file or directory): set ssh.key_file", "permanent"),
    "no_key": ("is no private key: set ssh.key_file", "permanent"),
    "unknown_host": ("does not name [127.0.0.1]:", "permanent"),
    "wrong_host_key": ("shows another host key than", "permanent"),
    "not_served": ("does not know another: it serves 'stand-in'; correct served_name", "permanent"),
    "no_api_key": ("The environment variable NO_SUCH_API_KEY is not set", "permanent"),
    "unreachable": ("127.0.0.1:9 refuses connections: check ssh.port", "transient"),
    "dead_port": ("Nothing answers at 127.0.0.1:9 as seen from 127.0.0.1: start the model's server", "transient"),
}
PERMANENT = [key for key, (_, failure_class) in BROKEN.items() if failure_class == "permanent"]

_NOT_GRANTED = "me@x.iam.gserviceaccount.com does not have storage.objects.create access to the bucket."
_NOT_ALLOWED = "may not do storage.objects.create in gs://media: grant it roles/storage.objectUser"
_NO_CREDENTIALS = "No usable Google credentials were found: set GOOGLE_APPLICATION_CREDENTIALS"

Said = list[CompletedProcess[str]]


@pytest.fixture(scope="module")
def said() -> Said:
    """All that commands said."""
    return []


@pytest.fixture(scope="module")
def production(small_production: Production) -> Iterator[Production]:
    with socket.create_server((HOST, 0)) as silent, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAND_IN_API_KEY", API_KEY)
        small_production.known_models(**_broken(small_production, silent.getsockname()[1]))
        yield small_production


def _broken(production: Production, silent_port: int) -> dict[str, Json]:
    ssh, chat = production.ssh.entry_fields(), entries(production.models.port, production.ssh.entry_fields())["minimax"]
    host_key, folder = production.ssh.keys.host[0], production.folder
    other = asyncssh.generate_private_key("ssh-ed25519")

    def file(name: str, content: str) -> str:
        (folder / name).write_text(content)
        return str(folder / name)

    def behind(**fields: object) -> Json:
        return {**chat, "ssh": {**ssh, **fields}}

    hosted = {"kind": "chat", "served_name": "stand-in", "base_url": f"{production.models.url}/v1"}
    return {
        "missing_key": behind(key_file=str(folder / "nothing")),
        "no_key": behind(key_file=file("note.txt", "Buy milk.")),
        "unknown_host": behind(known_hosts=file("other_hosts", known_line(host_key, 22, "elsewhere.example"))),
        "wrong_host_key": behind(known_hosts=file("old_hosts", known_line(other, production.ssh.port))),
        "not_served": {**chat, "served_name": "another"},
        "no_api_key": {**hosted, "api_key_env": "NO_SUCH_API_KEY"},
        "unreachable": behind(port=9, known_hosts=file("hosts_9", known_line(host_key, 9))),
        "dead_port": {**chat, "remote_port": 9},
        "silent": behind(port=silent_port, known_hosts=file("silent_hosts", known_line(host_key, silent_port))),
        "hosted": {**hosted, "api_key_env": "STAND_IN_API_KEY"},
    }


# What the doctor says


def _command(said: Said, *arguments: str, **environment: str | None) -> CompletedProcess[str]:
    """The real command. None takes a variable away."""
    given = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    command = [sys.executable, "-m", "moments.cli", *arguments]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    said.append(done)
    return done


def _doctor(said: Said, **environment: str | None) -> dict[str, Json]:
    """What the command found, by name."""
    done = _command(said, "doctor", "--json", **environment)
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (1, False), done.stderr
    for finding in found["findings"]:
        if finding["ok"] is False:
            assert_one_sentence(finding["sentence"])
    return {finding["name"]: finding for finding in found["findings"]}


def test_the_doctor_names_what_is_wrong_with_the_store(
    small_production: Production, said: Said, tmp_path: Path
) -> None:
    # Google's client as in production: with credentials of its own, and tokens.
    real = {"STORAGE_EMULATOR_HOST": None, "API_ENDPOINT_OVERRIDE": small_production.gcs.url}
    (tmp_path / "account.json").write_text('{"type": "service_account", "private_key": "hunter2"}')
    wrong: dict[str, dict[str, str | None]] = {
        "There is no bucket gs://no-such-bucket: create it": {"MOMENTS_STORE_URL": "gs://no-such-bucket/x"},
        _NO_CREDENTIALS: {**real, "GOOGLE_APPLICATION_CREDENTIALS": None, "NO_GCE_CHECK": "true"},
        f"{_NO_CREDENTIALS} ": {**real, "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json")},
    }
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda environment: _doctor(said, **environment)["store"], wrong.values()))
    for words, finding in zip(wrong, found, strict=True):
        assert finding["ok"] is False
        assert words.strip() in finding["sentence"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("any", status=403, message=_NOT_GRANTED, times=99), _NOT_ALLOWED),
        (Fault("any", status=503, times=99), "busy or away (503): run this again later"),
    ],
)
def test_the_doctor_names_a_bucket_that_refuses(
    small_production: Production, said: Said, fault: Fault, words: str
) -> None:
    small_production.gcs.faults.append(fault)
    try:
        finding = _doctor(said)["store"]
    finally:
        small_production.gcs.forget()
    assert words in finding["sentence"]


def test_the_doctor_names_credentials_that_google_refuses(small_production: Production, said: Said) -> None:
    small_production.gcs.refuses_keys = True
    try:
        finding = _doctor(said, STORAGE_EMULATOR_HOST=None, API_ENDPOINT_OVERRIDE=small_production.gcs.url)["store"]
    finally:
        small_production.gcs.forget()
    assert "wrong, expired or revoked: renew the key" in finding["sentence"]


def test_a_wrong_address_and_a_broken_file_are_findings_among_others(
    small_production: Production, said: Said, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text("minimax: [1")
    found = _doctor(said, MOMENTS_STORE_URL="s3://bucket", MOMENTS_MODELS=str(tmp_path / "models.yaml"))
    assert "must be file:///path or gs://bucket/prefix" in found["store"]["sentence"]
    assert "models.yaml: It is no valid YAML" in found["models"]["sentence"]
    assert [found[name]["ok"] for name in ("database", "tables", "ffmpeg")] == [True] * 3


@pytest.fixture(scope="module")
def findings(production: Production, said: Said) -> dict[str, Json]:
    return _doctor(said, MOMENTS_ASR_MODEL="minimax", MOMENTS_GENERATION_MODEL="minimx")


@pytest.mark.parametrize("key", BROKEN)
def test_the_doctor_names_a_model_that_is_set_up_wrongly(findings: dict[str, Json], key: str) -> None:
    failed = [found for name, found in findings.items() if name.startswith(f"{key}: ") and found["ok"] is False]
    assert len(failed) == 1
    assert BROKEN[key][0] in failed[0]["sentence"]


def test_the_doctor_names_models_that_are_not_there_or_can_not_do_it(findings: dict[str, Json]) -> None:
    assert findings["speech to text"]["sentence"] == (
        "The model minimax is of kind chat and can't hear speech: choose one of kind asr, or `local`."
    )
    assert findings["moment finder"]["sentence"] == "There is no model minimx: did you mean minimax?"


def test_the_doctor_goes_on_behind_what_is_wrong_and_a_host_that_says_nothing(findings: dict[str, Json]) -> None:
    assert "does not answer in time" in findings["silent: reach"]["sentence"]
    well = ("database", "tables", "store", "ffmpeg", "moment refiner", "parakeet: reach", "qwen3_vl: serve")
    assert {name: findings[name]["ok"] for name in well} == dict.fromkeys(well, True)


# What a run says


def _assert_failed(production: Production, result: Json, *, words: str, failure_class: str, asset: str) -> None:
    """One sentence, with asset and class, in the result, in the history and in the states; tried as its class wants."""
    assert (result["status"], result["failed_asset"], result["error"]["class"]) == ("failed", asset, failure_class)
    reason = result["error"]["reason"]
    assert words in reason
    assert_one_sentence(reason, production.lakehouse)
    tries = production.rows(
        "select outcome, class, cause from pipeline_history where intake_id = :id order by attempt_id",
        id=result["intake_id"],
    )
    again = ["retrying", "retrying"] if failure_class == "transient" else []
    assert [row["outcome"] for row in tries] == [*again, "failed"]
    assert {(row["class"], row["cause"]) for row in tries} == {(failure_class, reason)}


@pytest.mark.parametrize("key", PERMANENT)
def test_a_run_names_a_model_that_is_set_up_wrongly(production: Production, key: str) -> None:
    result = production.make("moments", production.video, generation_model=key)
    _assert_failed(production, result, words=BROKEN[key][0], failure_class="permanent", asset="moments")
    assert result["error"]["reason"].startswith(f"Model {key}: ")


@pytest.mark.parametrize(
    ("asset", "option", "key"),
    [("moments", "generation_model", "dead_port"), ("refined_moments", "refinement_model", "unreachable")],
)
def test_what_may_pass_is_tried_three_times(production: Production, asset: str, option: str, key: str) -> None:
    words, failure_class = BROKEN[key]
    result = production.make(asset, production.video, **{option: key})
    _assert_failed(production, result, words=words, failure_class=failure_class, asset=asset)


@pytest.mark.parametrize(
    ("asset", "setting", "key", "words"),
    [
        ("transcript", "MOMENTS_ASR_MODEL", "minimax", "is of kind chat and can't hear speech: choose one of kind asr"),
        ("moments", "MOMENTS_GENERATION_MODEL", "parakeet", "is of kind asr and can't find moments: choose one of"),
        ("refined_moments", "MOMENTS_REFINEMENT_MODEL", "qwen_vl", "no model qwen_vl: did you mean qwen3_vl?"),
    ],
)
def test_a_run_names_a_model_that_is_not_there_or_can_not_do_it(
    production: Production, monkeypatch: pytest.MonkeyPatch, asset: str, setting: str, key: str, words: str
) -> None:
    monkeypatch.setenv(setting, key)
    result = production.make(asset, production.video)
    _assert_failed(production, result, words=words, failure_class="permanent", asset=asset)


def test_a_run_names_a_models_file_that_is_broken(
    production: Production, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text("minimax: {kind: chatt}")
    monkeypatch.setenv("MOMENTS_MODELS", str(tmp_path / "models.yaml"))
    result = production.make("moments", production.video, query="broken file")
    words = "models.yaml: Model minimax: kind must be 'asr', 'chat' or 'vision'"
    _assert_failed(production, result, words=words, failure_class="permanent", asset="moments")


def test_a_key_that_the_server_repeats_is_told_by_the_name_of_its_variable(production: Production) -> None:
    production.models.faults.append(quoting_the_key)
    result = production.make("moments", production.video, generation_model="hosted")
    words = "refuses the key in STAND_IN_API_KEY (status 401)"
    _assert_failed(production, result, words=words, failure_class="permanent", asset="moments")


def test_a_bucket_that_refuses_ends_the_step_at_once(production: Production) -> None:
    # The first request asks whether the submitted file is there already.
    production.gcs.faults.append(Fault("any", status=403, message=_NOT_GRANTED, after=1, times=99))
    try:
        result = production.make("raw_video", production.video, force=True)
    finally:
        production.gcs.forget()
    _assert_failed(production, result, words=_NOT_ALLOWED, failure_class="permanent", asset="raw_video")


def test_a_file_that_the_store_does_not_take_is_a_failed_video_of_its_command(
    production: Production, said: Said, tmp_path: Path
) -> None:
    video = small_video(tmp_path / "new.mp4", title="new")
    elsewhere = {"MOMENTS_STORE_URL": "gs://no-such-bucket/x"}
    done = _command(said, "process", "--json", str(video), **elsewhere)
    status = _command(said, "status", "--json", **elsewhere)
    (result,) = json_lines(done.stdout)
    assert done.returncode == 1
    assert (result["status"], result["failed_asset"], result["error"]) == (
        "failed", "raw_video",
        {
            "class": "permanent",
            "reason": "There is no bucket gs://no-such-bucket: create it, or correct MOMENTS_STORE_URL.",
        },
    )  # fmt: skip
    (state,) = [state for state in json_lines(status.stdout) if state["reason"] == result["error"]["reason"]]
    assert (state["state"], state["asset"], state["class"]) == ("failed", "raw_video", "permanent")


# What a finder says that can't be used, and what it may say


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (cut_by_length, "ran out of tokens in the middle of its reply: raise defaults.max_tokens"),
        (prose, "minimax on sentences 1–3"),
        (wrong_schema, "minimax on sentences 1–3"),
    ],
)
def test_a_reply_that_can_not_be_used_fails_once_and_is_kept(
    production: Production, fault: object, words: str, request: pytest.FixtureRequest
) -> None:
    production.models.faults.append(fault)  # type: ignore[arg-type]
    before = len(production.models.asked)
    result = production.make("moments", production.video, query=request.node.name[:200])
    _assert_failed(production, result, words=words, failure_class="permanent", asset="moments")
    assert len(production.models.asked) == before + 1
    (call,) = production.rows(
        "select c.outcome, c.class, c.status, c.reply from model_calls c join pipeline_history h using (attempt_id)"
        " where h.intake_id = :id",
        id=result["intake_id"],
    )
    assert (call["outcome"], call["class"], call["status"]) == ("refused", "permanent", 200)
    assert json.loads(call["reply"])["choices"]


def test_no_moment_is_a_result_that_says_why(production: Production, said: Said) -> None:
    video = small_video(production.folder / "quiet.mp4", title="quiet")
    production.models.fault_for = lambda asked: saying('{"moments": []}') if b"first_sentence" in asked.body else None
    before = len(production.models.asked)
    result = production.process(video)
    production.models.fault_for = lambda _: None
    assert (result["status"], result["moments"]) == ("completed", [])
    assert result["note"] == "No moment: minimax found none in 3 sentences"
    assert [asked.path for asked in production.models.asked[before:]].count("/v1/chat/completions") == 1
    empty = production.rows(
        "select asset, row_count from artifacts where video_id = :id and asset in ('clips', 'refined_moments')",
        id=result["video_id"],
    )
    assert [row["row_count"] for row in empty] == [0, 0]
    for command in ("show", "process"):
        done = _command(said, command, str(video) if command == "process" else result["video_id"])
        assert done.returncode == 0
        assert "No moment: minimax found none in 3 sentences." in done.stdout


# What all of it must not say


def test_no_secret_is_told_or_kept(production: Production, findings: dict[str, Json], said: Said) -> None:
    """Neither by a command, nor in a table of ours or Dagster's, nor in a file of the state folder."""
    secrets = [API_KEY, "hunter2", "X-Goog-Signature", "ya29.", *_lines_of(production.ssh.keys.key_file)]
    secrets += _lines_of(production.folder / "service-account.json")[0].split("\\n")[1:3]
    production.models.faults.append(quoting_the_key)
    assert production.make("moments", production.video, generation_model="hosted")["status"] == "failed"
    told = "\n".join(f"{done.stdout}{done.stderr}" for done in said)
    kept = "\n".join(
        path.read_text(errors="replace")
        for path in production.lakehouse.settings.state.rglob("*")
        if path.is_file() and "cache" not in path.parts
    )
    tables = production.rows(
        "select format('%I.%I', table_schema, table_name) as name from information_schema.tables"
        " where table_type = 'BASE TABLE' and table_schema in ('public', 'versions', 'dagster')"
    )
    held = "\n".join(
        str(row["row"])
        for table in tables
        for row in production.rows(f"select t::text as row from {table['name']} t")  # noqa: S608 - from the catalogue
    )
    assert "file-" in held
    for secret in secrets:
        assert len(secret) >= 5
        assert [
            place for place, content in (("told", told), ("file", kept), ("table", held)) if secret in content
        ] == []
    assert "Traceback" not in told


def _lines_of(key: Path) -> list[str]:
    return [line for line in key.read_text().splitlines() if not line.startswith("-----")]
