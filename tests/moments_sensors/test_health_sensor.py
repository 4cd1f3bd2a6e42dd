"""The sensor `health` on a real instance of Dagster: what it reports, what it sends, and what it remembers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from moments.definitions import definitions
from moments.services import DAEMON_LOCK, Lakehouse, alert_webhook
from moments_assets.url_intake import HEALTHY, healthy, url_intake
from moments_core.alerting import REPORT_S, RETRY_S
from moments_core.health import HealthLimits
from moments_resources.health import PARTS, HealthProbe
from moments_resources.webhook import Webhook
from moments_sensors.health import Alerts, health_sensor, tick
from tests.stand_ins.http_exchange import Asked, Exchange, HttpStandIn, Reply

HIDDEN = "T0000-geheim"
ROOM = HealthLimits(disk_free_bytes=0)
WAIT_S = 300.0


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        for part in PARTS:
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), part, "one", []))
        yield instance


@pytest.fixture
def probe(lakehouse: Lakehouse, tmp_path: Path) -> HealthProbe:
    return HealthProbe(lakehouse.database, tmp_path, DAEMON_LOCK)


class Hook(HttpStandIn):
    """Takes alerts while it is `up`."""

    def __init__(self) -> None:
        self.up = True
        self.asked: list[Asked] = []
        super().__init__(self._answer_one, lambda _: Reply(200, b"ok"))

    def _answer_one(self, exchange: Exchange) -> None:
        self.asked.append(exchange.asked)
        exchange.send(exchange.proper() if self.up else Reply(500, f"no {exchange.asked.path}".encode()))

    @property
    def alerts(self) -> Alerts:
        return Alerts(Webhook(f"{self.url}/{HIDDEN}"), WAIT_S)

    @property
    def states(self) -> list[str]:
        return [asked.json["state"] for asked in self.asked]


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as hook:
        yield hook


class Ticks:
    """Ticks of the sensor, one after the other, each with the cursor of the one before."""

    def __init__(self, probe: HealthProbe, alerts: Alerts, instance: dg.DagsterInstance) -> None:
        self._parts = (probe, alerts, instance)
        self.cursor: str | None = None

    def at(self, now: float) -> dg.AssetCheckEvaluation | None:
        result = tick(*self._parts, self.cursor, now=now, limits=ROOM)
        self.cursor = result.cursor
        events = list(result.asset_events)
        assert len(events) <= 1
        assert (result.skip_reason is None) == bool(events)
        return events[0] if events else None  # type: ignore[return-value]


def test_the_check_is_reported_when_the_judgement_changes_and_every_quarter_of_an_hour(
    lakehouse: Lakehouse, probe: HealthProbe, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(probe, Alerts(None, WAIT_S), instance)
    first = ticks.at(0.0)
    assert first is not None
    assert (first.passed, "`moments daemon`" in str(first.metadata["problems"].value)) == (False, True)
    assert ticks.at(60.0) is None
    with lakehouse.database.try_lock(DAEMON_LOCK):
        second = ticks.at(120.0)
        assert second is not None
        assert (second.passed, second.metadata["waiting"].value) == (True, 0)
        assert [ticks.at(now) is not None for now in (180.0, 120.0 + REPORT_S)] == [False, True]


def test_a_bad_state_that_stays_is_told_once_and_again_when_it_is_over(
    lakehouse: Lakehouse, probe: HealthProbe, instance: dg.DagsterInstance, hook: Hook
) -> None:
    ticks = Ticks(probe, hook.alerts, instance)
    for minute in range(8):
        ticks.at(60.0 * minute)
    assert hook.states == ["unhealthy"]
    assert "No daemon is at work" in hook.asked[0].json["text"]
    with lakehouse.database.try_lock(DAEMON_LOCK):
        for minute in range(8, 12):
            ticks.at(60.0 * minute)
    assert hook.states == ["unhealthy", "healthy"]
    assert hook.asked[1].json["problems"] == []


def test_a_webhook_that_fails_is_told_in_the_check_and_tried_again_a_while_later(
    probe: HealthProbe, instance: dg.DagsterInstance, hook: Hook
) -> None:
    ticks = Ticks(probe, hook.alerts, instance)
    ticks.at(0.0)
    hook.up = False
    event = ticks.at(WAIT_S)
    assert event is not None
    note = str(event.metadata["alert"].value)
    assert "answered 500" in note
    assert HIDDEN not in f"{event} {ticks.cursor}"
    tried = len(hook.asked)
    assert ticks.at(WAIT_S + 60) is None
    assert len(hook.asked) == tried
    hook.up = True
    event = ticks.at(WAIT_S + RETRY_S)
    assert event is not None
    assert "answered 200" in str(event.metadata["alert"].value)


def test_dagster_keeps_what_the_sensor_reports(
    lakehouse: Lakehouse, probe: HealthProbe, instance: dg.DagsterInstance
) -> None:
    del lakehouse
    resources = {"health": probe, "alerts": Alerts(None, WAIT_S)}
    with dg.build_sensor_context(instance=instance, resources=resources, definitions=definitions()) as context:
        (event,) = health_sensor.evaluate_tick(context).asset_events
    instance.report_runless_asset_event(event)
    key = dg.AssetCheckKey(url_intake.key, HEALTHY)
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert record.event is not None


def test_the_check_can_be_run_by_hand(lakehouse: Lakehouse, probe: HealthProbe, instance: dg.DagsterInstance) -> None:
    for held in (False, True):
        with lakehouse.database.try_lock(DAEMON_LOCK if held else "another"):
            result = healthy(dg.build_asset_check_context(instance=instance, resources={"health": probe}))
        assert isinstance(result, dg.AssetCheckResult)
        assert ("No daemon" in str(result.metadata.get("problems"))) != held


def test_without_a_webhook_nobody_is_told(lakehouse: Lakehouse) -> None:
    assert alert_webhook(lakehouse.settings) is None
