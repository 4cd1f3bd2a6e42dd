"""Settings: each has a default, a wrong one is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from moments.services import alert_webhook, open_store
from moments.settings import DEFAULT_POOLS, PROJECT, Settings, load_settings, parse_pools
from moments_core.budget import Budget
from moments_core.errors import SettingsError
from moments_resources.store.file import FileStore


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env here
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MOMENTS_{name.upper()}", raising=False)


def test_without_a_setting_everything_is_embedded() -> None:
    settings = load_settings()
    assert settings.state == PROJECT / ".moments"
    assert settings.database_url is None
    assert (settings.asr_model, settings.generation_model, settings.refinement_model) == ("local", "local", "local")
    assert not settings.allow_private_hosts
    assert settings.pools == DEFAULT_POOLS


def test_a_dotenv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MOMENTS_ASR_MODEL=parakeet\nUNRELATED=1\n")
    assert load_settings().asr_model == "parakeet"


def test_the_environment_goes_before_the_dotenv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MOMENTS_ASR_MODEL=parakeet\n")
    monkeypatch.setenv("MOMENTS_ASR_MODEL", "whisper")
    assert load_settings().asr_model == "whisper"


def test_pools_that_are_named_replace_their_default_alone() -> None:
    assert parse_pools("asr=5, clips=1") == {**DEFAULT_POOLS, "asr": 5, "clips": 1}


@pytest.mark.parametrize("text", ["asr", "asr=0", "asr=-1", "gpu=1", "asr=two", "asr=1;clips=2"])
def test_a_wrong_pool_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMENTS_POOLS", text)
    with pytest.raises(SettingsError, match=r"MOMENTS_POOLS: .*is no limit"):
        load_settings()


def test_a_budget_is_read_and_none_is_set_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMENTS_VIDEO_BUDGET", "cost=2.5,tokens=200000")
    monkeypatch.setenv("MOMENTS_DAY_BUDGET", "")  # as compose hands on what is not set
    settings = load_settings()
    assert settings.video_budget == Budget(tokens=200_000, cost=2.5)
    assert settings.day_budget == Budget()


@pytest.mark.parametrize("name", ["MOMENTS_VIDEO_BUDGET", "MOMENTS_DAY_BUDGET"])
def test_a_wrong_budget_is_named_with_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "cost=5,calls=3")
    with pytest.raises(SettingsError, match=f"{name}: 'calls=3' is no limit such as"):
        load_settings()


def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMENTS_ALLOW_PRIVATE_HOSTS", "perhaps")
    with pytest.raises(SettingsError, match="MOMENTS_ALLOW_PRIVATE_HOSTS"):
        load_settings()


@pytest.mark.parametrize("count", ["0", "10001", "all"])
def test_a_list_has_a_limit(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().max_list == 100
    monkeypatch.setenv("MOMENTS_MAX_LIST", count)
    with pytest.raises(SettingsError, match="MOMENTS_MAX_LIST"):
        load_settings()


def test_the_store_lies_in_the_state_folder_whatever_its_name(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path / "100% é #1"))
    assert isinstance(store, FileStore)
    assert store.root == tmp_path / "100% é #1" / "store"


def test_a_file_url_may_hold_escapes() -> None:
    store = open_store(Settings(store_url="file:///srv/media%20store"))
    assert isinstance(store, FileStore)
    assert store.root == Path("/srv/media store")


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "/srv/store", "file://elsewhere/srv", ""])
def test_a_store_that_nobody_answers_to_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="MOMENTS_STORE_URL"):
        open_store(Settings(store_url=url))


def test_alerts_go_nowhere_unless_an_address_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert alert_webhook(load_settings()) is None
    monkeypatch.setenv("MOMENTS_ALERT_WEBHOOK", "")
    assert alert_webhook(load_settings()) is None


def test_the_address_of_the_webhook_is_shown_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMENTS_ALERT_WEBHOOK", "https://chat.example.org/hooks/geheim")
    settings = load_settings()
    webhook = alert_webhook(settings)
    assert webhook is not None
    assert webhook.place == "https://chat.example.org"
    assert "geheim" not in f"{settings!r} {settings} {settings.model_dump_json()} {webhook!r}"


@pytest.mark.parametrize(
    "url",
    [
        "chat.example.org/geheim",
        "ftp://chat.example.org/geheim",
        "https:///geheim",
        "http://h:geheim/",
        "http://[geheim",
    ],
)
def test_a_webhook_that_is_no_web_address_is_refused_without_showing_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOMENTS_ALERT_WEBHOOK", url)
    with pytest.raises(SettingsError, match="MOMENTS_ALERT_WEBHOOK: ") as refused:
        load_settings()
    assert "geheim" not in str(refused.value)
