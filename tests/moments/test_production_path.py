"""The sample through the production path: objects in a bucket, every model behind an SSH tunnel, over real sockets.

What it must leave: the rows, the objects and the calls that it says, and no tunnel, port, thread or file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from moments_resources.asset_tables import BY_ASSET
from tests.moments.production import MODELS, Json, Production, production_path, threads_and_ports
from tests.stand_ins.chat_completions import fill, text_of
from tests.stand_ins.heard_sound import Recording, Spoken
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer

SAMPLES = Path(__file__).parents[2] / "samples"
SAMPLE = SAMPLES / "sample.mp4"
TRUTH = json.loads((SAMPLES / "sample.truth.json").read_text())
SHIFT_MS = 250  # by which the vision model moves both ends of a moment


@pytest.fixture(scope="module")
def production(
    copied_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    recording = Recording(SAMPLE, _words())
    with (
        copied_database() as url,
        ModelServer(answer=_answer, recording=recording) as models,
        production_path(tmp_path_factory.mktemp("production"), url, models) as production,
    ):
        yield production


def _words() -> list[Spoken]:
    """The captions of the sample, with the time of each spread evenly over its words."""
    words = []
    for cue in TRUTH["captions"]:
        texts, start_ms = cue["text"].split(), cue["start_time"] * 1000
        each = (cue["end_time"] * 1000 - start_ms) / len(texts)
        words += [
            Spoken(word, round(start_ms + at * each), round(start_ms + (at + 0.9) * each))
            for at, word in enumerate(texts)
        ]
    return words


def _answer(asked: Asked) -> str:
    """The vision model moves both ends by a known time; the chat model fills its schema."""
    if not asked.seen:
        return json.dumps(fill(asked.json["response_format"]["json_schema"]["schema"]))
    now = re.search(r"starts at (\d+[.]\d+) and ends at (\d+[.]\d+)", text_of(asked.json))
    assert now is not None
    return json.dumps({name: float(now[at]) + SHIFT_MS / 1000 for at, name in ((1, "start_time"), (2, "end_time"))})


@pytest.fixture(scope="module")
def result(production: Production) -> Json:
    before = threads_and_ports()
    result = production.process(SAMPLE)
    assert threads_and_ports() == before
    return result


def test_every_asset_is_made(result: Json) -> None:
    assert result["error"] is None
    assert (result["status"], list(result["assets"])) == ("completed", list(BY_ASSET))


def test_what_was_said_is_what_the_speech_model_heard(production: Production, result: Json) -> None:
    (row,) = production.rows("select source, model, word_timing, full_text, language from transcripts")
    assert (row["source"], row["word_timing"]) == ("speech_model", "measured")
    assert "parakeet" in row["model"]
    assert row["full_text"].split() == [word.text for word in _words()]


def test_moments_lead_to_the_prompt_the_model_and_the_parameters(production: Production, result: Json) -> None:
    rows = production.rows(
        """
        select m.found_by, g.config, p.text, c.outcome, c.tokens_in, c.cost from moments m
        join generation_configs g on g.sha256 = m.generation_config
        join prompts p on p.sha256 = g.config->'parameters'->'finder'->>'prompt_sha256'
        join model_calls c on c.video_id = m.video_id and c.asset = 'moments' and c.prompt_sha256 = p.sha256"""
    )
    assert len(rows) == len(result["moments"]) > 0
    assert all(row["found_by"].startswith("minimax") and row["cost"] > 0 for row in rows)
    assert rows[0]["config"]["parameters"]["finder"]["max_tokens"] == 2000


def test_refined_moments_are_moved_by_what_the_model_saw_in_the_clip(production: Production, result: Json) -> None:
    rows = production.rows(
        "select r.start_ms - m.start_ms as start, r.end_ms - m.end_ms as end, r.refined_by, r.note"
        " from refined_moments r join moments m using (video_id, moment_id)"
    )
    assert len(rows) == len(result["moments"])
    for row in rows:
        assert row["refined_by"].startswith("qwen3_vl")
        assert row["start"] == pytest.approx(SHIFT_MS, abs=10), row["note"]  # the prompt gives hundredths of a second
        assert row["end"] == pytest.approx(SHIFT_MS, abs=10), row["note"]


def test_the_vision_model_watched_every_clip_by_a_signed_address(production: Production, result: Json) -> None:
    watched = [seen for asked in production.models.asked for seen in asked.seen if hasattr(seen, "picture_ms")]
    assert len(watched) == len(result["moments"])
    clips = sorted(row["duration_ms"] for row in production.rows("select duration_ms from clips"))
    for seen, duration_ms in zip(sorted(watched, key=lambda seen: seen.duration_ms), clips, strict=True):
        assert seen.by == "url"
        assert seen.url.startswith(production.gcs.url)
        assert seen.duration_ms == pytest.approx(duration_ms, abs=300)  # a frame of the small copy
        assert seen.picture_ms[0] == 0
        assert not seen.has_sound


def test_every_call_is_a_row_and_none_is_left_open(production: Production, result: Json) -> None:
    rows = production.rows("select model, outcome, count(*) as n from model_calls group by 1, 2")
    assert {(row["model"], row["outcome"]) for row in rows} == {(model, "replied") for model in MODELS}
    assert sum(row["n"] for row in rows) == len(production.models.asked)


def test_what_the_calls_took_stands_in_the_measures_of_the_result(production: Production, result: Json) -> None:
    rows = production.rows("select asset, measures from artifacts where measures ? 'model_calls' order by asset")
    taken = {row["asset"]: row["measures"] for row in rows}
    assert list(taken) == ["moments", "refined_moments", "transcript"]
    assert taken["refined_moments"]["model_calls"] == len(result["moments"])
    assert taken["moments"]["tokens_in"] > 0 < taken["moments"]["model_cost"]


def test_the_bucket_holds_what_the_catalogue_names_and_nothing_else(production: Production, result: Json) -> None:
    named = production.rows(
        "select o->>'key' as key, (o->>'bytes')::bigint as bytes from artifacts, jsonb_array_elements(objects) o"
    )
    uploads = production.rows("select substr(url, 8) as key from url_intake where url like 'upload:%'")
    stored = {name.removeprefix("lakehouse/"): item for name, item in production.gcs.objects("media").items()}
    assert set(stored) == {row["key"] for row in [*named, *uploads]}
    assert all(int(stored[row["key"]]["size"]) == row["bytes"] for row in named)
    assert all(moment["clip"]["uri"].startswith("gs://media/lakehouse/videos/") for moment in result["moments"])


def test_one_tunnel_a_model_and_step_and_none_is_left(production: Production, result: Json) -> None:
    assert production.ssh.connections_ever == len(MODELS)
    assert (production.ssh.connections, production.ssh.channels) == (0, 0)


def test_no_temporary_file_is_left(production: Production, result: Json) -> None:
    home = production.lakehouse.settings.state
    scratch = [path for path in (home / "scratch").rglob("*") if path.is_file()]
    in_cache = [path.name for path in (home / "cache").rglob("*") if path.is_file()]
    assert scratch == []
    assert [name for name in in_cache if name.endswith((".part", ".tmp"))] == []


def test_no_signature_and_no_key_is_kept_anywhere(production: Production, result: Json) -> None:
    """Neither in our tables nor in Dagster's, which hold all logs and metadata."""
    tables = production.rows(
        "select format('%I.%I', table_schema, table_name) as name from information_schema.tables"
        " where table_type = 'BASE TABLE' and table_schema in ('public', 'versions', 'dagster')"
    )
    for table in tables:
        hits = production.rows(
            f"select t::text as row from {table['name']} t"  # noqa: S608 - names from the catalogue
            " where t::text ~* 'X-Goog-Signature|X-Goog-Credential|PRIVATE KEY|ya29[.]'"
        )
        assert hits == []


def test_the_same_again_calls_no_model_and_moves_no_media(production: Production, result: Json) -> None:
    calls, moved = len(production.models.asked), production.gcs.uploaded.total() + production.gcs.downloaded.total()
    again = production.process(SAMPLE)
    assert again["status"] == "completed"
    assert all(asset["reused"] for asset in again["assets"].values())
    assert len(production.models.asked) == calls
    assert production.gcs.uploaded.total() + production.gcs.downloaded.total() == moved


def test_a_model_is_pointed_elsewhere_and_chosen_for_a_run_without_a_restart(
    production: Production, result: Json
) -> None:
    """A text-only model refines from the transcript: no clip is sent, and no copy of one is made."""
    production.lakehouse.models().edit("minimax", {"defaults.temperature": "0.1"})
    before = len(production.models.asked)
    again = production.process(SAMPLE, refinement_model="minimax")
    assert again["status"] == "completed"
    assert again["assets"]["moments"]["version"] == 2  # another temperature is another way to find them
    new = production.models.asked[before:]
    assert [asked.seen for asked in new] == [[]] * len(new)
    assert all(asked.json["temperature"] == 0.1 for asked in new)
    assert {row["refined_by"].split()[0] for row in production.rows("select refined_by from refined_moments")} == {
        "minimax"
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"generation_model": "parakeet"}, "is of kind asr and can't find moments"),
        ({"generation_model": "minimx"}, "did you mean minimax?"),
    ],
)
def test_a_model_that_cannot_do_it_is_named_with_the_asset_and_what_to_do(
    production: Production, result: Json, options: Json, words: str
) -> None:
    failed = production.process(SAMPLE, **options)
    assert (failed["status"], failed["failed_asset"], failed["error"]["class"]) == ("failed", "moments", "permanent")
    assert words in failed["error"]["reason"]


def test_delete_removes_every_object_row_and_call(production: Production, result: Json) -> None:
    from moments.takedown import take_down

    # What a step that was killed leaves: a small copy of a clip, which no row names.
    production.lakehouse.store.copy_in(SAMPLE, f"videos/{result['video_id']}/refined_moments/abc/proxy.mp4")
    stored = len(production.gcs.objects("media"))
    assert take_down(production.lakehouse, result["video_id"])["objects"] == stored
    assert production.gcs.objects("media") == {}
    assert production.rows("select 1 from model_calls") == []
    assert list((production.lakehouse.settings.state / "cache").rglob("*.mp4")) == []
