"""The clock of a model's server, measured by a clip whose one event has a known time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import PermanentError, ReplyError, ServiceError, SettingsError
from moments_resources.database import Database
from moments_resources.media.runner import FfmpegRunner
from moments_resources.models.clock import clock_sentence, measured_clock_error_ms
from moments_resources.store.file import FileStore
from tests.stand_ins import faults
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

Sql = Callable[..., list[dict[str, Any]]]
Measure = Callable[..., int]


@pytest.fixture
def measure(database: Database, store: FileStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measure:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def made(server: ModelServer, **fields: Any) -> int:
        entry = server.entry(**{"supports_video": True, **fields})
        return measured_clock_error_ms(entry, database=database, store=store, ffmpeg=FfmpegRunner())

    return made


def seeing(*, off_ms: int = 0, factor: float = 1.0) -> Callable[[Asked], str]:
    """A model that says when the picture changed, by a clock of its own."""

    def answer(asked: Asked) -> str:
        (seen,) = asked.seen
        return json.dumps({"change_time": seen.change_ms * factor / 1000 + off_ms / 1000})

    return answer


@pytest.mark.parametrize(
    ("answer", "error_ms"),
    [
        (seeing(), 0),
        (seeing(off_ms=480), 480),
        (seeing(off_ms=-2000), -2000),
        (seeing(factor=2), 6500),  # a server that takes 4 pictures a second for 2
        (lambda _: '```json\n{"change_time": "0:06.5"}\n```', 0),
    ],
)
def test_the_error_is_what_the_model_says_less_what_the_clip_shows(
    measure: Measure, answer: Callable[[Asked], str], error_ms: int
) -> None:
    with ModelServer(answer=answer) as server:
        assert measure(server) == error_ms
    assert server.asked[0].seen[0].by == "inline"


def test_nothing_is_left_of_a_measurement_and_the_next_one_asks_again(
    measure: Measure, sql: Sql, store: FileStore, tmp_path: Path
) -> None:
    with ModelServer(answer=seeing()) as server:
        assert measure(server) == measure(server) == 0
    assert len(server.asked) == 2
    assert sql("select * from model_calls") == []
    assert sql("select * from prompts") == []
    assert list(store.keys()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "says", ['{"time": 6.5}', "At 6.5 seconds.", '{"change_time": "later"}', '{"change_time": 1} {"change_time": 2}']
)
def test_a_reply_without_one_time_is_refused(measure: Measure, says: str) -> None:
    with ModelServer(answer=lambda _: says) as server, pytest.raises(ReplyError):
        measure(server)


def test_a_server_that_fails_is_told_as_for_every_call(measure: Measure) -> None:
    with ModelServer() as server:
        server.fault_for = lambda _: faults.status(500)
        with pytest.raises(ServiceError, match="status 500"):
            measure(server)
        server.fault_for = lambda _: faults.status(400)
        with pytest.raises(PermanentError, match="refused the request"):
            measure(server)


def test_the_clip_goes_the_way_that_the_entry_says(measure: Measure) -> None:
    with ModelServer() as server, pytest.raises(SettingsError, match="video_by=inline"):
        measure(server, video_by="url")


@pytest.mark.parametrize(
    ("error_ms", "says"),
    [(0, "to 0.00 s"), (-500, "to 0.50 s"), (501, "0.50 s too late"), (-3250, "3.25 s too early")],
)
def test_an_error_is_told_with_what_it_means(error_ms: int, says: str) -> None:
    assert says in clock_sentence(error_ms)
