"""Objects that no row names go at the second of two looks; whatever could still be named stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moments_core.options import Options
from moments_core.retention import Owner
from moments_resources import uploads
from moments_resources.catalogue import Artifact, Catalogue
from moments_resources.database import Database
from moments_resources.intake import Intake
from moments_resources.retention.objects import Garbage, Look
from moments_resources.retention.part import Cleaned, Part, Retention
from moments_resources.retention.versions import OldVersions
from moments_resources.store.file import FileStore, file_sha256
from moments_resources.store.interface import ObjectStore

Make = Callable[..., Artifact]
Put = Callable[[ObjectStore, str], str]
Run = Callable[[Part[Any]], Cleaned]
Sql = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def here(retention: Retention, any_store: ObjectStore) -> Retention:
    """In both kinds of store."""
    return replace(retention, store=any_store)


@pytest.fixture
def of(video_id: str) -> Callable[[str], str]:
    return lambda name: f"videos/{video_id}/clips/0123/{name}"


def test_an_object_goes_at_the_second_of_two_looks_that_are_far_enough_apart(
    here: Retention, make: Make, put: Put, of: Any, age: Any, run: Run, weigh: Run, sql: Sql
) -> None:  # fmt: skip
    make("clips", put(here.store, of("named.mp4")))
    dead = [put(here.store, of(name)) for name in ("dead-1.mp4", "dead-2.mp4")]
    assert weigh(Look(here)) == {"seen": 3, "found": 2}
    assert sql("select * from garbage") == []
    assert run(Look(here)) == {"seen": 3, "found": 2}
    age("garbage", "found_at", hours=23)
    assert run(Garbage(here)) == {}
    assert run(Look(here)) == {"seen": 3, "found": 0}  # the first look counts
    age("garbage", "found_at", hours=2)
    assert weigh(Garbage(here)) == {"objects": 2, "bytes": 6}
    assert sorted(here.store.keys()) == sorted([*dead, of("named.mp4")])
    assert run(Garbage(here)) == {"objects": 2, "bytes": 6}
    assert list(here.store.keys()) == [of("named.mp4")]
    assert sql("select * from garbage") == []


def test_an_object_that_a_row_names_by_now_stays(
    here: Retention, make: Make, put: Put, of: Any, age: Any, run: Run, sql: Sql
) -> None:
    """Keys come from content: a step may make, and adopt, just what an earlier one left behind."""
    key = put(here.store, of("a.mp4"))
    run(Look(here))
    age("garbage", "found_at", hours=25)
    make("clips", key)
    assert run(Garbage(here)) == {"objects": 0, "bytes": 0}
    assert list(here.store.keys()) == [key]
    assert sql("select * from garbage") == []


def test_a_row_of_a_table_names_its_object_too(
    retention: Retention, store: FileStore, put: Put, video_id: str, age: Any, run: Run, sql: Sql
) -> None:
    key = put(store, f"videos/{video_id}/audio/0123/a.flac")
    run(Look(retention))
    age("garbage", "found_at", hours=25)
    columns = sql(
        "select column_name, data_type from information_schema.columns where table_schema = 'versions'"
        " and table_name = 'thumbnails' and is_nullable = 'NO'"
    )
    given = {"video_id": video_id, "version": 1, "object_key": key}
    values = {row["column_name"]: given.get(row["column_name"], "0") for row in columns} | given
    names = ", ".join(values)
    sql(f"insert into versions.thumbnails ({names}) values ({', '.join(f':{name}' for name in values)})", **values)  # noqa: S608
    run(Garbage(retention))
    assert list(store.keys()) == [key]


def test_what_a_step_has_stored_and_not_committed_is_not_touched(
    here: Retention, catalogue: Catalogue, put: Put, of: Any, video_id: str, age: Any, run: Run
) -> None:  # fmt: skip
    attempt = catalogue.history.open_attempt(video_id, "clips", run_id="run-1")
    put(here.store, of("a.mp4"))
    run(Look(here))
    age("garbage", "found_at", hours=25)
    assert run(Garbage(here)) == {}
    assert list(here.store.keys()) == [of("a.mp4")]
    catalogue.history.close_reused(attempt)
    assert run(Garbage(here)) == {"objects": 1, "bytes": 3}


def test_the_objects_of_a_version_that_goes_are_garbage_from_then_on(
    retention: Retention, store: FileStore, make: Make, put: Put, of: Any, age: Any, run: Run
) -> None:
    shared, old = put(store, of("shared.mp4")), put(store, of("old.mp4"))
    run(Look(retention))
    age("garbage", "found_at", hours=25)  # noted before they were named
    make("clips", shared, old)
    make("clips", shared)
    age("artifacts", "superseded_at", days=31)
    run(OldVersions(retention))
    assert run(Garbage(retention)) == {}
    assert run(Look(retention)) == {"seen": 2, "found": 1}
    age("garbage", "found_at", hours=25)
    assert run(Garbage(retention)) == {"objects": 1, "bytes": 3}
    assert list(store.keys()) == [shared]


def test_what_has_not_the_form_of_our_keys_is_left_alone(here: Retention, put: Put, run: Run, sql: Sql) -> None:
    for key in ("backup/a", "videos/a", "uploads/notes.txt"):
        put(here.store, key)
    run(Look(here))
    assert sql("select * from garbage") == []


def test_more_objects_than_one_look_takes_are_all_seen(
    retention: Retention, store: FileStore, make: Make, of: Any, run: Run
) -> None:
    keys = [of(f"{number}.mp4") for number in range(1100)]
    folder = (store.root / keys[0]).parent
    folder.mkdir(parents=True)
    for key in keys:
        (store.root / key).touch()
    make("clips", *keys[:600])
    assert run(Look(retention)) == {"seen": 1100, "found": 500}


def test_a_removal_that_was_killed_can_be_repeated(
    retention: Retention, store: FileStore, put: Put, of: Any, age: Any, run: Run, sql: Sql
) -> None:
    for name in ("a.mp4", "b.mp4"):
        put(store, of(name))
    run(Look(retention))
    age("garbage", "found_at", hours=25)
    store.delete(of("a.mp4"))  # and then it died, before the transaction ended
    assert run(Garbage(retention)) == {"objects": 1, "bytes": 3}
    assert sql("select * from garbage") == []


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"a film")
    return path


@pytest.fixture
def upload_key(film: Path) -> str:
    return f"uploads/{file_sha256(film)}/film.mp4"


def test_an_upload_without_a_row_goes_and_one_with_a_row_stays(
    here: Retention, database: Database, film: Path, age: Any, run: Run, sql: Sql
) -> None:  # fmt: skip
    Intake(database, here.store).submit(str(film), Options(), submitted_by="test")
    assert run(Look(here)) == {"seen": 1, "found": 0}
    sql("update url_intake set video_id = null")  # as a row that came by SQL
    assert run(Look(here)) == {"seen": 1, "found": 0}
    sql("delete from url_intake")
    assert run(Look(here)) == {"seen": 1, "found": 1}
    age("garbage", "found_at", hours=25)
    assert run(Garbage(here)) == {"objects": 1, "bytes": 6}
    assert list(here.store.keys()) == []


def test_an_upload_that_is_being_submitted_again_stays(
    retention: Retention, store: FileStore, intake: Intake, film: Path, upload_key: str, age: Any, run: Run, sql: Sql
) -> None:  # fmt: skip
    store.copy_in(film, upload_key)
    run(Look(retention))
    age("garbage", "found_at", hours=25)
    with uploads.in_use(retention.database, file_sha256(film)):  # adopted, and not yet named by a row
        assert run(Garbage(retention)) == {}
    intake.submit(str(film), Options(), submitted_by="test")
    assert run(Garbage(retention)) == {"objects": 0, "bytes": 0}
    assert list(store.keys()) == [upload_key]


class SlowStore(FileStore):
    """A folder whose objects are adopted, or removed, only when the test lets them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached, self.may_go_on = threading.Event(), threading.Event()

    def pause(self) -> None:
        self.reached.set()
        assert self.may_go_on.wait(30)


def test_a_submission_that_adopts_an_object_names_it_before_anybody_may_remove_it(
    retention: Retention, database: Database, film: Path, upload_key: str, tmp_path: Path, age: Any, run: Run
) -> None:
    class Adopting(SlowStore):
        def copy_in(self, path: Path, key: str) -> Any:
            stored = super().copy_in(path, key)
            self.pause()
            return stored

    store = Adopting(tmp_path / "slow")
    FileStore(store.root).copy_in(film, upload_key)
    here = replace(retention, store=store)
    run(Look(here))
    age("garbage", "found_at", hours=25)
    submitting = threading.Thread(
        target=Intake(database, store).submit, args=(str(film), Options()), kwargs={"submitted_by": "test"}
    )
    submitting.start()
    assert store.reached.wait(30)
    assert run(Garbage(here)) == {}
    store.may_go_on.set()
    submitting.join()
    assert run(Garbage(here)) == {"objects": 0, "bytes": 0}
    assert list(store.keys()) == [upload_key]


def test_a_submission_waits_for_a_removal_and_stores_the_file_anew(
    retention: Retention, film: Path, upload_key: str, tmp_path: Path, age: Any, run: Run, waiters: Any, until: Any
) -> None:
    class Removing(SlowStore):
        def delete(self, key: str) -> bool:
            self.pause()
            return super().delete(key)

    store = Removing(tmp_path / "slow")
    store.copy_in(film, upload_key)
    here = replace(retention, store=store)
    run(Look(here))
    age("garbage", "found_at", hours=25)
    sha256 = file_sha256(film)
    piece = (Owner(f"file-{sha256[:16]}", sha256), [upload_key])
    removing = threading.Thread(target=Garbage(here).remove, args=(piece,))
    removing.start()
    assert store.reached.wait(30)
    submitting = threading.Thread(
        target=Intake(here.database, store).submit, args=(str(film), Options()), kwargs={"submitted_by": "test"}
    )
    submitting.start()
    until(waiters)
    store.may_go_on.set()
    removing.join()
    submitting.join()
    assert list(store.keys()) == [upload_key]
    assert run(Look(here)) == {"seen": 1, "found": 0}
