"""A vision model that watches small copies of clips: what it is shown, how it gets there, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from moments_core.clip_plan import ClipPlan, plan_clip
from moments_core.content import ShownMoment, VideoContent
from moments_core.errors import MediaError, MomentsError, PermanentError, ReplyError, SettingsError
from moments_core.moment import Moment, Refined
from moments_core.numbered import estimated_tokens
from moments_core.prompts import REFINE_FROM_VIDEO, Prompt
from moments_core.time import Span
from moments_core.transcript import Word
from moments_resources.media.container import ffmpeg_exe
from moments_resources.media.cutter import cut_clip
from moments_resources.media.probe import probe_video
from moments_resources.media.proxy import PROXY_RECIPE
from moments_resources.media.runner import FfmpegRunner, Finished
from moments_resources.models.chat import ChatModel, ChatRequest
from moments_resources.models.video_refiner import MOST_ENCODINGS, VideoRefiner
from moments_resources.step import Step
from moments_resources.store.cache import LocalCache
from moments_resources.store.file import FileStore
from moments_resources.store.gcs import GcsPlace, GcsStore
from moments_resources.store.interface import ObjectStore
from tests.stand_ins import faults
from tests.stand_ins.chat_completions import text_of
from tests.stand_ins.gcs_server import Fault, GcsServer
from tests.stand_ins.http_exchange import Asked
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.watched_video import WatchedVideo

RefinerFor = Callable[..., Any]
Sql = Callable[..., list[dict[str, Any]]]

CONTENT = VideoContent(
    duration_ms=12_000, words=[Word(start_ms=at, end_ms=at + 300, text=f"w{at}") for at in range(0, 12_000, 500)]
)
EARLY, LATE = Span(3000, 6000), Span(7000, 10_000)  # the colour of the video changes at 4.0 and at 8.0 s


FFMPEG = FfmpegRunner()


class CrashError(MomentsError):
    """Ends a step before its commit."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 s, 25/s, larger than a proxy: red up to 4 s, green up to 8 s, blue up to 12 s; with sound."""
    inputs = [("-f", "lavfi", "-i", f"color={colour}:s=640x360:r=25:d=4") for colour in ("red", "lime", "blue")]
    target = tmp_path_factory.mktemp("media") / "colours.mp4"
    command = [ffmpeg_exe(), "-v", "error", *(part for each in inputs for part in each)]
    command += ["-f", "lavfi", "-i", "sine=d=12", "-filter_complex", "concat=n=3", "-c:v", "libx264"]
    subprocess.run([*command, "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def clip(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Span], ShownMoment]:
    """A moment of the video, and its clip as it is cut."""
    folder, probe = tmp_path_factory.mktemp("clips"), probe_video(colours)

    def cut(span: Span) -> ShownMoment:
        plan = plan_clip(span, video=Span(0, 12_000))
        path = folder / f"{span.start_ms}-{span.end_ms}.mp4"
        if not path.exists():
            cut_clip(FfmpegRunner(), colours, plan.clip, path, probe)
        return ShownMoment(Moment(span, f"At {span}", 0.5), plan, path, hashlib.sha256(path.read_bytes()).hexdigest())

    return cut


Clip = Callable[[Span], ShownMoment]


@pytest.fixture
def refiner_for(new_step: Callable[..., Step], chat_for: Callable[..., ChatModel], store: FileStore) -> RefinerFor:
    """`with refiner_for(server, store=…, **fields) as refiner`: for a step that never commits."""

    @contextmanager
    def make(
        server: ModelServer, store: ObjectStore = store, ffmpeg: FfmpegRunner = FFMPEG, **fields: Any
    ) -> Iterator[VideoRefiner]:
        entry = server.entry(**{"supports_video": True, **fields})
        with suppress(CrashError), new_step("refined_moments") as step:
            yield VideoRefiner(chat_for(entry, step), ffmpeg=ffmpeg, store=store, step=step)
            raise CrashError("a crash")

    return make


def refine(
    refiner_for: RefinerFor, server: ModelServer, shown: Sequence[ShownMoment], **more: Any
) -> tuple[list[Refined], list[dict[str, Any]]]:
    """What came of it, and what the step measured."""
    refined: list[Refined] = []
    measures: list[dict[str, Any]] = []
    with refiner_for(server, **more) as refiner:
        refined.extend(refiner.refine_all(shown, CONTENT))
        measures.append(refiner._step.measures)
    return refined, measures


def from_the_change(asked: Asked) -> str:
    """A model that sees: the moment starts where the picture changes."""
    (seen,) = asked.seen
    assert isinstance(seen, WatchedVideo)
    return json.dumps({"start_time": (seen.change_ms or 0) / 1000, "end_time": seen.duration_ms / 1000 - 2})


# What it is shown


@pytest.mark.usefixtures("no_threads_left")
def test_a_model_that_sees_the_change_of_the_picture_moves_the_moment_there(
    refiner_for: RefinerFor, clip: Clip
) -> None:
    """The clip of the first moment begins at 1.0 s: the change at 4.0 s is 3.0 s into it."""
    with ModelServer(answer=from_the_change) as server:
        refined, _ = refine(refiner_for, server, [clip(EARLY), clip(LATE)], parallel=2)
    assert [one.span for one in refined] == [Span(4000, 6000), Span(8000, 10_000)]
    assert [one.note for one in refined] == ["start +1.00 s by stand-in"] * 2


def test_the_model_gets_a_small_silent_copy_and_the_words_in_clip_time(
    refiner_for: RefinerFor, clip: Clip, tmp_path: Path
) -> None:
    with ModelServer() as server:
        _, (measures,) = refine(refiner_for, server, [clip(EARLY)])
    (asked,) = server.asked
    (seen,) = asked.seen
    assert (seen.by, seen.width, seen.height, seen.has_sound, seen.duration_ms) == ("inline", 480, 270, False, 7000)
    assert seen.picture_ms == tuple(range(0, 7000, 250))
    assert seen.bytes == measures["proxy_bytes"] < Path(clip(EARLY).clip).stat().st_size
    assert "The clip is 7.00 seconds long and begins at 0." in text_of(asked.json)
    assert "\n3.00–3.30 w4000\n" in text_of(asked.json)
    assert asked.json["response_format"]["json_schema"]["schema"]["properties"]["end_time"]["maximum"] == 7.0


def test_what_is_said_leaves_half_of_the_context_to_the_pictures(refiner_for: RefinerFor, clip: Clip) -> None:
    said = [Word(start_ms=at, end_ms=at + 40, text=f"w{at}") for at in range(0, 12_000, 50)]
    with ModelServer() as server, refiner_for(server, context_tokens=2000) as refiner:
        refiner.refine_all([clip(EARLY)], VideoContent(duration_ms=12_000, words=said))
    assert estimated_tokens(text_of(server.asked[0].json)) < 1300
    assert "are left out" in text_of(server.asked[0].json)


def test_moments_go_side_by_side_within_the_models_limit(refiner_for: RefinerFor, clip: Clip) -> None:
    spans = [Span(at, at + 2000) for at in (2000, 4000, 6000, 8000)]
    shares: list[float] = []
    two = threading.Barrier(2, timeout=30)

    def in_pairs(_: Asked) -> str:
        two.wait()
        return '{"start_time": 1.5, "end_time": 3}'

    with ModelServer(answer=in_pairs) as server, refiner_for(server, parallel=2) as refiner:
        refined = refiner.refine_all([clip(span) for span in spans], CONTENT, on_progress=shares.append)
    assert len(refined) == len(server.asked) == 4
    assert server.most_at_once == 2
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


# How it gets there


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket("media")
        yield server


@pytest.fixture
def bucket(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GcsStore:
    gcs_server.forget()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(gcs_server.key_file(tmp_path)))
    return GcsStore(GcsPlace("media", "here/"), LocalCache(tmp_path / "cache", 10**9))


def test_a_bucket_s_clip_is_opened_by_its_signed_address_and_gone_when_the_step_ends(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore
) -> None:
    held: list[list[str]] = []

    def look(asked: Asked) -> str:
        held.append(list(bucket.keys("videos/")))
        return from_the_change(asked)

    with ModelServer(answer=look) as server:
        refined, _ = refine(refiner_for, server, [clip(EARLY)], store=bucket)
    (seen,) = server.asked[0].seen
    assert refined[0].span == Span(4000, 6000)
    assert seen.by == "url"
    ((key,),) = held
    assert key.startswith(f"videos/web-0123456789abcdef/refined_moments/{seen.sha256[:16]}/proxy-")
    assert list(bucket.keys()) == []


def test_proxies_are_gone_too_when_the_model_fails(refiner_for: RefinerFor, clip: Clip, bucket: GcsStore) -> None:
    with ModelServer() as server:
        server.fault_for = lambda _: faults.status(400)
        with pytest.raises(PermanentError, match="refused the request"):
            refine(refiner_for, server, [clip(EARLY), clip(LATE)], store=bucket)
    assert list(bucket.keys()) == []


def test_an_address_is_signed_when_its_request_is_sent(refiner_for: RefinerFor, clip: Clip, bucket: GcsStore) -> None:
    """One after the other, each longer than the second to which a signature is dated."""
    with ModelServer(service_s=1.1) as server:
        refine(refiner_for, server, [clip(EARLY), clip(LATE)], store=bucket, parallel=1)
    dates = [parse_qs(urlsplit(asked.seen[0].url).query)["X-Goog-Date"] for asked in server.asked]
    assert dates[0] < dates[1]


def test_addresses_are_made_beside_the_calls_that_are_on_their_way(
    new_step: Callable[..., Step], chat_for: Callable[..., ChatModel]
) -> None:
    """Signing may ask Google, and a clip may be large: neither may hold up other calls, nor their deadlines."""
    both = threading.Barrier(2, timeout=10)

    def messages() -> list[dict[str, object]]:
        both.wait()
        return [{"role": "user", "content": "hello"}]

    prompt = Prompt("test", "1", "test")
    asked = [ChatRequest(prompt, messages, {"type": "string"}, identity={"number": number}) for number in (1, 2)]
    with ModelServer() as server, suppress(CrashError), new_step("refined_moments") as step:
        assert len(chat_for(server.entry(parallel=2), step).ask_all(asked)) == 2
        raise CrashError("a crash")


def test_an_address_that_expired_is_told_without_its_signature(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, gcs_server: GcsServer, sql: Sql
) -> None:
    gcs_server.clock_ahead_s = 901
    with ModelServer() as server, pytest.raises(PermanentError, match="The video's address answers 400") as refused:
        refine(refiner_for, server, [clip(EARLY)], store=bucket)
    assert "X-Goog" not in f"{refused.value} {refused.value.evidence}"
    assert "X-Goog" not in repr(sql("select * from model_calls"))
    assert list(bucket.keys()) == []


def test_a_proxy_that_can_not_be_removed_fails_nothing(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, gcs_server: GcsServer
) -> None:
    gcs_server.faults.append(Fault("delete", status=403, times=9))
    with ModelServer() as server:
        refined, _ = refine(refiner_for, server, [clip(EARLY)], store=bucket)
    assert len(refined) == 1
    gcs_server.forget()
    for key in list(bucket.keys()):
        bucket.delete(key)


def test_a_model_that_wants_bytes_gets_them_and_nothing_is_uploaded(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, gcs_server: GcsServer
) -> None:
    with ModelServer() as server:
        refine(refiner_for, server, [clip(EARLY)], store=bucket, video_by="inline")
    assert server.asked[0].seen[0].by == "inline"
    assert gcs_server.uploaded == {}


def test_a_store_without_addresses_and_a_model_that_wants_one_are_a_wrong_setting(
    refiner_for: RefinerFor, clip: Clip
) -> None:
    with ModelServer() as server, pytest.raises(SettingsError, match="video_by=inline"):
        refine(refiner_for, server, [clip(EARLY)], video_by="url")
    assert server.asked == []


def test_credentials_that_can_not_sign_are_told_with_both_ways_out(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login = tmp_path / "login.json"
    login.write_text('{"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
    with ModelServer() as server, pytest.raises(SettingsError, match=r"TokenCreator.* video_by=inline"):
        refine(refiner_for, server, [clip(EARLY)], store=bucket)
    assert server.asked == []


class SlowRunner(FfmpegRunner):
    """An ffmpeg that takes a second. `most_at_once` of them ran side by side, `done` came to their end."""

    def __init__(self) -> None:
        self.at_once = self.most_at_once = self.done = 0

    def run(self, command: list[str], **more: Any) -> Finished:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        source = command.index("-i")
        try:
            finished = super().run([*command[:source], "-readrate", "6", *command[source:]], **more)
            self.done += 1
            return finished
        finally:
            self.at_once -= 1


def test_copies_are_made_two_at_a_time_however_many_calls_go_side_by_side(refiner_for: RefinerFor, clip: Clip) -> None:
    spans = [Span(at, at + 2000) for at in (2000, 4000, 6000, 8000)]
    slow = SlowRunner()
    with ModelServer() as server:
        refine(refiner_for, server, [clip(span) for span in spans], ffmpeg=slow, parallel=4)
    assert len(server.asked) == 4
    assert slow.most_at_once == MOST_ENCODINGS


@pytest.mark.usefixtures("no_threads_left")
def test_an_interrupt_ends_the_making_of_a_copy_too(refiner_for: RefinerFor, clip: Clip) -> None:
    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before, main = signal.signal(signal.SIGUSR1, interrupt), threading.get_ident()
    slow, running = SlowRunner(), psutil.Process().children()
    shown = [clip(Span(at, at + 2000)) for at in (2000, 4000, 6000, 8000)]
    # To this thread: one that went to another would be seen only when this one runs again.
    when(lambda: slow.at_once == MOST_ENCODINGS, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    try:
        with ModelServer() as server, pytest.raises(KeyboardInterrupt):
            refine(refiner_for, server, shown, ffmpeg=slow, parallel=4)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert server.asked == []
    assert (slow.at_once, slow.done) == (0, 0)
    assert psutil.Process().children() == running


def when(is_true: Callable[[], bool], act: Callable[[], None]) -> None:
    def watch() -> None:
        while not is_true():
            time.sleep(0.01)
        act()

    threading.Thread(target=watch, name="stand-in watcher", daemon=True).start()


# What becomes of it


def test_a_retry_makes_no_copy_for_what_was_answered(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, gcs_server: GcsServer
) -> None:
    shown = [clip(EARLY), clip(LATE)]
    with ModelServer(answer=from_the_change) as server:
        first, _ = refine(refiner_for, server, shown[:1], store=bucket)
        gcs_server.forget()
        gone = replace(shown[0], clip="/nowhere/clip.mp4")
        (again, _), (measures,) = refine(refiner_for, server, [gone, shown[1]], store=bucket)
    assert [again] == first
    assert len(gcs_server.uploaded) == 1
    assert measures["proxy_bytes"] == server.asked[1].seen[0].bytes


def test_what_keeps_a_copy_from_being_made_is_no_call_of_the_model(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, gcs_server: GcsServer, sql: Sql
) -> None:
    gcs_server.faults.append(Fault("upload", status=403, times=99))
    with ModelServer() as server, pytest.raises(SettingsError):
        refine(refiner_for, server, [clip(EARLY)], store=bucket)
    assert server.asked == []
    assert sql("select * from model_calls") == []


def test_a_retry_asks_nothing_again_though_its_addresses_are_new(
    refiner_for: RefinerFor, clip: Clip, bucket: GcsStore, store: FileStore
) -> None:
    with ModelServer(answer=from_the_change) as server:
        first, _ = refine(refiner_for, server, [clip(EARLY), clip(LATE)], store=bucket)
        again, _ = refine(refiner_for, server, [clip(EARLY), clip(LATE)], store=store)
    assert again == first
    assert len(server.asked) == 2


def test_another_clip_or_another_text_is_another_question(refiner_for: RefinerFor, clip: Clip) -> None:
    one = clip(EARLY)
    other_clip = replace(one, clip_sha256="0" * 64)
    other_title = replace(one, moment=replace(one.moment, title="Another title"))
    with ModelServer() as server:
        for shown in (one, other_clip, other_title, one, other_clip, other_title):
            refine(refiner_for, server, [shown])
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("start", "end", "note"),
    [
        (1.0, 99.0, "unchanged: stand-in gave 1.00–99.00 s in a clip of 7.00 s"),
        (-3, 5, "unchanged: stand-in gave -3.00–5.00 s in a clip of 7.00 s"),
        (4.9, 6.9, "unchanged: stand-in gave 4.90–6.90 s, and"),
    ],
)
def test_boundaries_outside_of_the_clip_or_far_away_leave_the_moment_as_it_was(
    refiner_for: RefinerFor, clip: Clip, start: float, end: float, note: str
) -> None:
    one = replace(clip(EARLY), plan=ClipPlan(Span(3000, 4500), Span(1000, 8000)))
    with ModelServer(answer=lambda _: json.dumps({"start_time": start, "end_time": end})) as server:
        (refined,), _ = refine(refiner_for, server, [one])
    assert refined.span == Span(3000, 4500)
    assert refined.note.startswith(note)


def test_one_reply_that_can_not_be_read_costs_its_moment_alone(refiner_for: RefinerFor, clip: Clip) -> None:
    with ModelServer(answer=from_the_change) as server:
        server.faults.append(faults.prose)
        (first, second), _ = refine(refiner_for, server, [clip(EARLY), clip(LATE)], parallel=1)
    assert (first.span, second.span) == (EARLY, Span(8000, 10_000))
    assert first.note.startswith("unchanged: The reply holds no answer")


def test_a_model_none_of_whose_replies_can_be_read_fails_the_step(refiner_for: RefinerFor, clip: Clip) -> None:
    with ModelServer(answer=lambda _: "I can't watch videos.") as server, pytest.raises(ReplyError, match="2 moments"):
        refine(refiner_for, server, [clip(EARLY), clip(LATE)])


def test_a_video_that_the_server_refuses_fails_with_its_words(refiner_for: RefinerFor, clip: Clip) -> None:
    with (
        ModelServer(longest_video_s=3) as server,
        pytest.raises(PermanentError, match=r"refused the request .* longer than 3 s"),
    ):
        refine(refiner_for, server, [clip(EARLY)])


def test_a_clip_that_is_damaged_is_named_and_no_model_is_asked(
    refiner_for: RefinerFor, clip: Clip, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(clip(EARLY).clip).read_bytes()[:2000])
    with ModelServer() as server, pytest.raises(MediaError, match=r"broken\.mp4"):
        refine(refiner_for, server, [replace(clip(EARLY), clip=broken)])
    assert server.asked == []


def test_no_moments_are_no_calls_and_no_files(
    refiner_for: RefinerFor, model_server: ModelServer, scratch: Path
) -> None:
    assert refine(refiner_for, model_server, [])[0] == []
    assert (model_server.asked, model_server.looked) == ([], [])
    assert not scratch.exists()


def test_no_file_of_a_step_outlives_it(refiner_for: RefinerFor, clip: Clip, scratch: Path, store: FileStore) -> None:
    with ModelServer() as server:
        refine(refiner_for, server, [clip(EARLY)])
    assert list(scratch.iterdir()) == []
    assert list(store.keys()) == []


def test_what_decides_the_boundaries_is_recorded(refiner_for: RefinerFor, model_server: ModelServer, sql: Sql) -> None:
    with refiner_for(model_server, defaults={"temperature": 0.3}) as refiner:
        assert refiner.recipe == "stand-in refine_from_video-1"
        assert refiner.takes_turns
        assert refiner.parameters == {
            "served_name": "stand-in",
            "temperature": 0.3,
            "context_tokens": None,
            "prompt": "refine_from_video-1",
            "prompt_sha256": REFINE_FROM_VIDEO.sha256,
            "proxy": PROXY_RECIPE,
        }
