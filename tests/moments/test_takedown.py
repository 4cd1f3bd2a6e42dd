"""What `moments delete` removes of a video, and what of others it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moments.results import Results
from moments.services import Lakehouse
from moments.takedown import take_down

VIDEO = "web-0123456789abcdef"


@pytest.mark.usefixtures("take")  # Dagster's home
def test_objects_that_no_row_names_go_with_their_video(lakehouse: Lakehouse, tmp_path: Path) -> None:
    """A step that was killed leaves the small copies that it showed to a model."""
    copy = tmp_path / "proxy.mp4"
    copy.write_bytes(b"a clip")
    for key in (f"videos/{VIDEO}/refined_moments/abc/proxy.mp4", f"videos/{VIDEO}0/clips/other.mp4"):
        lakehouse.store.copy_in(copy, key)
    assert take_down(lakehouse, VIDEO) == {"video_id": VIDEO, "objects": 1, "rows": 0}
    assert list(lakehouse.store.keys()) == [f"videos/{VIDEO}0/clips/other.mp4"]


def test_an_object_that_a_row_names_counts_once(
    lakehouse: Lakehouse, take: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    source = tmp_path / "no.mp4"
    source.write_bytes(b"no video")
    result = take(source)
    assert len(list(lakehouse.store.keys())) == 1
    assert take_down(lakehouse, result["video_id"])["objects"] == 1
    assert list(lakehouse.store.keys()) == []


def test_a_removal_that_broke_off_can_be_repeated(
    lakehouse: Lakehouse, take: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "no.mp4"
    source.write_bytes(b"no video")
    video_id = take(source)["video_id"]
    folder = next((lakehouse.settings.state / "store" / "uploads").iterdir())
    folder.rename(folder.with_name("away"))
    folder.write_text("a file where a folder was: the store can't remove what lies below")
    with pytest.raises(NotADirectoryError):
        take_down(lakehouse, video_id)
    assert Results(lakehouse).has_video(video_id)
    folder.unlink()
    folder.with_name("away").rename(folder)
    assert take_down(lakehouse, video_id)["objects"] == 1
    assert not Results(lakehouse).has_video(video_id)
