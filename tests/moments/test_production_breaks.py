"""The production path breaks in the middle of a run, and the run completes by itself."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.moments.production import Json, Production, entries, small_video
from tests.stand_ins.faults import Fault, hang, too_many
from tests.stand_ins.gcs_server import Fault as StoreFault
from tests.stand_ins.http_exchange import Exchange
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.ssh_process import SshProcess, asyncssh_process


@pytest.fixture
def production(small_production: Production) -> Iterator[Production]:
    yield small_production
    small_production.models.faults.clear()
    small_production.gcs.forget()


@pytest.fixture(scope="module")
def far(small_production: Production) -> Iterator[SshProcess]:
    """An SSH host in a process of its own, before the model `far`."""
    with asyncssh_process(small_production.folder / "far") as sshd:
        near = entries(small_production.models.port, sshd.entry_fields())["minimax"]
        small_production.known_models(far=near, hasty={**near, "timeout_s": 1})
        yield sshd


def _once_then_hang(breaks: Callable[[], Any]) -> Fault:
    """A call in whose middle something happens; it is never answered."""

    def broken(exchange: Exchange) -> None:
        breaks()
        hang(exchange)

    return broken


def _moments(production: Production, query: str, **options: str) -> tuple[Json, list[Json]]:
    """Find them anew: the attempt that made them, the only one, and the calls that it made."""
    result = production.make("moments", production.video, query=query, **options)
    (attempt,) = production.rows(
        "select outcome, attempt_id from pipeline_history where intake_id = :id", id=result["intake_id"]
    )
    assert attempt["outcome"] == "completed"
    return result, production.rows(
        "select outcome, status, class, cause, started_at, seconds from model_calls where attempt_id = :id"
        " order by call_id",
        id=attempt["attempt_id"],
    )


def _assert_repeated_once(calls: list[Json], cause: str) -> None:
    assert [(call["outcome"], call["class"]) for call in calls] == [("failed", "transient"), ("replied", None)]
    assert cause in calls[0]["cause"]


def test_connections_that_an_ssh_host_drops_are_made_again(production: Production) -> None:
    asked, connections = len(production.models.asked), production.ssh.connections_ever
    production.models.faults.append(_once_then_hang(production.ssh.drop_connections))
    _, calls = _moments(production, "dropped")
    _assert_repeated_once(calls, "The connection to the model minimax broke")
    assert len(production.models.asked) == asked + 2
    assert production.ssh.connections_ever == connections + 2
    assert (production.ssh.connections, production.ssh.channels) == (0, 0)


def test_an_ssh_server_that_is_killed_and_started_again_is_reached_again(
    production: Production, far: SshProcess
) -> None:
    def restart() -> None:
        far.kill()
        far.start()

    production.models.faults.append(_once_then_hang(restart))
    _, calls = _moments(production, "killed", generation_model="far")
    _assert_repeated_once(calls, "The connection to the model far broke")


def test_an_ssh_server_that_stands_still_for_longer_than_a_call_may_take_is_reached_again(
    production: Production, far: SshProcess
) -> None:
    thaw = threading.Timer(3, far.thaw)

    def freeze() -> None:
        far.freeze()
        thaw.start()

    production.models.faults.append(_once_then_hang(freeze))
    _, calls = _moments(production, "frozen", generation_model="hasty")
    thaw.join()
    _assert_repeated_once(calls, "The model hasty did not answer within 1 s")


def test_a_model_server_that_is_started_again_is_called_again(production: Production) -> None:
    with _restarting_server() as (server, asked):
        near = entries(server.port, production.ssh.entry_fields())["minimax"]
        production.known_models(restarted=near)
        _, calls = _moments(production, "restarted", generation_model="restarted")
        _assert_repeated_once(calls, "The connection to the model restarted broke")
        assert len(asked) == 1


@contextmanager
def _restarting_server() -> Iterator[tuple[ModelServer, list[Any]]]:
    """A server that ends in the middle of its first call; another one starts at its port. Yields the first, and what
    the second is asked."""
    servers = [ModelServer()]
    is_asked = threading.Event()

    def restart() -> None:
        is_asked.wait()
        servers[0].close()
        servers.append(ModelServer(port=servers[0].port))
        asked.append(servers[1].asked)

    asked: list[Any] = []
    servers[0].faults.append(_once_then_hang(is_asked.set))
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield servers[0], asked
    finally:
        is_asked.set()
        thread.join()
        for server in servers:
            server.close()


def test_a_model_that_names_a_time_is_called_then(production: Production) -> None:
    production.models.faults.append(too_many(after_s=2))
    _, calls = _moments(production, "busy")
    _assert_repeated_once(calls, "has too much to do (status 429): run this again in 2 s")
    assert calls[0]["status"] == 429
    assert (calls[1]["started_at"] - calls[0]["started_at"]).total_seconds() >= 2


# Google's library does not close the answer to a download that failed: its socket goes with the next collection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_bucket_that_is_away_for_a_moment_is_asked_again(production: Production) -> None:
    """While a new video goes up, and when another machine fetches it."""
    kinds = ("describe", "upload", "copy")
    production.gcs.faults.extend(StoreFault(kind, status=503, times=2) for kind in kinds)
    video = small_video(production.folder / "away.mp4", title="away")
    row = production.process(video)
    assert row["status"] == "completed", row["error"]
    shutil.rmtree(production.lakehouse.settings.state / "cache")
    production.gcs.faults.append(StoreFault("download", status=503, times=2))
    again = production.make("audio", video, force=True)
    assert production.gcs.faults == []
    tries = "select outcome from pipeline_history where intake_id in (:first, :second)"
    outcomes = {tried["outcome"] for tried in production.rows(tries, first=row["intake_id"], second=again["intake_id"])}
    assert outcomes == {"completed"}


def test_what_arrives_damaged_is_fetched_once_more(production: Production) -> None:
    """A damaged video would be a damaged clip for good."""
    shutil.rmtree(production.lakehouse.settings.state / "cache")
    production.gcs.faults.append(StoreFault("download", "corrupt"))
    before = production.gcs.downloaded.total()
    result = production.make("audio", production.video, force=True)
    (attempt,) = production.rows("select outcome from pipeline_history where intake_id = :id", id=result["intake_id"])
    assert attempt["outcome"] == "completed"
    (video,) = production.rows("select bytes from videos where video_id = :id", id=result["video_id"])
    assert production.gcs.downloaded.total() - before == 2 * video["bytes"]
