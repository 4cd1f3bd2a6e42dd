"""Several calls of a step through one tunnel: what befalls one of them, and what becomes of the others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from moments_core.errors import MomentsError
from moments_resources.models.chat import ChatModel, ChatRequest
from moments_resources.step import Step
from tests.stand_ins import faults
from tests.stand_ins.chat_completions import text_of
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.ssh_server import SshServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

Asking = Callable[..., list[str]]


class CrashError(MomentsError):
    """Ends a step before its commit."""


@pytest.fixture
def asking(
    new_step: Callable[..., Step], chat_for: Callable[..., ChatModel], question: Callable[..., ChatRequest]
) -> Asking:
    """`asking(entry, 6)`: six questions at once; the words of the replies, in their order."""

    def ask(entry: Any, count: int) -> list[str]:
        said: list[str] = []
        with suppress(CrashError), new_step("moments") as step:
            replies = chat_for(entry, step).ask_all([question(f"number {number}") for number in range(count)])
            said += [json.loads(reply.text)["word"] for reply in replies]
            raise CrashError("before the commit")
        return said

    return ask


def echo(asked: Asked) -> str:
    return json.dumps({"word": text_of(asked.json)})


def test_a_call_that_takes_too_long_does_not_take_its_neighbours_along(asking: Asking, tmp_path: Path) -> None:
    with SshServer(tmp_path / "ssh") as ssh, ModelServer(answer=echo, service_s=1.5) as server:
        server.fault_for = lambda asked: (
            faults.hang if text_of(asked.json) == "number 0" and len(server.asked) <= 4 else None
        )
        entry = server.entry(ssh=ssh.entry_fields(), parallel=4, timeout_s=3)
        assert asking(entry, 4) == [f"number {number}" for number in range(4)]
        assert len(server.asked) == 5
        assert ssh.connections_ever == 1


def test_a_tunnel_that_breaks_under_six_calls_is_opened_again_and_all_six_are_answered(
    asking: Asking, tmp_path: Path
) -> None:
    with SshServer(tmp_path / "ssh") as ssh, ModelServer(answer=echo, service_s=0.5) as server:
        breaking = Thread(target=_break_when, args=(lambda: len(server.asked) == 6, ssh), name="stand-in breaker")
        breaking.start()
        entry = server.entry(ssh=ssh.entry_fields(), parallel=6)
        assert asking(entry, 6) == [f"number {number}" for number in range(6)]
        breaking.join()
        assert len(server.asked) == 12
        assert ssh.connections_ever == 2


def test_a_model_server_that_is_away_for_a_moment_between_two_calls_is_waited_for(
    asking: Asking, tmp_path: Path
) -> None:
    with SshServer(tmp_path / "ssh") as ssh, ModelServer(answer=echo) as first:
        port, restarted = first.port, []

        def restart() -> None:
            while not first.asked:
                time.sleep(0.01)
            first.close()
            restarted.append(ModelServer(answer=echo, port=port))

        restarting = Thread(target=restart, name="stand-in restarter")
        restarting.start()
        try:
            entry = first.entry(ssh=ssh.entry_fields())
            assert asking(entry, 3) == [f"number {number}" for number in range(3)]
        finally:
            restarting.join()
            restarted[0].close()


def _break_when(is_time: Callable[[], bool], ssh: SshServer) -> None:
    while not is_time():
        time.sleep(0.01)
    ssh.drop_connections()
