from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from moments_core.errors import CheckError, PermanentError, TransientError
from moments_resources.asset_tables import BY_ASSET
from moments_resources.catalogue import Catalogue, Recipe
from moments_resources.database import Database
from moments_resources.frames import check_lineage, first_row, frame_of, new_table, rows_of, version_read
from moments_resources.step import Step
from moments_resources.store.file import FileStore
from moments_resources.table_io import Made, Reused, TableIO

NewStep = Callable[..., Step]
RECIPE = Recipe("1", {"maker": "test"})


@pytest.fixture
def table_io(catalogue: Catalogue, store: FileStore) -> TableIO:
    return TableIO(catalogue, store)


@pytest.fixture
def write(table_io: TableIO, new_step: NewStep) -> Callable[..., None]:
    """Writes a table the way Dagster does."""

    def run(asset: str, rows: list[dict[str, Any]]) -> None:
        with new_step(asset, recipe=RECIPE) as step:
            handle(table_io, Made(new_table(asset, rows), step))

    return run


def handle(table_io: TableIO, result: Made | Reused) -> dict[str, object]:
    """Hands a result over the way Dagster does; what the UI is told about it."""
    with dg.build_output_context() as context:
        table_io.handle_output(context, result)
        return {name: value.value for name, value in context.get_logged_metadata().items()}


def test_loading_gives_back_the_table_that_was_written(
    table_io: TableIO, write: Callable[..., None], video_id: str, moment_rows: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = moment_rows(RECIPE)
    write("moments", rows)
    with dg.build_input_context(partition_key=video_id, asset_key=dg.AssetKey("moments")) as context:
        loaded = table_io.load_input(context).read()
    pd.testing.assert_frame_equal(loaded, new_table("moments", rows))
    assert loaded.to_dict("records") == rows
    assert version_read(loaded) == 1


def test_the_metadata_of_a_write_says_which_version_and_how_many_rows(table_io: TableIO, new_step: NewStep) -> None:
    with new_step() as step:
        told = handle(table_io, Made(new_table("scene_cuts", [{"time_ms": 1, "score": 1.0}]), step))
    assert (told["version"], told["dagster/row_count"], told["reused"]) == (1, 1, False)


def test_a_table_that_is_kept_shows_what_it_showed_when_it_was_made(table_io: TableIO, new_step: NewStep) -> None:
    with new_step() as step:
        step.measure(cuts=1)
        step.show(preview="**1** cut")
        made = step.commit([])
    told = handle(table_io, Reused(made))
    assert (told["cuts"], told["preview"]) == (1, "**1** cut")


def test_tables_that_do_not_fit_together_are_refused(
    table_io: TableIO, new_step: NewStep, commit: Any, video_id: str
) -> None:
    commit([], "raw_video")
    with new_step("scene_cuts") as step:
        step.inputs = {"raw_video": 1}
        step.commit([])
    tables = {asset: table_io.read(video_id, asset) for asset in ("raw_video", "scene_cuts")}
    check_lineage(tables)
    commit([], "raw_video")
    tables["raw_video"] = table_io.read(video_id, "raw_video")
    with pytest.raises(TransientError, match="materialize scene_cuts first"):
        check_lineage(tables)


def test_a_table_that_stands_is_not_written_again(table_io: TableIO, new_step: NewStep, commit: Any) -> None:
    standing = commit([])
    told = handle(table_io, Reused(standing))
    assert (told["version"], told["dagster/row_count"], told["reused"]) == (1, 0, True)
    with new_step() as step:
        assert step.current() == standing
        step.reuse()


def test_an_empty_table_keeps_its_columns(table_io: TableIO, write: Callable[..., None], video_id: str) -> None:
    write("scene_cuts", [])
    loaded = table_io.read(video_id, "scene_cuts")
    assert (len(loaded), list(loaded.columns)) == (0, ["time_ms", "score"])


def test_a_table_that_is_not_there_is_a_permanent_error_that_says_what_to_make(
    table_io: TableIO, video_id: str
) -> None:
    with pytest.raises(PermanentError, match="materialize scene_cuts first"):
        table_io.read(video_id, "scene_cuts")


def test_a_write_that_fails_ends_its_step_at_once(
    table_io: TableIO, new_step: NewStep, database: Database, video_id: str, sql: Any
) -> None:
    step = new_step()
    step.__enter__()  # Dagster does not go back into the asset's block after a failed write
    twice = new_table("scene_cuts", [{"time_ms": 1, "score": 1.0}] * 2)
    with pytest.raises(dg.Failure) as caught:
        handle(table_io, Made(twice, step))
    assert not caught.value.allow_retries
    with database.try_lock(f"step:{video_id}:scene_cuts") as is_free:
        assert is_free
    assert sql("select outcome from pipeline_history") == [{"outcome": "failed"}]


def test_a_write_that_is_fenced_off_ends_its_step_as_cancelled(
    table_io: TableIO, new_step: NewStep, catalogue: Catalogue, sql: Any
) -> None:
    step = new_step()
    step.__enter__()
    catalogue.history.close_failed(step.attempt, KeyboardInterrupt(), will_retry=False)
    with pytest.raises(Exception, match="not kept"):
        handle(table_io, Made(new_table("scene_cuts", []), step))
    assert sql("select outcome from pipeline_history") == [{"outcome": "cancelled"}]
    assert sql("select * from artifacts") == []


def test_values_of_numpy_and_pandas_become_pythons_own() -> None:
    frame = pd.DataFrame({"time_ms": np.array([1, 2], dtype=np.int64), "score": np.array([0.5, 1], dtype=np.float32)})
    rows = rows_of(frame, BY_ASSET["scene_cuts"])
    assert rows == [{"time_ms": 1, "score": 0.5}, {"time_ms": 2, "score": 1.0}]
    assert {type(value) for row in rows for value in row.values()} == {int, float}


@pytest.mark.parametrize("missing", [None, np.nan, float("nan"), pd.NA, pd.NaT])
def test_every_kind_of_nothing_is_null(missing: object) -> None:
    assert _sound(loudness_lufs=missing)["loudness_lufs"] is None


def test_what_stands_in_json_becomes_plain_too() -> None:
    row = _sound(silences=[(np.int64(1), 2)], rms_db=np.array([-20.5, np.nan, -np.inf]))
    assert (row["silences"], row["rms_db"]) == ([[1, 2]], [-20.5, None, None])


def test_text_that_postgresql_can_not_hold_is_made_fit() -> None:
    assert _sound(state="a\0b\udcff")["state"] == "a\ufffdb?"
    assert _sound(silences=[{"na\0me": "a\0b"}])["silences"] == [{"na\ufffdme": "a\ufffdb"}]


def test_whole_numbers_beside_nothing_stay_whole() -> None:
    rows = [{"state": "sound", "bytes": value} for value in (5, None)]
    assert frame_of(rows, BY_ASSET["audio"])["bytes"].tolist() == [5, None]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (["time_ms"], "missing: score"),
        (["time_ms", "score", "colour"], "unknown: colour"),
        (["time_ms", "score", "video_id"], "unknown: video_id"),
    ],
)
def test_a_table_with_other_columns_than_declared_is_refused(columns: list[str], named: str) -> None:
    with pytest.raises(CheckError, match=named):
        rows_of(pd.DataFrame([dict.fromkeys(columns, 1)]), BY_ASSET["scene_cuts"])


def test_a_column_that_needs_a_value_is_named_where_it_has_none() -> None:
    with pytest.raises(CheckError, match="empty: rms_db, silences"):
        _sound(silences=None, rms_db=float("nan"))


def test_a_misspelt_column_is_refused_and_not_dropped() -> None:
    with pytest.raises(CheckError, match="unknown: scroe"):
        new_table("scene_cuts", [{"time_ms": 1, "scroe": 1.0}])


def test_what_a_row_leaves_out_is_empty() -> None:
    frame = new_table("moments", [{"title": "x"}])
    assert rows_of(frame.fillna("y"), BY_ASSET["moments"])[0]["query"] == "y"
    assert first_row(frame)["title"] == "x"


def test_times_and_json_come_back_as_they_went(
    table_io: TableIO, write: Callable[..., None], video_id: str, sql: Any
) -> None:
    transcript = {
        "has_speech": np.True_,
        "language": None,
        "source": "speech_model",
        "model": "m",
        "word_timing": "none",
        "full_text": "A.",
        "word_timestamps": [],
        "segment_timestamps": [{"start_ms": 0, "end_ms": 9, "text": "A.", "speaker": None, "turn_start": False}],
    }
    write("transcript", [transcript])
    assert first_row(table_io.read(video_id, "transcript")) == {**transcript, "has_speech": True}


def test_a_point_in_time_comes_back_as_it_went(commit: Any, catalogue: Catalogue) -> None:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    empty = {"text": "", "integer": 0, "bigint": 0, "float": 0.0, "boolean": False}
    row = {column.name: empty.get(column.kind) for column in BY_ASSET["raw_video"].columns if not column.nullable}
    made = commit([{**row, "streams": [], "published_at": at}], "raw_video")
    frame = frame_of(catalogue.rows(made), BY_ASSET["raw_video"])
    assert rows_of(frame, BY_ASSET["raw_video"])[0]["published_at"] == at


def _sound(**changed: object) -> dict[str, Any]:
    row = {"state": "sound", "duration_ms": 1, "silences": [], "rms_db": [], **changed}
    columns = BY_ASSET["audio"].column_names
    frame = pd.DataFrame([[row.get(name) for name in columns]], columns=columns, dtype=object)
    return rows_of(frame, BY_ASSET["audio"])[0]
