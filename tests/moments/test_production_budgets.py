"""Budgets on the production path: a call that might pass one never reaches its server, and nothing is paid twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.moments.production import Json, Production, entries
from tests.stand_ins.http_exchange import Asked

MOST = 32_768  # tokens of a call that shows a clip: all that the context takes


@pytest.fixture(scope="module")
def production(small_production: Production) -> Production:
    vision = entries(small_production.models.port, small_production.ssh.entry_fields())["qwen3_vl"]
    small_production.known_models(**{f"qwen3_{which}": vision for which in ("video", "day")})
    return small_production


def _spent(production: Production) -> int:
    (row,) = production.rows("select sum(tokens_in + tokens_out) as tokens from model_calls")
    return int(row["tokens"])


def _watched(production: Production, since: int) -> list[Asked]:
    return [asked for asked in production.models.asked[since:] if b"video_url" in asked.body[:20_000]]


def _attempts(production: Production, result: Json) -> list[Json]:
    return production.rows(
        "select outcome, class, cause, evidence from pipeline_history where intake_id = :id", id=result["intake_id"]
    )


def test_a_video_over_its_budget_ends_before_the_call_and_goes_on_where_it_was(
    production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"refinement_model": "qwen3_video"}
    since = len(production.models.asked)
    monkeypatch.setenv("MOMENTS_VIDEO_BUDGET", f"tokens={_spent(production) + MOST}")  # one call, and no second one
    result = production.make("refined_moments", production.video, **options)
    (attempt,) = _attempts(production, result)  # no retry
    assert (attempt["outcome"], attempt["class"]) == ("failed", "budget")
    assert attempt["cause"].startswith("MOMENTS_VIDEO_BUDGET allows a video tokens=")
    assert "not_before" not in attempt["evidence"]
    assert (result["status"], result["error"]["class"]) == ("failed", "budget")
    assert len(_watched(production, since)) == 1

    monkeypatch.setenv("MOMENTS_VIDEO_BUDGET", f"tokens={_spent(production) + 3 * MOST}")
    (attempt,) = _attempts(production, production.make("refined_moments", production.video, **options))
    assert attempt["outcome"] == "completed"
    assert len(_watched(production, since)) == 3  # the first reply was there


def test_a_day_over_its_budget_says_when_it_goes_on(production: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    since = len(production.models.asked)
    monkeypatch.setenv("MOMENTS_DAY_BUDGET", f"tokens={max(MOST, _spent(production) + MOST - 1)}")
    result = production.make("refined_moments", production.video, refinement_model="qwen3_day")
    (attempt,) = _attempts(production, result)
    assert (attempt["outcome"], attempt["class"]) == ("failed", "budget")
    assert datetime.fromisoformat(attempt["evidence"]["not_before"]) > datetime.now(UTC)
    assert production.models.asked[since:] == []


def test_the_days_add_up_to_the_calls(production: Production) -> None:
    days = production.rows("select day, seconds, tokens, cost from spending order by day")
    calls = production.rows(
        "select (started_at at time zone 'UTC')::date as day, sum(seconds) as seconds, sum(cost) as cost,"
        " sum(coalesce(tokens_in, 0) + coalesce(tokens_out, 0)) as tokens from model_calls group by 1 order by 1"
    )
    assert [{name: pytest.approx(day[name]) if name != "day" else day[name] for name in day} for day in days] == calls
    assert production.rows("select 1 from model_calls where reserved_seconds > 0 or reserved_tokens > 0") == []
