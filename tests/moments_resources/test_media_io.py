from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moments_core.errors import CheckError
from moments_resources.catalogue import Artifact, Catalogue
from moments_resources.frames import new_table
from moments_resources.media_io import MediaIO
from moments_resources.step import Step
from moments_resources.store.file import FileStore
from moments_resources.store.interface import StoredFile, is_key, safe_name
from moments_resources.table_io import Made

NewStep = Callable[..., Step]
CONTENT = b"picture"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def media_io(catalogue: Catalogue, store: FileStore) -> MediaIO:
    return MediaIO(catalogue, store)


@pytest.fixture
def write(media_io: MediaIO, new_step: NewStep) -> Callable[..., Artifact]:
    """Commits a table with files; the work is handed over in a scratch folder, as assets do."""

    def run(asset: str, *rows: dict[str, Any], name: str = "a.jpg", content: bytes = CONTENT) -> Artifact:
        with new_step(asset) as step:
            path = step.folder() / name
            path.write_bytes(content)
            full = [{"file": path, **row} for row in rows]
            return media_io.write(Made(new_table(asset, full), step))

    return run


def thumbnail(time_ms: int = 1, **more: Any) -> dict[str, Any]:
    return {"time_ms": time_ms, "width": 3, "height": 2, **more}


SILENT = {"state": "none", "duration_ms": 0, "silences": [], "rms_db": [], "file": None}


def test_a_file_lies_under_a_key_that_its_content_names(
    write: Callable[..., Artifact], store: FileStore, video_id: str
) -> None:
    made = write("thumbnails", thumbnail())
    key = f"videos/{video_id}/thumbnails/{SHA256[:16]}/a.jpg"
    assert made.objects == [{"key": key, "bytes": len(CONTENT), "sha256": SHA256}]
    assert store.local(key).read_bytes() == CONTENT


def test_the_rows_name_the_object_and_loading_gives_the_file(
    write: Callable[..., Artifact], media_io: MediaIO, video_id: str
) -> None:
    write("thumbnails", thumbnail())
    row = media_io.read(video_id, "thumbnails").to_dict("records")[0]
    assert (row["bytes"], row["sha256"]) == (len(CONTENT), SHA256)
    assert isinstance(row["file"], StoredFile)
    assert Path(row["file"]).read_bytes() == CONTENT
    assert row["file"].uri.endswith("/a.jpg")


def test_a_row_without_a_file_is_kept_where_the_table_allows_it(
    write: Callable[..., Artifact], media_io: MediaIO, video_id: str
) -> None:
    made = write("audio", SILENT)
    row = media_io.read(video_id, "audio").to_dict("records")[0]
    assert made.objects == []
    assert [row[name] for name in ("file", "object_key", "bytes", "sha256")] == [None] * 4


def test_a_row_without_a_file_is_refused_where_the_table_needs_one(write: Callable[..., Artifact], sql: Any) -> None:
    with pytest.raises(CheckError, match="empty: bytes, object_key, sha256"):
        write("thumbnails", thumbnail(file=None))
    assert sql("select * from artifacts") == []


def test_a_table_without_the_file_column_is_refused(media_io: MediaIO, new_step: NewStep) -> None:
    with pytest.raises(CheckError, match="`file`"), new_step("thumbnails") as step:
        media_io.write(Made(new_table("thumbnails", []).drop(columns="file"), step))


def test_a_table_of_no_files_keeps_its_columns(
    write: Callable[..., Artifact], media_io: MediaIO, video_id: str
) -> None:
    write("thumbnails")
    assert "file" in media_io.read(video_id, "thumbnails").columns


def test_a_file_is_adopted_and_not_copied(
    media_io: MediaIO, new_step: NewStep, store: FileStore, tmp_path: Path
) -> None:
    with new_step("thumbnails") as step:
        path = step.folder() / "a.jpg"
        path.write_bytes(CONTENT)
        made = media_io.write(Made(new_table("thumbnails", [thumbnail(file=path)]), step))
        assert store.local(str(made.objects[0]["key"])).samefile(path)


def test_a_retry_meets_its_own_object(write: Callable[..., Artifact], store: FileStore) -> None:
    first, second = (write("thumbnails", thumbnail()) for _ in range(2))
    assert first.objects == second.objects
    assert len(list(store.keys())) == 1


def test_other_content_gets_another_key_and_the_old_object_stays(
    write: Callable[..., Artifact], store: FileStore
) -> None:
    first, second = (write("thumbnails", thumbnail(), content=content) for content in (b"1", b"2"))
    assert [store.local(str(made.objects[0]["key"])).read_bytes() for made in (first, second)] == [b"1", b"2"]


def test_a_file_out_of_the_store_can_be_handed_on(
    media_io: MediaIO, new_step: NewStep, store: FileStore, tmp_path: Path
) -> None:
    (tmp_path / "mine.jpg").write_bytes(CONTENT)
    uploaded = store.copy_in(tmp_path / "mine.jpg", "uploads/x/mine.jpg")
    with new_step("thumbnails") as step:
        file = StoredFile(store, uploaded.key, uploaded.sha256)
        made = media_io.write(Made(new_table("thumbnails", [thumbnail(file=file)]), step))
    assert store.local(str(made.objects[0]["key"])).samefile(store.local(uploaded.key))


HOSTILE = {
    "video.mp4": "video.mp4",
    "My Talk (final).MP4": "My_Talk_final.MP4",
    "../../etc/passwd": "etc_passwd",
    "..": "file",
    ".": "file",
    "": "file",
    ".hidden": "file.hidden",
    "....mp4": "file.mp4",
    "-rf.mp4": "rf.mp4",
    "演讲.mp4": "file.mp4",
    "演讲": "file",
    "été.webm": "t.webm",
    "a\0b.mp4": "a_b.mp4",
    "a\udcff.mp4": "a.mp4",
    "a\nb.mp4": "a_b.mp4",
    "a.mp4;rm -rf": "a.mp4_rm_-rf",
    "a.": "a",
    "a" * 300 + ".mp4": "a" * 70 + ".mp4",
    "a." + "b" * 300: "a." + "b" * 68,
    "." * 300: "file",
}


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_file_name_from_anywhere_becomes_part_of_a_key_with_its_suffix(name: str) -> None:
    assert safe_name(name) == HOSTILE[name]
    assert is_key(f"uploads/x/{safe_name(name)}")
    assert safe_name(safe_name(name)) == safe_name(name)
