"""The cache of a machine, shared by real processes that are killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from moments_core.errors import ResourceError, SettingsError
from moments_resources.store import cache as cache_module
from moments_resources.store.cache import Entry, LocalCache
from moments_resources.store.locks import flocked

LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> LocalCache:
    return LocalCache(folder, LIMIT)


def entry(name: str) -> Entry:
    return Entry(f"gs://media/{name}")


def put(cache: LocalCache, name: str, size: int = 100) -> Path:
    with cache.turn(entry(name)) as part:
        part.write_bytes(name[:1].encode() * size)
        return cache.publish(entry(name), part)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("objects/*/*")}


def left_over(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.glob("turns/*")]


def test_what_was_put_in_is_found_with_its_own_name(cache: LocalCache) -> None:
    put(cache, "a/talk.mp4")
    path = cache.held(entry("a/talk.mp4"), hashlib.sha256(b"a" * 100).hexdigest())
    assert path is not None
    assert (path.name, path.read_bytes(), path.stat().st_mode & 0o777) == ("talk.mp4", b"a" * 100, 0o444)
    assert cache.held(entry("b/talk.mp4"), None) is None


def test_looking_touches_nothing(cache: LocalCache, folder: Path) -> None:
    assert cache.held(entry("a"), None) is None
    cache.drop(entry("a"))
    assert not folder.exists()


def test_what_was_not_used_for_longest_goes_first(folder: Path) -> None:
    for name in "abcdefgh":
        put(LocalCache(folder, LIMIT), name)  # which is gone at once, and with it its hold
    assert LocalCache(folder, LIMIT).held(entry("a"), None)
    put(LocalCache(folder, LIMIT), "new", 350)
    assert names(folder) == {"a", "d", "e", "f", "g", "h", "new"}
    assert int((folder / "used").read_text()) == 950


def test_what_this_process_was_handed_stays(cache: LocalCache, folder: Path) -> None:
    kept = put(cache, "a")
    put(LocalCache(folder, LIMIT), "b", 850)
    assert kept.exists()
    put(LocalCache(folder, LIMIT), "c", 800)
    assert names(folder) == {"a", "c"}


def test_what_another_living_process_was_handed_stays_until_it_ends(
    cache: LocalCache, folder: Path, holding: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = holding("a")
    put(cache, "b", 950)
    assert "a" in names(folder)
    process.kill()
    process.wait()
    put(LocalCache(folder, LIMIT), "c", 50)
    assert names(folder) == {"b", "c"}


def test_a_hold_is_not_for_ever(cache: LocalCache, folder: Path) -> None:
    kept = put(cache, "a")
    long_ago = time.time() - 13 * 3600
    os.utime(kept, (long_ago, long_ago))
    put(cache, "b", 950)
    assert names(folder) == {"b"}


def test_a_thousand_files_take_one_descriptor(folder: Path) -> None:
    cache = LocalCache(folder, 10**6)
    before = psutil.Process().num_fds()
    for number in range(300):
        assert cache.held(entry("x"), None) is None
        put(cache, f"thumbnail-{number}", 1)
    assert psutil.Process().num_fds() == before + 1


def test_a_fork_holds_what_its_parent_held_and_what_it_is_handed(
    folder: Path, elsewhere: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    program = (
        f"{_HEAD}    cache.publish(entry, part)\n"
        "import os; child = os.fork()\n"
        "if child: print(child, flush=True); sys.exit()\n"
        "entry = Entry('gs://media/b')\n"
        "with cache.turn(entry) as part: part.write_bytes(b'b'); cache.publish(entry, part)\n"
        "time.sleep(600)\n"
    )
    child = int(elsewhere(program, "a").told)  # type: ignore[attr-defined]
    try:
        _wait(lambda: "b" in names(folder))
        put(LocalCache(folder, LIMIT), "c", 950)
        assert names(folder) == {"a", "b", "c"}
    finally:
        os.kill(child, signal.SIGKILL)
    _wait(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    put(LocalCache(folder, LIMIT), "d", 50)
    assert names(folder) == {"d"}


def _wait(is_true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


def test_a_file_larger_than_the_limit_works(cache: LocalCache, folder: Path) -> None:
    put(LocalCache(folder, LIMIT), "small")
    assert put(cache, "large", 5000).stat().st_size == 5000
    assert names(folder) == {"large"}
    put(LocalCache(folder, LIMIT), "next")
    assert names(folder) == {"large", "next"}  # this process still holds it


def test_one_brings_a_file_and_the_others_wait_for_it(folder: Path) -> None:
    brought: list[str] = []

    def bring(number: int) -> Path:
        cache = LocalCache(folder, LIMIT)
        with cache.turn(entry("a")) as part:
            found = cache.held(entry("a"), None)
            if found is not None:
                return found
            brought.append("a")
            part.write_bytes(b"a")
            time.sleep(0.05)
            return cache.publish(entry("a"), part)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(bring, range(24)))) == 1
    assert brought == ["a"]
    assert left_over(folder) == []


def test_only_one_is_inside_of_a_turn_also_when_nobody_brings_the_file(folder: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def try_to_bring(number: int) -> None:
        with LocalCache(folder, LIMIT).turn(entry("a")) as part:
            inside.append(number)
            most.append(len(inside))
            part.write_bytes(b"half")
            time.sleep(0.002)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(try_to_bring, range(60)))
    assert max(most) == 1


def test_many_processes_never_see_half_a_file(folder: Path) -> None:
    program = (
        "import hashlib, sys; from pathlib import Path\n"
        "from moments_resources.store.cache import Entry, LocalCache\n"
        "cache = LocalCache(Path(sys.argv[1]), 250_000)\n"
        "for number in range(60):\n"
        "    name = str(number % 7); entry = Entry('gs://media/' + name); content = name.encode() * 60_000\n"
        "    path = cache.held(entry, None)\n"
        "    if path is None:\n"
        "        with cache.turn(entry) as part:\n"
        "            path = cache.held(entry, None)\n"
        "            if path is None:\n"
        "                part.write_bytes(content); path = cache.publish(entry, part)\n"
        "    assert path.read_bytes() == content\n"
        "    if number % 5 == 4: cache = LocalCache(Path(sys.argv[1]), 250_000)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=60)[1] for process in started] == [""] * 4
    assert left_over(folder) == []
    files = list(folder.glob("objects/*/*"))
    assert int((folder / "used").read_text()) == sum(path.stat().st_size for path in files)


def test_what_a_killed_process_left_half_is_removed_by_the_next(
    folder: Path, cache: LocalCache, bringing: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = bringing("a")
    put(cache, "b")
    assert sorted(Path(name).suffix for name in left_over(folder)) == [".lock", ".part"]
    process.kill()
    process.wait()
    put(cache, "c")
    assert left_over(folder) == []
    assert names(folder) == {"b", "c"}


def test_who_waited_for_a_process_that_was_killed_begins_anew(
    folder: Path, cache: LocalCache, bringing: Callable[[str], subprocess.Popen[str]]
) -> None:
    def finds_something_half(cache: LocalCache) -> bool:
        with cache.turn(entry("a")) as part:
            return part.exists()

    process = bringing("a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(finds_something_half, cache)
        _wait_for_a_waiter(next(folder.glob("turns/*.lock")))
        process.kill()
        assert not waiting.result()


def test_no_file_is_handed_out_while_files_are_removed(folder: Path, cache: LocalCache) -> None:
    path = put(LocalCache(folder, LIMIT), "a")
    put(cache, "b")  # so that it has its lease, for which it would wait too
    with ThreadPoolExecutor(1) as pool:
        with flocked(folder / "lock", fcntl.LOCK_EX):
            found = pool.submit(cache.held, entry("a"), None)
            _wait_for_a_waiter(folder / "lock", or_until=found.done)
            path.unlink()
        assert found.result() is None


def _wait_for_a_waiter(lock: Path, or_until: Callable[[], bool] = lambda: False) -> None:
    """Until somebody waits for a lock file."""
    known, number = Path("/proc/locks"), f":{lock.stat().st_ino} "
    if known.exists():
        _wait(lambda: or_until() or any("->" in line and number in line for line in known.read_text().splitlines()))
    else:  # a system that does not tell
        time.sleep(0.5)


def test_a_file_that_could_not_be_brought_leaves_nothing(cache: LocalCache, folder: Path) -> None:
    with pytest.raises(IsADirectoryError), cache.turn(entry("a")) as part:
        part.write_bytes(Path(folder).read_bytes())
    assert left_over(folder) == []
    assert cache.held(entry("a"), None) is None


def test_a_damaged_file_is_dropped(folder: Path) -> None:
    sound = hashlib.sha256(b"a" * 100).hexdigest()
    path = put(LocalCache(folder, LIMIT), "a")
    path.chmod(0o600)
    path.write_bytes(b"a" * 99)
    assert LocalCache(folder, LIMIT).held(entry("a"), sound) is None
    assert names(folder) == set()


def test_a_file_is_read_through_once_a_process(folder: Path, cache: LocalCache) -> None:
    sound = hashlib.sha256(b"a" * 100).hexdigest()
    path = put(cache, "a")
    path.chmod(0o600)
    path.write_bytes(b"b" * 100)  # after it was checked: what is sound is believed to stay so
    assert cache.held(entry("a"), sound) == path


def test_a_file_that_is_dropped_is_gone(cache: LocalCache, folder: Path) -> None:
    put(cache, "a")
    cache.drop(entry("a"))
    cache.drop(entry("a"))
    assert cache.held(entry("a"), None) is None
    assert list(folder.glob("objects/*")) == []
    assert int((folder / "used").read_text()) == 0


def test_a_lost_count_is_counted_again(cache: LocalCache, folder: Path) -> None:
    put(cache, "a", 400)
    for damage in ("", "many"):
        (folder / "used").write_text(damage)
        put(LocalCache(folder, LIMIT), f"b{damage}", 100)
    assert int((folder / "used").read_text()) == 600


def test_dead_processes_leave_no_leases(folder: Path, holding: Callable[[str], subprocess.Popen[str]]) -> None:
    process = holding("a")
    process.kill()
    process.wait()
    cache = LocalCache(folder, LIMIT)
    put(cache, "b")
    assert len(list(folder.glob("leases/*"))) == 1


def test_a_folder_that_can_not_be_one_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="MOMENTS_HOME"):
        put(LocalCache(tmp_path / "file" / "cache", LIMIT), "a")


def test_a_full_disk_is_a_shortage_and_leaves_nothing_half(small_disk: Path) -> None:
    cache = LocalCache(small_disk / "cache", 10**9)
    put(cache, "a", 10_000)
    with pytest.raises(ResourceError, match="disk of the download cache is full"):
        put(cache, "b", 100_000)
    assert left_over(small_disk / "cache") == []
    assert names(small_disk / "cache") == {"a"}


def test_the_longest_hold_is_the_longest_run() -> None:
    told = (Path(__file__).parents[2] / "dagster.yaml").read_text()
    assert f"max_runtime_seconds: {cache_module._LONGEST_HOLD_S}" in told


_HEAD = (
    "import sys, time; from pathlib import Path\n"
    "from moments_resources.store.cache import Entry, LocalCache\n"
    "cache, entry = LocalCache(Path(sys.argv[1]), 1000), Entry('gs://media/' + sys.argv[2])\n"
    "with cache.turn(entry) as part:\n"
    "    part.write_bytes(b'x' * 100)\n"
)


@pytest.fixture
def elsewhere(folder: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Runs a program in another process until it has printed a line."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), name], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        process.told = process.stdout.readline()  # type: ignore[attr-defined]
        assert process.told, "the other process ended before it was ready"  # type: ignore[attr-defined]
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def holding(elsewhere: Callable[[str, str], subprocess.Popen[str]]) -> Callable[[str], subprocess.Popen[str]]:
    """A process that was handed a file and lives."""
    program = f"{_HEAD}    cache.publish(entry, part)\nprint('held', flush=True); time.sleep(600)"
    return lambda name: elsewhere(program, name)


@pytest.fixture
def bringing(elsewhere: Callable[[str, str], subprocess.Popen[str]]) -> Callable[[str], subprocess.Popen[str]]:
    """A process in the middle of a download."""
    return lambda name: elsewhere(f"{_HEAD}    print('half', flush=True); time.sleep(600)", name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_two_threads_that_first_use_a_cache_together_share_its_lease(tmp_path: Path) -> None:
    """Of two leases the second closed the first, and a file in use was removed."""
    for number in range(40):
        cache = LocalCache(tmp_path / str(number), 10**9)
        with ThreadPoolExecutor(4) as pool:
            barrier = threading.Barrier(4)

            def take(cache: LocalCache = cache, barrier: threading.Barrier = barrier) -> object:
                barrier.wait()
                return cache._leased()

            taken = [future.result() for future in [pool.submit(take) for _ in range(4)]]
        assert len({id(lease) for lease in taken}) == 1
