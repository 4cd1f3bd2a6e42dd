from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import PermanentError, SettingsError, SourceError
from moments_core.options import Options, read_options
from moments_core.source import parse_url
from moments_resources.database import Database
from moments_resources.intake import Intake, IntakeRow, name_video
from moments_resources.options import RunOptions
from moments_resources.store.file import FileStore
from moments_resources.store.interface import StoredObject

Sql = Callable[..., list[dict[str, Any]]]
Submit = Callable[..., IntakeRow]
URL = "https://example.org/talk.mp4"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "My talk.mp4"
    path.write_bytes(b"video")
    return path


@pytest.fixture
def insert(intake: Intake, sql: Sql) -> Submit:
    """Puts a row in by SQL, as an analyst does; options as JSON text."""

    def run(url: str, options: str = "{}", priority: int = 0) -> IntakeRow:
        statement = "insert into url_intake (url, options, priority) values (:url, cast(:options as jsonb), :priority)"
        new = sql(f"{statement} returning intake_id", url=url, options=options, priority=priority)
        return intake.row(new[0]["intake_id"])

    return run


def test_a_url_gets_a_row_with_its_video_and_its_options(submit: Submit, sql: Sql) -> None:
    row = submit(URL, max_moments=3)
    assert (row.url, row.options, row.upload_key) == (URL, {"max_moments": 3}, None)
    assert row.video_id == name_video(URL)
    assert sql("select submitted_by, priority, name from url_intake") == [
        {"submitted_by": "test", "priority": 0, "name": None}
    ]


def test_a_url_is_kept_as_it_was_submitted_and_named_by_its_normal_form(submit: Submit) -> None:
    row = submit("HTTPS://Example.ORG:443/talk.mp4?b=%2f&sig=x&a=%7E&utm_source=y#t=3")
    assert row.url == "HTTPS://Example.ORG:443/talk.mp4?b=%2f&sig=x&a=%7E&utm_source=y"
    assert row.video_id == name_video(f"{URL}?a=~&b=%2F&sig=x")


def test_every_submission_makes_a_row_of_its_own(submit: Submit, intake: Intake) -> None:
    rows = [submit(URL) for _ in range(3)]
    assert len({row.intake_id for row in rows}) == 3
    assert {row.video_id for row in rows} == {name_video(URL)}
    assert [intake.refusal(row) for row in rows] == [None, None, None]


REFUSED = [
    "file:///etc/passwd", "ftp://example.org/x.mp4", "javascript:alert(1)", "--exec=id", "no such file.mp4", "gone.mp4",
    "", " ", "https://", "https://exa mple.org/", "a\0b", "x" * 5000, "https://example.org/" + "x" * 5000, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("source", REFUSED, ids=range(len(REFUSED)))
def test_what_can_not_be_worked_on_makes_a_row_too_with_its_reason(
    submit: Submit, intake: Intake, sql: Sql, source: str
) -> None:
    row = submit(source)
    assert row.video_id is None
    refusal = intake.refusal(row)
    assert refusal is not None
    assert refusal[0] == "permanent"
    assert refusal[1].endswith(".")
    assert len(row.url) <= 2048
    assert sql("select outcome, intake_id, asset from pipeline_history") == [
        {"outcome": "failed", "intake_id": row.intake_id, "asset": "raw_video"}
    ]


def test_a_folder_and_a_pipe_are_refused(submit: Submit, intake: Intake, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        refusal = intake.refusal(submit(path))
        assert refusal is not None
        assert "is not a file" in refusal[1]


@pytest.mark.parametrize(
    "source",
    [
        "https://me:geheim@example.org/x",
        "https://geheim@example.org/x",
        "https://me:ge@geheim@example.org/x",
        "https://me:a/geheim@example.org/x",
        "ftp://me:geheim@example.org/x",
        "me:geheim@example.org/x",
        "//me:geheim@example.org/x",
    ],
)
def test_credentials_in_an_address_are_not_stored(submit: Submit, sql: Sql, source: str) -> None:
    row = submit(source)
    assert row.url.endswith("***@example.org/x")
    kept = str([sql(f"select * from {table}") for table in ("url_intake", "pipeline_history")])  # noqa: S608
    assert "geheim" not in kept


def test_an_address_of_a_refused_row_that_holds_no_credentials_stays_readable(submit: Submit) -> None:
    assert submit("ftp://example.org/@user/video").url == "ftp://example.org/@user/video"


def test_a_file_is_copied_into_the_store(submit: Submit, store: FileStore, video: Path) -> None:
    row = submit(video)
    assert row.name == "My talk.mp4"
    assert row.video_id is not None
    assert row.video_id.startswith("file-")
    video.write_bytes(b"other")
    assert row.upload_key is not None
    assert row.upload_key.endswith("/My_talk.mp4")
    assert store.local(row.upload_key).read_bytes() == b"video"


def test_equal_content_is_one_video_whatever_the_files_are_called(submit: Submit, video: Path) -> None:
    copy = video.with_name("copy.webm")
    copy.write_bytes(video.read_bytes())
    first, second = submit(video), submit(copy)
    assert first.video_id == second.video_id == name_video(first.url)
    video.write_bytes(b"other")
    assert submit(video).video_id != first.video_id


def test_a_hostile_file_name_is_no_hindrance(submit: Submit, tmp_path: Path) -> None:
    path = tmp_path / "-v\n\udcff ’;.mp4"
    path.write_bytes(b"video")
    row = submit(path)
    assert row.name == "-v\n? ’;.mp4"
    assert row.upload_key is not None
    assert row.upload_key.endswith("/v.mp4")


class GrowingStore(FileStore):
    """A folder whose user still writes to the file that he submits."""

    def copy_in(self, path: Path, key: str) -> StoredObject:
        with path.open("ab") as file:
            file.write(b"more")
        return super().copy_in(path, key)


def test_a_file_that_is_still_written_to_is_refused(database: Database, tmp_path: Path, video: Path) -> None:
    store = GrowingStore(tmp_path / "store")
    intake = Intake(database, store)
    refusal = intake.refusal(intake.submit(str(video), Options(), submitted_by="test"))
    assert refusal is not None
    assert "changed while it was read" in refusal[1]
    assert list(store.keys()) == []


@pytest.mark.parametrize(
    "url",
    [
        "upload:",
        "upload:/etc/passwd",
        "upload:uploads/x/y.mp4",
        "upload:uploads/" + "z" * 64 + "/y.mp4",
        "upload:uploads/" + "0" * 64 + "/a/b.mp4",
        "upload:other/" + "0" * 64 + "/y.mp4",
        "file:///etc/passwd",
    ],
)
def test_a_url_written_by_hand_is_refused_as_a_source_and_nothing_else(url: str) -> None:
    with pytest.raises(SourceError):
        name_video(url)


def test_a_row_put_in_by_sql_waits_and_is_named_once(insert: Submit, intake: Intake) -> None:
    row = insert("https://EXAMPLE.org/talk.mp4")
    assert (row.video_id, intake.unregistered(10), intake.waiting(10)) == (None, [row], [])
    for name in ("web-first", "web-second"):
        intake.name_rows({row.intake_id: name})
    intake.mark_registered([row.intake_id])
    assert [waiting.intake_id for waiting in intake.waiting(10)] == [row.intake_id]
    assert intake.row(row.intake_id).video_id == "web-first"


def test_the_waiting_are_served_by_priority_then_by_age(insert: Submit, intake: Intake) -> None:
    rows = [insert(f"https://example.org/{n}", priority=priority) for n, priority in enumerate((0, 5, 0, 5))]
    intake.mark_registered([row.intake_id for row in rows])
    order = [row.intake_id for row in intake.waiting(3)]
    assert order == [rows[index].intake_id for index in (1, 3, 0)]


def test_a_refused_row_waits_no_longer_and_keeps_its_first_reason(insert: Submit, intake: Intake) -> None:
    row = insert("ftp://example.org/x")
    intake.refuse(row, SourceError("Not fetched\0.", address="a\0b"))
    assert intake.refusal(row) == ("permanent", "Not fetched\ufffd.")
    assert (intake.unregistered(10), intake.waiting(10)) == ([], [])


@pytest.mark.parametrize("options", ["[]", "null", '"force"', "3", '[{"force": true}]', '{"exec": "rm"}', '{"a": {}}'])
def test_hostile_options_come_in_and_are_refused_when_they_are_read(
    insert: Submit, intake: Intake, options: str
) -> None:
    insert(URL, options)
    row = intake.unregistered(10)[0]
    with pytest.raises(SettingsError, match="Option "):
        read_options(row.options)


def test_a_wrong_option_is_named_with_what_is_wrong() -> None:
    with pytest.raises(SettingsError, match=r"^Option max_moments: Input should be greater .*\.$"):
        read_options({"max_moments": 0})
    with pytest.raises(SettingsError, match="must not be below min_seconds"):
        read_options({"min_seconds": 30, "max_seconds": 20})
    with pytest.raises(SettingsError) as caught:
        read_options({"x" * 100_000: 1})
    assert len(str(caught.value)) < 200


def test_the_newest_submission_of_a_video_says_what_is_asked_for(submit: Submit, intake: Intake) -> None:
    rows = [submit(URL, max_moments=count) for count in (1, 2)]
    video_id = str(rows[0].video_id)
    assert intake.options_of(video_id) == {"max_moments": 2}
    assert intake.source_of(video_id) == rows[1]


def test_a_video_that_nobody_submitted_has_no_options_and_no_source(intake: Intake) -> None:
    assert intake.options_of("web-0") == {}
    with pytest.raises(SourceError, match="moments submit"):
        intake.source_of("web-0")
    with pytest.raises(PermanentError, match="no submission number 5"):
        intake.row(5)


def test_a_run_asks_over_its_submission_but_force_is_the_runs_alone() -> None:
    submitted = {"query": "ships", "max_moments": 3, "force": True}
    asked = RunOptions(max_moments=5).over(submitted)
    assert asked == Options(query="ships", max_moments=5, force=False)
    assert RunOptions(force=True).over({}).force is True


def test_a_run_that_contradicts_its_submission_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="must not be below min_seconds"):
        RunOptions(max_seconds=20).over({"min_seconds": 30})


@pytest.mark.parametrize("hostile", [[], None, "force", {"exec": "rm"}])
def test_a_run_over_hostile_options_is_refused(hostile: object) -> None:
    with pytest.raises(SettingsError):
        RunOptions().over(hostile)


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://WWW.YouTube.com:443/watch?t=3&v=dQw4w9WgXcQ&si=x#a",
        "https://youtu.be/dQw4w9WgXcQ?t=3",
        "https://vimeo.com/76979871?utm_source=x",
        "https://www.ted.com/talks/a_b%2Dc",
        "https://dai.ly/x2iuewm",
        "https://www.tiktok.com/@a/video/7059698374567611694",
        "https://b\u00fccher.example/a/../%7Etalk.mp4?b=2&a=%3D%20&a=1",
        "http://[2001:DB8::1]:80/v.mp4?x",
        "https://example.org/%zz?q=100%",
    ],
)
def test_a_spelling_and_its_normal_form_have_one_name(url: str) -> None:
    assert name_video(url) == name_video(parse_url(url))
