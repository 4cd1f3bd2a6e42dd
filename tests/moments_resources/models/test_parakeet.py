"""ParakeetSpeech against a server that decodes what it is sent: real FLAC over real sockets, real PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import MediaError, MomentsError, PermanentError, ReplyError, ServiceError
from moments_core.sentences import transcript_problems
from moments_core.time import Span
from moments_core.transcript import Transcript, TranscriptSource
from moments_resources.catalogue import Catalogue
from moments_resources.database import Database
from moments_resources.media.flac import encoded_flac
from moments_resources.media.runner import FfmpegRunner
from moments_resources.media.sound import extract_audio
from moments_resources.models.caller import ModelCaller
from moments_resources.models.calls import CallLedger
from moments_resources.models.link import ModelLink
from moments_resources.models.parakeet import ParakeetSpeech
from tests.stand_ins.faults import (
    Fault,
    half_json,
    hang,
    huge_body,
    json_of_another_kind,
    not_json,
    refused_quoting_the_key,
    status,
)
from tests.stand_ins.heard_sound import HeardSound, Recording, Spoken, record
from tests.stand_ins.http_exchange import Asked, Exchange, Reply
from tests.stand_ins.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("no_threads_left")

SAMPLE = Path(__file__).parents[3] / "samples" / "sample.mp4"
TRUTH = SAMPLE.with_name("sample.truth.json")


@dataclass(frozen=True)
class Sound:
    """What the asset `audio` gives, and what is said in it."""

    flac: Path
    duration_ms: int
    silences: tuple[Span, ...]
    words: list[Spoken]
    recording: Recording

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """The sample's own sound: 191 s, its words spread over its captions."""
    flac = tmp_path_factory.mktemp("sample") / "audio.flac"
    report = extract_audio(FfmpegRunner(), SAMPLE, flac)
    captions = json.loads(TRUTH.read_text())["captions"]
    words = [word for caption in captions for word in spread(caption)]
    return Sound(flac, report.duration_ms, report.silences, words, Recording(flac, words))


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """40 s of 100 words without any pause that could be cut in."""
    folder, duration_ms = tmp_path_factory.mktemp("hurried"), 40_000
    words = [Spoken(f"w{at}", at * 400, at * 400 + 360) for at in range(duration_ms // 400)]
    recording = record(folder / "talk.wav", words, duration_ms)
    flac = folder / "audio.flac"
    with wave.open(str(folder / "talk.wav")) as plain:
        flac.write_bytes(encoded_flac(plain.readframes(plain.getnframes())))
    return Sound(flac, duration_ms, (), words, recording)


def spread(caption: dict[str, Any]) -> Iterator[Spoken]:
    texts = caption["text"].split()
    start, each = caption["start_time"] * 1000, (caption["end_time"] - caption["start_time"]) * 1000 / len(texts)
    for at, text in enumerate(texts):
        yield Spoken(text, round(start + at * each), round(start + (at + 1) * each))


@dataclass
class Bench:
    """Transcribes against one server, again and again in one attempt that is never committed."""

    server: ModelServer
    ledger: CallLedger
    database: Database
    sound: Sound
    parallel: int = 1
    timeout_s: float = 30.0
    fields: dict[str, Any] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)

    def transcribe(self, *, longest_ms: int = 12_000, silences: tuple[Span, ...] | None = None) -> Transcript:
        entry = self.server.entry("parakeet", "asr", parallel=self.parallel, timeout_s=self.timeout_s, **self.fields)
        with ModelLink(entry) as link:
            model = ModelCaller(entry, link=link, database=self.database, ledger=self.ledger, pauses_s=(0.01,) * 4)
            result = ParakeetSpeech(model, longest_ms=longest_ms).transcribe(
                self.sound.flac,
                duration_ms=self.sound.duration_ms,
                silences=self.sound.silences if silences is None else silences,
                on_progress=self.done.append,
            )
        assert transcript_problems(result, self.sound.duration_ms) == []
        return result

    @property
    def heard(self) -> list[HeardSound]:
        return [sound for asked in self.server.asked for sound in asked.seen]


Benches = Callable[..., AbstractContextManager[Bench]]


@pytest.fixture
def bench(database: Database, catalogue: Catalogue, video_id: str) -> Benches:
    attempt = catalogue.history.open_attempt(video_id, "transcript", run_id="run-1")

    @contextmanager
    def open_bench(sound: Sound, *, parallel: int = 1, timeout_s: float = 30.0, **server: Any) -> Iterator[Bench]:
        with ModelServer(recording=sound.recording, **server) as stand_in:
            yield Bench(stand_in, CallLedger(database, attempt), database, sound, parallel, timeout_s)

    return open_bench


def texts(result: Transcript) -> list[str]:
    return [word.text for word in result.words]


def late_by_chance(seed: int) -> Callable[[Asked], Fault]:
    """Each reply comes after a time of its own, so that they arrive in another order."""
    chance = random.Random(seed)

    def fault_for(_: Asked) -> Fault:
        delay_s = chance.uniform(0, 0.2)

        def late(exchange: Exchange) -> None:
            reply = exchange.proper()
            if exchange.wait(delay_s):
                exchange.send(reply)

        return late

    return fault_for


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_samples_words_come_back_once_each_and_in_order(parallel: int, sample: Sound, bench: Benches) -> None:
    with bench(sample, parallel=parallel) as table:
        table.server.fault_for = late_by_chance(7)
        result = table.transcribe(longest_ms=16_000)
        assert len(table.server.asked) > 12
        assert table.server.most_at_once == parallel
    assert texts(result) == sample.texts
    found = zip(result.words, sample.words, strict=True)
    assert all(abs(word.start_ms - spoken.start_ms) <= 2 for word, spoken in found)
    assert (result.source, result.word_timing, result.language) == (TranscriptSource.SPEECH_MODEL, "measured", None)
    assert (result.model, result.full_text.split()) == ("parakeet parakeet chunks-1", sample.texts)
    assert result.sentences[0].text == "Everything in a community garden begins with the soil under our boots."
    assert table.done == sorted(table.done)
    assert table.done[-1] == sample.duration_ms


@pytest.mark.parametrize("parallel", [1, 3])
def test_speech_without_a_pause_is_cut_in_words_and_mended(parallel: int, hurried: Sound, bench: Benches) -> None:
    with bench(hurried, parallel=parallel) as table:
        table.server.fault_for = late_by_chance(8)
        result = table.transcribe(longest_ms=6_000)
        pieces = sorted((sound.place_ms or 0, sound.duration_ms) for sound in table.heard)
        assert len(pieces) > 8
        assert all(start + length > after for (start, length), (after, _) in pairwise(pieces))
        assert all(length <= 6_000 for _, length in pieces)
    assert texts(result) == hurried.texts


def test_the_server_is_sent_flac_as_the_field_file(sample: Sound, bench: Benches) -> None:
    with bench(sample) as table:
        table.transcribe(longest_ms=300_000)
        (sound,) = table.heard
    assert (sound.field, sound.name, sound.content_type) == ("file", "sound.flac", "audio/flac")
    assert sound.duration_ms == sample.duration_ms
    assert sound.bytes < 0.7 * sample.duration_ms * 32


def test_no_bytes_stay_on_the_disk_and_no_file_stays_open(
    hurried: Sound, bench: Benches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with bench(hurried) as table:
        named: list[Path] = []

        def look(_: Asked) -> None:
            named.extend((tmp_path / "temporary").iterdir())

        table.server.fault_for = look
        table.transcribe(longest_ms=30_000)
        table.server.faults.append(status(400))
        with pytest.raises(PermanentError):
            table.transcribe(longest_ms=12_000)
    assert len(table.server.asked) > 2
    assert named == []
    still_open = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert [name for name in still_open if str(tmp_path) in name] == []


def test_a_second_try_asks_for_nothing_that_was_answered(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        first = table.transcribe(longest_ms=12_000)
        calls = len(table.server.asked)
        assert calls >= 4
        second = table.transcribe(longest_ms=12_000)
        assert len(table.server.asked) == calls
    assert second == first


def test_a_try_that_failed_half_way_goes_on_with_what_is_left(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        table.server.fault_for = lambda _: status(400) if len(table.server.asked) == 3 else None
        with pytest.raises(PermanentError):
            table.transcribe(longest_ms=12_000)
        table.server.fault_for = lambda _: None
        result = table.transcribe(longest_ms=12_000)
        assert len(table.server.asked) == len({sound.place_ms for sound in table.heard}) + 1
    assert texts(result) == hurried.texts


def test_a_server_that_is_busy_once_is_asked_again(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        table.server.faults.append(status(503))
        assert texts(table.transcribe(longest_ms=30_000)) == hurried.texts
        assert [asked.status for asked in table.server.asked].count(503) == 1


def test_a_chunk_that_hangs_is_given_up_and_heard_again(hurried: Sound, bench: Benches) -> None:
    with bench(hurried, timeout_s=1.0) as table:
        table.server.faults.append(hang)
        assert texts(table.transcribe(longest_ms=30_000)) == hurried.texts


def test_who_is_interrupted_while_the_server_hangs_leaves_no_thread(
    hurried: Sound, bench: Benches, until: Callable[..., None]
) -> None:
    with bench(hurried, parallel=2) as table:
        table.server.faults.extend([hang, hang])

        def interrupt() -> None:
            until(lambda: len(table.server.asked) == 2)
            os.kill(os.getpid(), signal.SIGINT)

        ends = threading.Thread(target=interrupt)
        ends.start()
        with pytest.raises(KeyboardInterrupt):
            table.transcribe(longest_ms=12_000)
        ends.join()
        assert all(asked.status is None for asked in table.server.asked)


@pytest.mark.parametrize("fault", [half_json, not_json, json_of_another_kind])
def test_what_is_no_transcription_is_not_taken_again(
    fault: Fault, hurried: Sound, bench: Benches, sql: Callable[..., list[dict[str, Any]]]
) -> None:
    with bench(hurried) as table:
        table.server.faults.append(fault)
        with pytest.raises(ServiceError, match="run this again"):
            table.transcribe(longest_ms=30_000)
        calls = len(table.server.asked)
        assert texts(table.transcribe(longest_ms=30_000)) == hurried.texts
        assert len(table.server.asked) == calls + 1
    assert sql("select outcome from model_calls order by call_id")[0]["outcome"] == "refused"


def test_every_reply_that_cant_be_read_is_refused_at_once(
    hurried: Sound, bench: Benches, sql: Callable[..., list[dict[str, Any]]]
) -> None:
    endless = {"transcription": "a", "word_timestamps": [{"word": "a", "start": 1e308, "end": 1e308}]}
    with bench(hurried) as table:
        table.server.faults.extend([half_json, answering(endless), half_json])
        with pytest.raises(ServiceError, match="run this again"):
            table.transcribe(longest_ms=12_000)
        calls = len(table.server.asked)
        assert calls > 3
        assert [row["outcome"] for row in sql("select outcome from model_calls")].count("refused") == 3
        assert texts(table.transcribe(longest_ms=12_000)) == hurried.texts
        assert len(table.server.asked) == calls + 3


def answering(body: object) -> Fault:
    def play(exchange: Exchange) -> None:
        exchange.send(Reply(200, json.dumps(body).encode()))

    return play


def test_a_time_that_cant_be_is_refused_and_its_reply_kept(
    hurried: Sound, bench: Benches, sql: Callable[..., list[dict[str, Any]]]
) -> None:
    late = {"transcription": "late", "word_timestamps": [{"word": "late", "start": 900, "end": 901}]}
    with bench(hurried) as table:
        table.server.faults.append(answering(late))
        with pytest.raises(ReplyError, match="put a word at 900–901 s"):
            table.transcribe(longest_ms=300_000)
    (row,) = sql("select outcome, reply from model_calls")
    assert (row["outcome"], json.loads(row["reply"])) == ("refused", late)


def test_a_server_without_word_times_gives_words_that_are_spread(hurried: Sound, bench: Benches) -> None:
    said = {"transcription": "We dig.", "segment_timestamps": [{"text": "We dig.", "start": 1.0, "end": 2.0}]}
    with bench(hurried) as table:
        table.server.faults.append(answering(said))
        result = table.transcribe(longest_ms=300_000)
    assert [(word.text, word.start_ms) for word in result.words] == [("We", 1_000), ("dig.", 1_333)]
    assert result.word_timing == "interpolated"


def test_a_server_that_hears_nothing_gives_a_transcript_that_says_so(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        table.server.faults.append(answering({"transcription": "", "word_timestamps": [], "segment_timestamps": []}))
        result = table.transcribe(longest_ms=300_000)
    assert (result.source, result.has_speech, result.words) == (TranscriptSource.NONE, False, ())


def test_nothing_is_asked_about_silence(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        result = table.transcribe(silences=(Span(0, hurried.duration_ms),))
        assert (result.source, table.server.asked) == (TranscriptSource.NONE, [])


def test_a_sound_that_is_too_long_for_the_server_is_refused_with_what_to_do(hurried: Sound, bench: Benches) -> None:
    with bench(hurried, longest_sound_s=30.0) as table:
        with pytest.raises(PermanentError, match=r"takes no sound of 40 s or \d\.\d MB .* raise its limit") as caught:
            table.transcribe(longest_ms=300_000)
        assert caught.value.evidence["status"] == 413
        assert len(table.server.asked) == 1


def test_a_server_that_cant_read_the_sound_is_told_apart(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        table.server.faults.append(status(422, body=b'{"detail": "no field audio"}'))
        with pytest.raises(PermanentError, match="must take FLAC of 40 s as the multipart field `file`") as caught:
            table.transcribe(longest_ms=300_000)
        assert "no field audio" in str(caught.value.evidence["said"])


def test_a_flood_is_cut_off(hurried: Sound, bench: Benches) -> None:
    with bench(hurried) as table:
        table.server.faults.append(partial(huge_body, megabytes=64))
        with pytest.raises(MomentsError, match="larger than 32 MB"):
            table.transcribe(longest_ms=300_000)


def test_a_sound_that_cant_be_read_asks_nothing(hurried: Sound, bench: Benches, tmp_path: Path) -> None:
    (tmp_path / "audio.flac").write_bytes(b"no sound")
    broken = Sound(tmp_path / "audio.flac", 1_000, (), [], hurried.recording)
    with bench(broken) as table:
        with pytest.raises(MediaError, match="make the asset `audio` again"):
            table.transcribe()
        assert table.server.asked == []


def test_a_sound_too_short_for_a_word_asks_nothing(hurried: Sound, bench: Benches) -> None:
    with bench(replace(hurried, duration_ms=99)) as table:
        assert table.transcribe().source is TranscriptSource.NONE
        assert table.server.asked == []


def test_a_hosted_server_gets_its_key_and_no_error_repeats_it(
    hurried: Sound, bench: Benches, monkeypatch: pytest.MonkeyPatch, sql: Callable[..., list[dict[str, Any]]]
) -> None:
    monkeypatch.setenv("PARAKEET_KEY", "a-key-that-is-secret")
    with bench(hurried) as table:
        place = {"base_url": f"{table.server.url}/transcribe", "api_key_env": "PARAKEET_KEY"}
        table.fields = place
        assert texts(table.transcribe(longest_ms=300_000)) == hurried.texts
        assert table.server.asked[0].headers["authorization"] == "Bearer a-key-that-is-secret"
        table.server.faults.append(refused_quoting_the_key)
        with pytest.raises(PermanentError) as caught:
            table.transcribe(longest_ms=12_000)
    assert "a-key-that" not in repr((str(caught.value), caught.value.evidence, sql("select * from model_calls")))
