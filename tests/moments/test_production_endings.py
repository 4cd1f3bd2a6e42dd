"""A worker that is stopped or killed while it calls a model: nothing is left of it, and nothing is asked twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._utils.error import serializable_error_info_from_exc_info
from sqlalchemy import text

from moments.worker import _as_ours
from moments_core.errors import DIED, CancelledError, MomentsError, NetworkError, SettingsError
from moments_core.options import Options
from moments_resources.turns import Turns
from tests.moments.production import Json, Production, entries, listening_ports, until
from tests.stand_ins.faults import Fault, hang
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.ssh_process import asyncssh_process

STOPPED = "Stopped on request before it was done; nothing of it was kept."
PATIENCE_S = 10  # what `moments process` waits for its workers


@dataclass(frozen=True)
class Work:
    """An asset that calls a model: how its calls are known, how many there are, and what asks for a new version."""

    asset: str
    mark: bytes
    calls: int
    options: dict[str, Any]
    environment: dict[str, str]

    def is_of(self, asked: Asked) -> bool:
        return re.search(self.mark, asked.path.encode() + asked.body[:20_000]) is not None

    @property
    def table(self) -> str:
        return {"transcript": "transcripts"}.get(self.asset, self.asset)


def _work(asset: str, name: str) -> Work:
    """Work that nobody has done yet: under a name of its own."""
    if asset == "transcript":
        # With a query, for a submission that asks for nothing new is never worked on.
        return Work(asset, b"^/transcribe", 3, {"query": name}, {"MOMENTS_ASR_MODEL": f"parakeet_{name}"})
    if asset == "moments":
        return Work(asset, b'"first_sentence"', 1, {"query": name}, {})
    return Work(asset, b"video_url", 3, {"refinement_model": f"qwen3_{name}"}, {})


@pytest.fixture(scope="module")
def production(small_production: Production) -> Production:
    all_models = entries(small_production.models.port, small_production.ssh.entry_fields())
    names = [f"{kind}_{number}" for kind in ("end", "kill", "crash") for number in range(3)]
    small_production.known_models(
        **{f"parakeet_{name}": all_models["parakeet"] for name in names},
        # One at a time: the first is answered, the second hangs, the third has not begun.
        **{f"qwen3_{name}": {**all_models["qwen3_vl"], "parallel": 1} for name in names},
    )
    return small_production


@contextmanager
def _worker(production: Production, work: Work) -> Iterator[tuple[int, psutil.Popen]]:
    """A submission, and the worker process that takes it through the job."""
    row = production.lakehouse.intake.submit(str(production.video), Options(**work.options), submitted_by="test")
    log = production.lakehouse.settings.state / "logs" / f"intake-{row.intake_id}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as file:
        process = psutil.Popen(
            [sys.executable, "-m", "moments.worker", str(row.intake_id)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **work.environment},
        )
    try:
        yield row.intake_id, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def _hanging(production: Production, work: Work) -> Iterator[int]:
    """Of several calls the second one hangs, else the only one. Yields how many calls there were before."""
    since, number = len(production.models.asked), min(2, work.calls)

    def fault_for(asked: Asked) -> Fault | None:
        return hang if work.is_of(asked) and len(_asked(production, work, since)) == number else None

    production.models.fault_for = fault_for
    try:
        yield since
    finally:
        production.models.fault_for = lambda _: None


def _state(production: Production, intake_id: int) -> Json:
    query = "select state, failed_asset, class, cause from intake_state where intake_id = :id"
    return production.rows(query, id=intake_id)[0]


def _asked(production: Production, work: Work, since: int) -> list[Asked]:
    return [asked for asked in production.models.asked[since:] if work.is_of(asked)]


def _calls(production: Production, work: Work, intake_id: int) -> list[Json]:
    return production.rows(
        "select c.outcome, c.class, c.cause from model_calls c join pipeline_history h using (attempt_id)"
        " where h.intake_id = :id and c.asset = :asset order by c.call_id",
        id=intake_id,
        asset=work.asset,
    )


def _assert_nothing_is_left(production: Production, *, files: bool = True) -> None:
    """No connection, no channel, no lock; no port, for it belonged to the process; no scratch, no half-fetched file."""
    until(lambda: (production.ssh.connections, production.ssh.channels) == (0, 0), seconds=10)
    held = "select 1 from pg_locks where locktype = 'advisory'"
    until(lambda: production.rows(held) == [], seconds=10)
    if files:
        home = production.lakehouse.settings.state
        in_cache = [path for path in (home / "cache").rglob("*") if path.suffix in {".part", ".lock", ".tmp"}]
        assert [*(home / "scratch").rglob("*"), *in_cache] == []


def _assert_completes(production: Production, work: Work, monkeypatch: pytest.MonkeyPatch, *, new_calls: int) -> None:
    before = len(production.models.asked)
    for name, value in work.environment.items():
        monkeypatch.setenv(name, value)
    made = production.make(work.asset, production.video, **work.options)
    assert made["error"] is None or "has not ended" in made["error"]["reason"]  # one asset is not all of them
    (attempt,) = production.rows(
        "select outcome from pipeline_history where intake_id = :id and asset = :asset",
        id=made["intake_id"],
        asset=work.asset,
    )
    assert attempt["outcome"] == "completed"
    assert len(_asked(production, work, before)) == new_calls
    _assert_nothing_is_left(production)


@pytest.mark.parametrize(
    ("number", "asset", "asking"),
    [(0, "transcript", signal.SIGTERM), (1, "moments", signal.SIGINT), (2, "refined_moments", signal.SIGTERM)],
)
def test_a_worker_that_is_stopped_in_a_call_ends_at_once_and_its_answers_are_kept(
    production: Production, monkeypatch: pytest.MonkeyPatch, number: int, asset: str, asking: signal.Signals
) -> None:
    work = _work(asset, f"end_{number}")
    with _hanging(production, work) as since, _worker(production, work) as (intake_id, process):
        until(lambda: any(asked.fault == "hang" for asked in _asked(production, work, since)))
        assert len(listening_ports(process)) == 1
        process.send_signal(asking)
        assert process.wait(PATIENCE_S) == 1
        _assert_nothing_is_left(production)
    assert _state(production, intake_id) == {
        "state": "cancelled", "failed_asset": asset, "class": "cancelled", "cause": STOPPED,
    }  # fmt: skip
    answered = work.calls - 2 if work.calls > 1 else 0
    calls = _calls(production, work, intake_id)
    assert [call["outcome"] for call in calls] == ["replied"] * answered + ["failed"]
    assert (calls[-1]["class"], calls[-1]["cause"]) == ("cancelled", STOPPED)
    _assert_completes(production, work, monkeypatch, new_calls=work.calls - answered)


def test_a_worker_that_is_killed_in_a_call_leaves_what_the_next_one_clears(
    production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = _work("refined_moments", "kill_0")
    with _hanging(production, work) as since, _worker(production, work) as (intake_id, process):
        until(lambda: any(asked.fault == "hang" for asked in _asked(production, work, since)))
        process.kill()
        process.wait()
        _assert_nothing_is_left(production, files=False)
    left = list((production.lakehouse.settings.state / "scratch").rglob("*.mp4"))
    assert left != []  # small copies of the clips
    assert _state(production, intake_id)["state"] == "running"  # nobody could say otherwise
    assert [call["outcome"] for call in _calls(production, work, intake_id)] == ["replied", "open"]
    _assert_completes(production, work, monkeypatch, new_calls=2)
    assert _state(production, intake_id) == {
        "state": "waiting", "failed_asset": work.asset, "class": "transient", "cause": DIED,
    }  # fmt: skip


@pytest.mark.parametrize(("number", "asset"), [(0, "transcript"), (1, "moments"), (2, "refined_moments")])
def test_a_crash_between_reply_and_commit_repeats_no_call(
    production: Production, monkeypatch: pytest.MonkeyPatch, number: int, asset: str
) -> None:
    work = _work(asset, f"crash_{number}")
    since = len(production.models.asked)
    waits = "select 1 from pg_locks where not granted and relation = cast(:table as regclass)"
    with production.lakehouse.database.engine.connect() as connection:
        connection.execute(text(f"lock table versions.{work.table} in exclusive mode"))  # no commit gets past it
        with _worker(production, work) as (intake_id, process):
            until(lambda: production.rows(waits, table=f"versions.{work.table}"))
            process.kill()
        connection.rollback()
    assert len(_asked(production, work, since)) == work.calls
    assert [call["outcome"] for call in _calls(production, work, intake_id)] == ["replied"] * work.calls
    until(lambda: production.rows(waits, table=f"versions.{work.table}") == [])
    _assert_completes(production, work, monkeypatch, new_calls=0)


# Where a worker that is stopped waits for something else than an answer


def test_a_worker_that_is_stopped_in_the_queue_of_a_model_leaves_it(production: Production) -> None:
    work = _work("moments", "queue")
    waits = "select 1 from model_calls where asset = 'moments' and outcome = 'open'"
    with Turns(production.lakehouse.database).turn("model:minimax", 1):
        with _worker(production, work) as (intake_id, process):
            until(lambda: production.rows(waits))
            process.terminate()
            assert process.wait(PATIENCE_S) == 1
        assert _state(production, intake_id)["state"] == "cancelled"
    assert production.rows(waits) == []
    _assert_nothing_is_left(production)


def test_a_worker_that_is_stopped_while_a_frozen_host_is_reached_again_ends_in_time(production: Production) -> None:
    with asyncssh_process(production.folder / "far") as sshd:
        near = entries(production.models.port, sshd.entry_fields())["minimax"]
        production.known_models(far={**near, "timeout_s": 1})
        work = Work("moments", b'"first_sentence"', 1, {"query": "far", "generation_model": "far"}, {})
        with _hanging(production, work) as since, _worker(production, work) as (intake_id, process):
            until(lambda: _asked(production, work, since))
            sshd.freeze()
            first = _ports_to(sshd.port, process)
            until(lambda: _ports_to(sshd.port, process) - first)
            process.terminate()
            code = process.wait(PATIENCE_S)
            sshd.thaw()
    assert code == 1
    assert _state(production, intake_id)["state"] == "cancelled"
    _assert_nothing_is_left(production)


def _ports_to(port: int, process: psutil.Process) -> set[int]:
    """The process's ends of its connections to a port."""
    found = process.net_connections("tcp")
    return {item.laddr.port for item in found if item.raddr and item.raddr.port == port}


def test_a_worker_that_is_stopped_before_its_first_step_leaves_nothing_open(production: Production) -> None:
    """Dagster ends the run between two steps, and no step says so."""
    work = _work("moments", "early")
    with _worker(production, work) as (intake_id, process):
        until(lambda: production.rows("select 1 from pipeline_history where intake_id = :id", id=intake_id))
        process.terminate()
        assert process.wait(PATIENCE_S) == 1
    state = _state(production, intake_id)
    assert (state["state"], state["class"], state["cause"]) == ("cancelled", "cancelled", STOPPED)
    _assert_nothing_is_left(production)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (DagsterExecutionInterruptedError(), CancelledError(STOPPED)),
        (KeyboardInterrupt(), CancelledError(STOPPED)),
        (SettingsError("There is no such bucket: create it."), SettingsError("There is no such bucket: create it.")),
        (NetworkError("It broke: try again."), NetworkError("It broke: try again.")),
    ],
)
def test_what_dagster_alone_has_kept_of_an_error_is_told_as_ours(raised: BaseException, told: MomentsError) -> None:
    """A signal may meet Dagster between two lines of its own, where none of our steps hears of it."""
    with pytest.raises(type(raised)) as caught:
        raise raised
    kept = serializable_error_info_from_exc_info((caught.type, caught.value, caught.tb))
    named = _as_ours(kept)
    assert (type(named), str(named)) == (type(told), str(told))
