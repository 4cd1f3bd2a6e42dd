"""Whether a process of the daemon's hangs: a real code server that is frozen, and Dagster's own heartbeats."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat

from moments.liveness import Answering, Heartbeats
from moments.services import Lakehouse, prepare_dagster
from moments_resources.health import PARTS
from tests.moments.production import until


def test_a_frozen_code_server_is_silent_until_it_goes_on(code_server: psutil.Process, short_folder: Path) -> None:
    answering = Answering(short_folder / "code.sock")
    until(lambda: answering.silent_s() < 0.5)
    code_server.suspend()
    try:
        until(lambda: answering.silent_s() > 3)
    finally:
        code_server.resume()
    until(lambda: answering.silent_s() < 0.5)


def test_a_code_server_that_is_not_there_is_silent(short_folder: Path) -> None:
    answering = Answering(short_folder / "code.sock")
    until(lambda: answering.silent_s() > 3)


@pytest.fixture
def dagster(lakehouse: Lakehouse) -> None:
    """What `DagsterInstance.get` opens is the test's."""
    prepare_dagster(lakehouse.settings)


@pytest.mark.usefixtures("dagster")
def test_the_most_silent_part_of_the_daemon_decides() -> None:
    heartbeats = Heartbeats()
    _beat(*PARTS)
    assert heartbeats.silent_s() < 0.5
    time.sleep(2)
    _beat(*PARTS[1:])
    assert heartbeats.silent_s() > 2
    _beat(PARTS[0])
    # Nothing new from the others since.
    assert heartbeats.silent_s() < 2


@pytest.mark.usefixtures("dagster")
def test_a_part_that_was_never_heard_is_silent_from_the_first_look_on() -> None:
    heartbeats = Heartbeats()
    assert heartbeats.silent_s() < 0.5
    time.sleep(1)
    assert heartbeats.silent_s() > 1


@pytest.mark.usefixtures("dagster")
def test_a_clock_that_was_set_makes_nobody_silent() -> None:
    heartbeats = Heartbeats()
    _beat(*PARTS, at=time.time() - 7200)
    assert heartbeats.silent_s() < 0.5


def _beat(*parts: str, at: float | None = None) -> None:
    with DagsterInstance.get() as instance:
        for part in parts:
            beat = DaemonHeartbeat(timestamp=at or time.time(), daemon_type=part, daemon_id="test", errors=[])
            instance.add_daemon_heartbeat(beat)
