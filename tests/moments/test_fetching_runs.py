"""The first assets of a video on real runs: a URL whose query counts, captions that are broken, sound that cancels."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import imageio_ffmpeg
import pytest
from sqlalchemy import text

from moments.definitions import definitions
from moments.results import Results
from moments.services import Lakehouse, prepare_dagster
from moments_core.options import Options
from moments_resources.intake import IntakeRow, name_video

Json = dict[str, Any]
PICTURE = "-f lavfi -i testsrc2=s=64x48:r=10:d=3"
VIDEO = f"{PICTURE} -f lavfi -i sine=d=3 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -movflags +faststart"


@pytest.fixture
def house(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> Lakehouse:
    """An empty lakehouse, open to local servers."""
    monkeypatch.setenv("MOMENTS_ALLOW_PRIVATE_HOSTS", "1")
    prepare_dagster(lakehouse.settings)
    return lakehouse


@pytest.fixture
def submit(house: Lakehouse) -> Callable[[str | Path], IntakeRow]:
    return lambda source: house.intake.submit(str(source), Options(), submitted_by="test")


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str, str], Path]:
    """`made(name, arguments)`: the file that ffmpeg writes."""

    def make(name: str, arguments: str) -> Path:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *arguments.split(), name]
        subprocess.run(command, cwd=tmp_path, check=True)
        return tmp_path / name

    return make


@pytest.fixture
def inserted(house: Lakehouse) -> Callable[[str], IntakeRow]:
    """Puts a URL in by SQL, as an analyst does, and names its video, as the sensor does."""

    def insert(url: str) -> IntakeRow:
        statement = text("insert into url_intake (url) values (:url) returning intake_id")
        with house.database.begin() as connection:
            intake_id = connection.execute(statement, {"url": url}).scalar_one()
        house.intake.name_rows({intake_id: name_video(url)})
        return house.intake.row(intake_id)

    return insert


def materialize(video_id: str, *assets: str) -> tuple[dict[str, Json], list[str]]:
    """The metadata of each asset that was made, and why the others were not."""
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("videos", [video_id])
        job = definitions().resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(asset) for asset in assets]
        run = job.execute_in_process(
            instance=instance, asset_selection=keys, partition_key=video_id, raise_on_error=False
        )
    shown = {
        str(event.step_key): {name: value.value for name, value in event.materialization.metadata.items()}
        for event in run.get_asset_materialization_events()
    }
    return shown, [str(event.step_failure_data.error) for event in run.get_step_failure_events()]


_PAGE = """<title>Talk</title><video src="/talk.mp4?{query}">
<track kind="captions" srclang="en" src="/gone.vtt?token=geheim"></video>"""

_LIST = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{listed}\n#EXT-X-ENDLIST\n"


class _SignedSite(ThreadingHTTPServer):
    """One video, under one query and no other spelling of it, as object stores sign it."""

    daemon_threads = False
    kind = listed = ""  # of the playlist at /list, and its only segment
    query = "z=1&X-Amz-Signature=Ge%2fheim&a=2"

    def __init__(self, video: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.video = video
        self.address = f"http://127.0.0.1:{self.server_address[1]}/talk.mp4"


class _Handler(BaseHTTPRequestHandler):
    server: _SignedSite

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        known = {
            f"/talk.mp4?{self.server.query}": ("video/mp4", self.server.video),
            "/list": (self.server.kind, _LIST.format(listed=self.server.listed).encode()),
            "/page": ("text/html", _PAGE.format(query=self.server.query.replace("&", "&amp;")).encode()),
        }
        kind, body = known.get(self.path, ("text/plain", b""))
        self.send_response(200 if self.path in known else 403)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def signed(made: Callable[[str, str], Path]) -> Iterator[_SignedSite]:
    with _SignedSite(made("talk.mp4", VIDEO).read_bytes()) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def test_a_videos_address_is_shown_with_its_query_and_without_its_secrets(
    house: Lakehouse, submit: Callable[[str], IntakeRow], signed: _SignedSite
) -> None:
    site = signed
    site.query = "token=geheim&v=dQw4w9WgXcQ"
    video_id = str(submit(f"{site.address}?{site.query}").video_id)
    shown, failures = materialize(video_id, "raw_video")
    assert failures == []
    shown_url = f"{site.address}?token=***&v=dQw4w9WgXcQ"
    assert Results(house).rows("select url from public.videos") == [{"url": shown_url}]
    assert "v=dQw4w9WgXcQ" in shown["raw_video"]["page"]
    assert "geheim" not in str(shown)


@pytest.mark.parametrize("way", ["submit", "inserted"])
def test_a_signed_query_is_fetched_as_it_was_written(
    way: str, request: pytest.FixtureRequest, signed: _SignedSite
) -> None:
    row = request.getfixturevalue(way)(f"{signed.address}?{signed.query}")
    _, failures = materialize(str(row.video_id), "raw_video")
    assert failures == []


def test_a_signed_address_opens_no_door_where_it_is_shown(
    house: Lakehouse, submit: Callable[[str], IntakeRow], signed: _SignedSite
) -> None:
    source = f"{signed.address}?v=1&X-Amz-Signature=geheim"  # an old signature: it is refused
    video_id = str(submit(source).video_id)
    materialize(video_id, "raw_video")
    shown_url = f"{signed.address}?v=1&X-Amz-Signature=***"
    results = Results(house)
    [state] = results.states().rows
    assert (state["title"], "url" in state) == (shown_url, False)
    history = results.rows("select cause, evidence from public.pipeline_history")
    assert [row["cause"].startswith(shown_url) for row in history] == [True]
    assert "geheim" not in f"{state} {history}"


def test_a_video_whose_channels_cancel_out_can_be_heard(
    house: Lakehouse, submit: Callable[[Path], IntakeRow], made: Callable[[str, str], Path]
) -> None:
    inverted = f"{PICTURE} -f lavfi -i sine=d=3,pan=stereo|c0=c0|c1=-1*c0 -c:v libx264 -pix_fmt yuv420p -c:a aac"
    shown, failures = materialize(str(submit(made("inverted.mp4", inverted)).video_id), "raw_video", "audio")
    assert failures == []
    assert shown["audio"]["state"] == "sound"
    [sound] = Results(house).rows("select rms_db from public.audio")
    assert max(sound["rms_db"]) > -25


def test_captions_that_can_not_be_read_are_noted_and_do_not_cost_the_video(
    house: Lakehouse, submit: Callable[[Path], IntakeRow], made: Callable[[str, str], Path], tmp_path: Path
) -> None:
    (tmp_path / "lines.srt").write_text("1\n00:00:00,500 --> 00:00:02,500\nFirst line\n", encoding="utf-8")
    film = made("film.mkv", f"{PICTURE} -f lavfi -i sine=d=3 -i lines.srt -map 0 -map 1 -map 2 -c:v libx264 -c:s srt")
    film.write_bytes(film.read_bytes().replace(b"First", b"\xff" * 5))
    shown, failures = materialize(str(submit(film).video_id), "raw_video")
    assert failures == []
    assert shown["raw_video"]["notes"] == "The captions inside the file (stream 2, no language) can't be read."
    assert Results(house).rows("select captions from public.videos") == [{"captions": None}]


def test_what_a_site_did_not_give_is_noted(
    house: Lakehouse, submit: Callable[[str], IntakeRow], signed: _SignedSite
) -> None:
    video_id = str(submit(signed.address.replace("/talk.mp4", "/page")).video_id)
    _, failures = materialize(video_id, "raw_video")
    assert failures == []
    [kept] = Results(house).rows("select measures from public.artifacts")
    assert "captions (en) are missing" in kept["measures"]["notes"]
    assert len(kept["measures"]["notes"]) <= 500
    assert "geheim" not in kept["measures"]["notes"]


@pytest.mark.parametrize(
    ("kind", "scheme", "is_fetched"),
    [("application/x-mpegurl", "http", True), ("application/x-mpegurl", "file", False), ("video/mp4", "file", False)],
)
def test_a_list_opens_no_file_of_this_machine(
    house: Lakehouse,
    submit: Callable[[str], IntakeRow],
    signed: _SignedSite,
    made: Callable[[str, str], Path],
    kind: str,
    scheme: str,
    is_fetched: bool,
) -> None:
    """What is listed is a whole video, which would become the result; by HTTP it does."""
    own = made("own.ts", f"{VIDEO} -c:a aac")
    signed.kind, signed.video = kind, own.read_bytes()
    signed.listed = f"{signed.address}?{signed.query}" if scheme == "http" else own.as_uri()
    _, failures = materialize(str(submit(signed.address.replace("/talk.mp4", "/list")).video_id), "raw_video")
    assert (failures == []) == is_fetched
    assert len(Results(house).rows("select video_id from public.videos")) == is_fetched
