"""`moments health`, as cron and a person call it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat

from moments.services import DAEMON_LOCK, Lakehouse, prepare_dagster
from moments_resources.health import PARTS
from tests.stand_ins.http_exchange import Asked, HttpStandIn, Reply

Command = Callable[..., subprocess.CompletedProcess[str]]

HIDDEN = "T0000-geheim"


@pytest.fixture
def at_work(lakehouse: Lakehouse) -> None:
    """What a daemon leaves in Dagster's tables."""
    prepare_dagster(lakehouse.settings)
    with DagsterInstance.get() as instance:
        for part in PARTS:
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), part, "one", []))


def told(command: Command, status: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = command("health", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.usefixtures("at_work")
def test_a_sound_installation_is_exit_status_0(lakehouse: Lakehouse, moments_command: Command) -> None:
    with lakehouse.database.try_lock(DAEMON_LOCK):
        health = json.loads(told(moments_command, 0, "--json").stdout)
        shown = told(moments_command, 0).stdout
    assert (health["healthy"], health["problems"], health["daemon"]["is_at_work"]) == (True, [], True)
    assert set(health["pools"]) <= {"audio", "asr", "generation", "clips", "refinement", "download"}
    assert "All is well." in shown
    assert "sensor 0 s ago" in shown or "sensor " in shown


def test_no_daemon_is_exit_status_1_and_says_what_to_do(moments_command: Command) -> None:
    done = told(moments_command, 1)
    assert "NOT WELL: No daemon is at work: start it with `moments daemon`" in done.stdout


def test_a_database_that_is_away_is_told_and_nothing_is_started(
    moments_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOMENTS_DATABASE_URL", "postgresql://moments:geheim@127.0.0.1:9/moments")
    health = json.loads(told(moments_command, 1, "--json").stdout)
    assert [problem["kind"] for problem in health["problems"]] == ["database"]
    assert (health["queue"], health["daemon"]) == (None, None)
    assert "geheim" not in json.dumps(health)


def test_an_embedded_server_that_is_down_is_not_started(
    moments_command: Command, monkeypatch: pytest.MonkeyPatch, lakehouse: Lakehouse
) -> None:
    monkeypatch.delenv("MOMENTS_DATABASE_URL")
    assert "start it with `moments up`" in told(moments_command, 1).stdout
    assert not lakehouse.settings.state.exists()


def test_a_test_alert_says_what_came_back_and_not_where_it_went(
    moments_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []
    status = [200]

    def proper(request: Asked) -> Reply:
        asked.append(request)
        return Reply(status[0], b"ok")

    with HttpStandIn(lambda exchange: exchange.send(exchange.proper()), proper) as hook:
        monkeypatch.setenv("MOMENTS_ALERT_WEBHOOK", f"{hook.url}/{HIDDEN}")
        done = told(moments_command, 0, "--alert-test")
        assert done.stdout == f"The webhook at {hook.url} answered 200 (ok).\n"
        assert [request.json["state"] for request in asked] == ["test"]
        assert set(json.loads(told(moments_command, 0, "--alert-test", "--json").stdout)) == {"answer"}
        status[0] = 403
        refused = told(moments_command, 1, "--alert-test")
    assert "answered 403 (ok): check MOMENTS_ALERT_WEBHOOK." in refused.stderr
    assert HIDDEN not in done.stdout + done.stderr + refused.stdout + refused.stderr


def test_a_test_alert_without_a_webhook_is_wrong_usage(moments_command: Command) -> None:
    assert "set MOMENTS_ALERT_WEBHOOK" in told(moments_command, 2, "--alert-test").stderr
