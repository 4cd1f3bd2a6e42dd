"""The bucket store against the real emulator, over real sockets that break."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moments.services import open_store
from moments.settings import Settings
from moments_core.errors import MomentsError, PermanentError, ResourceError, ServiceError, SettingsError
from moments_resources.store.cache import LocalCache
from moments_resources.store.gcs import GcsPlace, GcsStore
from moments_resources.store.gcs_bucket import Transfer
from moments_resources.store.gcs_errors import gcs_faults_named
from tests.stand_ins.gcs_server import Fault, GcsServer
from tests.stand_ins.google_machine import GoogleMachine
from tests.stand_ins.leftovers import our_threads

MB = 2**20
LARGE = 9 * MB  # the library sends 8 MiB and less in one request
QUICK = Transfer(chunk_bytes=MB, part_bytes=MB, parallel=4, patience_s=0.9, connect_s=1, read_s=1)
Machine = Callable[[str], GcsStore]


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket("media")
        yield server


@pytest.fixture
def gcs(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> GcsServer:
    server.forget()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    return server


@pytest.fixture
def place() -> GcsPlace:
    return GcsPlace("media", f"{uuid.uuid4().hex}/")


@pytest.fixture
def machine(gcs: GcsServer, place: GcsPlace, tmp_path: Path) -> Machine:
    """`machine("b")`: the store as another machine sees it, with a cache of its own."""
    return lambda name: GcsStore(place, LocalCache(tmp_path / name / "cache", 10**9), QUICK)


@pytest.fixture
def store(machine: Machine) -> GcsStore:
    return machine("here")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.mp4"
    path.write_bytes(os.urandom(LARGE))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.jpg"
    path.write_bytes(b"small")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def total(counter: dict[str, int]) -> int:
    return sum(counter.values())


# What moves


def test_a_large_file_goes_up_in_chunks_and_comes_down_in_ranges(gcs: GcsServer, machine: Machine, large: Path) -> None:
    stored = machine("a").adopt(large, "videos/v/raw_video/1/large.mp4")
    assert gcs.calls.count("upload") == 9
    fetched = machine("b").local(stored.key, stored.sha256)
    assert gcs.calls.count("download") == 9
    assert fetched.read_bytes() == large.read_bytes()
    assert (total(gcs.uploaded), total(gcs.downloaded)) == (LARGE, LARGE)
    # Nothing that the bucket itself is asked: the role of objects is enough.
    assert set(gcs.calls) == {"describe", "list", "start", "upload", "download"}


def test_a_large_file_that_is_there_is_not_sent_again(gcs: GcsServer, machine: Machine, large: Path) -> None:
    """The same video is submitted twice, or a step is tried again after its upload."""
    first = machine("a").copy_in(large, "uploads/0/large.mp4")
    assert machine("b").copy_in(large, "uploads/0/large.mp4") == first
    assert total(gcs.uploaded) == LARGE


def test_the_machine_that_stored_a_file_never_fetches_it(gcs: GcsServer, store: GcsStore, large: Path) -> None:
    stored = store.adopt(large, "a/large.mp4")
    assert store.local(stored.key, stored.sha256).samefile(large)
    assert total(gcs.downloaded) == 0


def test_a_machine_fetches_an_object_once(gcs: GcsServer, machine: Machine, large: Path) -> None:
    stored = machine("a").adopt(large, "a/large.mp4")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: machine("b").local(stored.key, stored.sha256), range(4)))
    assert total(gcs.downloaded) == LARGE


def test_an_upload_becomes_the_raw_video_without_travelling_again(
    gcs: GcsServer, machine: Machine, large: Path
) -> None:
    uploaded = machine("a").copy_in(large, "uploads/1/large.mp4")
    worker = machine("b")
    path = worker.local(uploaded.key)
    adopted = worker.adopt(path, "videos/v/raw_video/1/large.mp4")
    assert adopted.sha256 == uploaded.sha256
    assert (total(gcs.uploaded), total(gcs.downloaded)) == (LARGE, LARGE)
    assert machine("c").local(adopted.key, adopted.sha256).read_bytes() == large.read_bytes()


def test_an_object_carries_its_checksums_and_its_kind(
    gcs: GcsServer, store: GcsStore, place: GcsPlace, small: Path
) -> None:
    stored = store.adopt(small, "a/small.jpg")
    found = gcs.objects("media")[f"{place.prefix}a/small.jpg"]
    assert (found["metadata"], found["contentType"]) == ({"sha256": stored.sha256}, "image/jpeg")


# Uploads that break


def test_a_chunk_that_breaks_off_is_sent_again_and_no_other(gcs: GcsServer, machine: Machine, large: Path) -> None:
    gcs.faults.append(Fault("upload", "cut", after=4))
    stored = machine("a").adopt(large, "a/large.mp4")
    assert LARGE < total(gcs.uploaded) <= LARGE + MB
    assert machine("b").local(stored.key, stored.sha256).read_bytes() == large.read_bytes()


def test_an_upload_that_never_ends_well_leaves_nothing(gcs: GcsServer, store: GcsStore, large: Path) -> None:
    gcs.faults.append(Fault("upload", "cut", after=4, times=100))
    with pytest.raises(ServiceError, match="could not be reached, or broke off"):
        store.adopt(large, "a/large.mp4")
    assert list(store.keys()) == []
    gcs.forget()
    assert store.adopt(large, "a/large.mp4").bytes == LARGE


@pytest.mark.parametrize("size", [5, LARGE])
def test_an_upload_whose_answer_was_lost_is_done(gcs: GcsServer, machine: Machine, small: Path, size: int) -> None:
    small.write_bytes(os.urandom(size))
    gcs.faults.append(Fault("upload", "lose_answer", after=size // MB - 1 if size > MB else 0))
    stored = machine("a").adopt(small, "a/small.jpg")
    assert machine("b").local(stored.key, stored.sha256).read_bytes() == small.read_bytes()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(gcs: GcsServer, store: GcsStore, small: Path) -> None:
    for kind in ("upload", "describe", "download", "list", "delete"):
        gcs.faults.append(Fault(kind, status=503))
    stored = store.adopt(small, "a/b")
    assert list(store.keys()) == ["a/b"]
    assert store.delete("a/b")
    assert stored.bytes == 5
    assert [fault.on for fault in gcs.faults] == ["describe", "download"]


@pytest.mark.parametrize("size", [5, LARGE])
def test_an_object_that_arrived_damaged_is_removed(gcs: GcsServer, store: GcsStore, small: Path, size: int) -> None:
    small.write_bytes(os.urandom(size))
    gcs.faults.append(Fault("upload", "wrong_crc32c", after=size // MB - 1 if size > MB else 0))
    with pytest.raises(ServiceError, match="arrived damaged"):
        store.adopt(small, "a/small.jpg")
    assert list(store.keys()) == []


def test_the_server_is_told_the_checksum_and_refuses_what_differs(gcs: GcsServer, store: GcsStore, large: Path) -> None:
    gcs.faults.append(Fault("upload", "corrupt_sent", after=3))
    with pytest.raises(ServiceError, match=r"\(400\)"):
        store.adopt(large, "a/large.mp4")
    assert list(store.keys()) == []


def test_a_chunk_of_which_the_server_kept_a_part_is_a_broken_upload(
    gcs: GcsServer, store: GcsStore, large: Path
) -> None:
    gcs.faults.append(Fault("upload", "keep_part", after=1))
    with pytest.raises(ServiceError, match="lost an upload"):
        store.adopt(large, "a/large.mp4")
    assert store.adopt(large, "a/large.mp4").bytes == LARGE


def test_two_that_store_at_once_store_one_object(gcs: GcsServer, machine: Machine, large: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        stored = list(pool.map(lambda name: machine(name).copy_in(large, "a/large.mp4"), ["a", "b"]))
    assert stored[0] == stored[1]


def test_of_two_that_store_different_things_at_once_one_is_refused(
    gcs: GcsServer, machine: Machine, tmp_path: Path
) -> None:
    def bring(name: str) -> str:
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode() * LARGE)
        try:
            return machine(name).adopt(path, "a/same").sha256
        except PermanentError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(bring, ["a", "b"]))
    assert "The store has this key with other content." in ends
    assert sha256(machine("c").local("a/same")) in ends


# Downloads that break


@pytest.mark.parametrize("what", ["cut", "corrupt"])
@pytest.mark.parametrize("size", [5, LARGE])
def test_a_download_that_breaks_or_is_damaged_is_made_good(
    gcs: GcsServer, machine: Machine, small: Path, size: int, what: str
) -> None:
    small.write_bytes(os.urandom(size))
    stored = machine("a").adopt(small, "a/small.jpg")
    gcs.faults.append(Fault("download", what))
    assert machine("b").local(stored.key).read_bytes() == small.read_bytes()


@pytest.mark.parametrize("status", [503, 403])
@pytest.mark.parametrize("size", [5, LARGE])
def test_no_socket_of_a_refused_download_is_left_open(
    gcs: GcsServer, machine: Machine, small: Path, size: int, status: int
) -> None:
    small.write_bytes(os.urandom(size))
    stored = machine("a").adopt(small, "a/small.jpg")
    gcs.faults.append(Fault("download", status=status, times=2))
    fetching = machine("b")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        with contextlib.suppress(SettingsError):
            fetching.local(stored.key)
        del fetching
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


def test_damaged_content_is_never_handed_out(gcs: GcsServer, machine: Machine, small: Path, tmp_path: Path) -> None:
    stored = machine("a").adopt(small, "a/b")
    gcs.faults.append(Fault("download", "corrupt", times=2))
    with pytest.raises(ServiceError, match="not the content"):
        machine("b").local(stored.key)
    assert not list((tmp_path / "b" / "cache" / "objects").glob("*/*"))
    assert machine("b").local(stored.key, stored.sha256).read_bytes() == b"small"


def test_content_that_is_not_what_the_catalogue_says_is_refused(machine: Machine, small: Path) -> None:
    stored = machine("a").adopt(small, "a/b")
    with pytest.raises(ServiceError, match="not the content"):
        machine("b").local(stored.key, "0" * 64)


def test_a_download_ends_with_its_first_failure(gcs: GcsServer, machine: Machine, large: Path) -> None:
    stored = machine("a").adopt(large, "a/large.mp4")
    gcs.forget()
    gcs.faults.append(Fault("download", status=403, message="no storage.objects.get access", times=1))
    with pytest.raises(SettingsError):
        machine("b").local(stored.key)
    assert gcs.calls.count("download") < 9


def test_a_download_that_is_interrupted_ends_soon_and_leaves_nothing(
    gcs: GcsServer, machine: Machine, large: Path, tmp_path: Path
) -> None:
    stored = machine("a").adopt(large, "a/large.mp4")
    gcs.faults.append(Fault("download", "hang", times=100))
    program = (
        "import sys; from pathlib import Path\n"
        "from moments_resources.store.cache import LocalCache\n"
        "from moments_resources.store.gcs import GcsPlace, GcsStore\n"
        "from moments_resources.store.gcs_bucket import Transfer\n"
        "cache, transfer = LocalCache(Path(sys.argv[3]), 10**9), Transfer(part_bytes=2**20, read_s=2)\n"
        "GcsStore(GcsPlace(sys.argv[1], sys.argv[2]), cache, transfer).local(sys.argv[4])\n"
    )
    cache = tmp_path / "killed"
    place = machine("a").place
    process = subprocess.Popen(
        [sys.executable, "-c", program, place.bucket, place.prefix, str(cache), stored.key], stderr=subprocess.PIPE
    )
    _wait(lambda: "download" in gcs.calls)
    process.send_signal(2)
    _, told = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in told
    assert [path.name for path in (cache / "turns").iterdir()] == []


def test_an_object_that_is_removed_while_it_is_read_is_missing(gcs: GcsServer, machine: Machine, large: Path) -> None:
    stored = machine("a").adopt(large, "a/large.mp4")
    gcs.faults.append(Fault("download", status=404, after=2, times=100))
    with pytest.raises(ServiceError, match="while it was read"):
        machine("b").local(stored.key)


# Who may, and who is there


FAULTS = {
    "401": (Fault("any", status=401, times=9), SettingsError, "No usable Google credentials"),
    "403": (Fault("any", status=403, message="me@x.iam does not have storage.objects.create access to it.", times=9),
            SettingsError, "may not do storage.objects.create in gs://media: grant it roles/storage.objectUser"),
    "429": (Fault("any", status=429, times=99), ServiceError, "busy or away (429)"),
    "503": (Fault("any", status=503, times=99), ServiceError, "busy or away (503)"),
    "hang": (Fault("any", "hang", times=99), ServiceError, "could not be reached, or broke off"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_refusal_says_what_to_do(gcs: GcsServer, store: GcsStore, small: Path, name: str) -> None:
    fault, kind, words = FAULTS[name]
    for use in (lambda: store.adopt(small, "a/b"), lambda: list(store.keys()), store.check, lambda: store.local("a/c")):
        gcs.faults[:] = [Fault(**{**vars(fault), "times": 99})]
        with pytest.raises(kind) as raised:
            use()
        _assert_clear(raised.value, words)


def test_what_will_not_change_is_asked_once(gcs: GcsServer, store: GcsStore, small: Path) -> None:
    gcs.faults.append(Fault("upload", status=403, times=99))
    with pytest.raises(SettingsError):
        store.adopt(small, "a/b")
    assert gcs.calls == ["upload"]


def test_a_bucket_that_is_missing_is_named(gcs: GcsServer, tmp_path: Path, small: Path) -> None:
    store = GcsStore(GcsPlace("no-such-bucket", ""), LocalCache(tmp_path / "cache", 10**9), QUICK)
    uses = (lambda: store.adopt(small, "a/b"), lambda: store.local("a/b"), lambda: store.delete("a/b"),
            lambda: list(store.keys()), store.check)  # fmt: skip
    for use in uses:
        with pytest.raises(SettingsError) as raised:
            use()
        _assert_clear(raised.value, "no bucket gs://no-such-bucket")


def test_a_store_that_nobody_answers_for_is_told_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    store = GcsStore(GcsPlace("media", ""), LocalCache(tmp_path / "cache", 10**9), QUICK)
    with pytest.raises(ServiceError) as raised:
        store.check()
    _assert_clear(raised.value, "could not be reached")


def test_an_interrupted_import_of_googles_libraries_does_not_hide_the_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)  # as half an import leaves it: every next one fails
    with pytest.raises(KeyboardInterrupt), gcs_faults_named("media"):
        raise KeyboardInterrupt


def test_a_session_address_is_in_no_error(gcs: GcsServer, store: GcsStore, large: Path) -> None:
    gcs.faults.append(Fault("upload", status=403, after=1))
    with pytest.raises(SettingsError) as raised:
        store.adopt(large, "a/large.mp4")
    error: BaseException | None = raised.value
    while error is not None:
        assert "upload_id" not in f"{error} {getattr(error, 'evidence', '')}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.fixture
def real_client(server: GcsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GcsServer:
    """No emulator to the client: it needs credentials, and sends its tokens."""
    server.forget()
    server.wants_tokens = True
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", server.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(server.key_file(tmp_path)))
    return server


def test_a_service_account_reads_and_writes(
    real_client: GcsServer, place: GcsPlace, tmp_path: Path, small: Path
) -> None:
    store = GcsStore(place, LocalCache(tmp_path / "cache", 10**9), QUICK)
    stored = store.adopt(small, "a/b")
    assert (
        GcsStore(place, LocalCache(tmp_path / "b", 10**9), QUICK).local("a/b", stored.sha256).read_bytes() == b"small"
    )
    assert real_client.calls.count("token") == 2


def test_a_revoked_key_is_a_wrong_setting(real_client: GcsServer, place: GcsPlace, tmp_path: Path) -> None:
    real_client.refuses_keys = True
    with pytest.raises(SettingsError) as raised:
        GcsStore(place, LocalCache(tmp_path / "cache", 10**9), QUICK).check()
    _assert_clear(raised.value, "wrong, expired or revoked")


def test_a_token_that_is_not_accepted_is_a_wrong_setting(
    real_client: GcsServer, place: GcsPlace, tmp_path: Path
) -> None:
    real_client.faults.append(Fault("upload", status=401, times=9))
    with pytest.raises(SettingsError) as raised:
        GcsStore(place, LocalCache(tmp_path / "cache", 10**9), QUICK).check()
    _assert_clear(raised.value, "wrong, expired or revoked")


@pytest.mark.parametrize("content", [None, "no JSON", "{}", '{"type": "service_account", "private_key": "hunter2"}'])
def test_a_key_file_that_is_none_is_a_wrong_setting(
    real_client: GcsServer, place: GcsPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    store = GcsStore(place, LocalCache(tmp_path / "cache", 10**9), QUICK)
    for use in (store.check, lambda: store.signed_url("a/b")):
        with pytest.raises(SettingsError) as raised:
            use()
        _assert_clear(raised.value, "No usable Google credentials")
        assert "hunter2" not in repr(raised.value)


# Signed addresses


@pytest.fixture
def signing(gcs: GcsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GcsServer:
    """A key to sign with, although the emulator needs none."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(gcs.key_file(tmp_path)))
    return gcs


def test_a_signed_address_opens_the_object_for_its_time(signing: GcsServer, store: GcsStore, small: Path) -> None:
    store.adopt(small, "a/small.jpg")
    url = store.signed_url("a/small.jpg", lifetime_s=60)
    assert url is not None
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own server
        assert (answer.read(), answer.headers["Content-Type"]) == (b"small", "image/jpeg")
    signing.clock_ahead_s = 61
    assert _refusal(url) == (400, "ExpiredToken")


def test_a_signed_address_opens_nothing_else(signing: GcsServer, store: GcsStore, small: Path) -> None:
    for key in ("a/b", "a/c"):
        store.adopt(small, key)
    url = store.signed_url("a/b") or ""
    assert _refusal(url.replace("/a/b?", "/a/c?")) == (403, "SignatureDoesNotMatch")
    assert _refusal(url.replace("X-Goog-Expires=900", "X-Goog-Expires=9000")) == (403, "SignatureDoesNotMatch")
    assert _refusal(url.partition("?")[0]) == (403, "AccessDenied")


@pytest.mark.parametrize("seconds", [901, 0, -1])
def test_a_signed_address_lives_for_15_minutes_at_most(signing: GcsServer, store: GcsStore, seconds: int) -> None:
    with pytest.raises(PermanentError, match="1 to 900 seconds"):
        store.signed_url("a/b", lifetime_s=seconds)


def test_the_check_says_whether_addresses_can_be_signed(signing: GcsServer, store: GcsStore) -> None:
    assert "can be signed" in store.check()


def test_a_store_whose_addresses_can_not_be_signed_works_all_the_same(
    store: GcsStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login = tmp_path / "login.json"
    person = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "t"}
    login.write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
    said = store.check()
    assert "can be written" in said
    assert "can't be signed" in said
    assert "iam.serviceAccountTokenCreator" in said


def test_signing_contacts_nobody_where_there_is_a_key(signing: GcsServer, store: GcsStore) -> None:
    assert store.signed_url("a/b")
    assert signing.calls == []


def test_a_person_s_login_can_not_sign(
    gcs: GcsServer, store: GcsStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login = tmp_path / "login.json"
    login.write_text('{"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
    with pytest.raises(SettingsError) as raised:
        store.signed_url("a/b")
    _assert_clear(raised.value, "roles/iam.serviceAccountTokenCreator")


@pytest.fixture
def google(gcs: GcsServer, tmp_path: Path) -> Iterator[GoogleMachine]:
    with GoogleMachine(gcs.account, tmp_path) as machine:
        yield machine


def _sign_elsewhere(google: GoogleMachine, place: GcsPlace, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: Google's libraries read where they run when they are imported."""
    program = (
        "import sys; from pathlib import Path\n"
        "from moments_core.errors import MomentsError\n"
        "from moments_resources.store.cache import LocalCache\n"
        "from moments_resources.store.gcs import GcsPlace, GcsStore\n"
        "try: print(GcsStore(GcsPlace(*sys.argv[1:3]), LocalCache(Path(sys.argv[3]), 1)).signed_url('a/b'))\n"
        "except MomentsError as error: sys.exit(f'{type(error).__name__}: {error}')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, place.bucket, place.prefix, str(tmp_path / "cache")],
        env={**os.environ, **google.environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_where_no_key_lies_iam_signs(google: GoogleMachine, store: GcsStore, small: Path, tmp_path: Path) -> None:
    store.adopt(small, "a/b")
    done = _sign_elsewhere(google, store.place, tmp_path)
    assert done.returncode == 0, done.stderr
    with urllib.request.urlopen(done.stdout.strip()) as answer:  # noqa: S310 - our own server
        assert answer.read() == b"small"


def test_where_iam_refuses_it_says_what_to_grant(google: GoogleMachine, store: GcsStore, tmp_path: Path) -> None:
    google.may_sign = False
    done = _sign_elsewhere(google, store.place, tmp_path)
    told = done.stderr.splitlines()[-1]
    assert told.startswith("SettingsError: The service account may not sign addresses")
    assert "roles/iam.serviceAccountTokenCreator" in told
    assert "ya29" not in done.stderr


# Where


@pytest.mark.parametrize(
    "url",
    ["gs://", "gs:///prefix", "gs://UPPER/x", "gs://me:secret@media/x", "gs://media:80/x", "gs://ab", "gs://media/x?y=1",
     "gs://media/x#y", "gs://media/x?", "gs://media/../y", "gs://media/a//b", "gs://media/a b", "gs://me dia",
     f"gs://media/{'x' * 300}"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_at_once(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MOMENTS_STORE_URL") as raised:
        open_store(Settings(home=tmp_path, store_url=url, _env_file=None))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("url", "uri"), [
    ("gs://media", "gs://media/a/b"), ("gs://media/", "gs://media/a/b"), ("gs://media/x/y/", "gs://media/x/y/a/b"),
])  # fmt: skip
def test_the_setting_says_where_objects_lie(url: str, uri: str, tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path, store_url=url, _env_file=None))
    assert store.uri("a/b") == uri


def test_opening_a_store_contacts_nobody_and_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from moments.settings import Settings; from moments.services import open_store\n"
        "open_store(Settings(home=sys.argv[1], store_url='gs://media/x', _env_file=None)).uri('a/b')\n"
        "print([name for name in sys.modules if name.split('.')[0] in {'google', 'dagster_gcp', 'requests'}])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_what_others_keep_in_the_bucket_is_no_object(
    gcs: GcsServer, store: GcsStore, place: GcsPlace, small: Path
) -> None:
    other = GcsStore(GcsPlace(place.bucket, ""), LocalCache(small.parent / "other", 10**9), QUICK)
    store.adopt(small, "a/b")
    other.adopt(small, f"x{place.prefix}a/b")
    assert list(store.keys()) == ["a/b"]


def test_no_thread_is_left(gcs: GcsServer, machine: Machine, large: Path) -> None:
    before = our_threads()
    stored = machine("a").adopt(large, "a/large.mp4")
    machine("b").local(stored.key)
    assert our_threads() == before


def test_a_full_disk_is_a_shortage(
    gcs: GcsServer, machine: Machine, place: GcsPlace, large: Path, small_disk: Path
) -> None:
    stored = machine("a").adopt(large, "a/large.mp4")
    store = GcsStore(place, LocalCache(small_disk / "cache", 10**9), QUICK)
    for use in (lambda: store.local(stored.key), lambda: store.copy_in(large, "a/other")):
        with pytest.raises(ResourceError, match="disk of the download cache is full"):
            use()
    assert not [path for path in (small_disk / "cache").rglob("*.part") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _assert_clear(error: MomentsError, words: str) -> None:
    assert words in str(error)
    assert str(error).endswith(".")
    assert "\n" not in str(error)
    assert "Error" not in str(error)
    assert error.__cause__ is None


def _refusal(url: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(url)  # noqa: S310 - our own server
    with raised.value as answer:
        told = answer.read().decode()
    return raised.value.code, told.partition("<Code>")[2].partition("</Code>")[0]


def _wait(is_true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")
