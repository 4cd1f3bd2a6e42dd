from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from moments_core.errors import CancelledError, MomentsError, NetworkError, ServiceError, SettingsError
from moments_resources.models.link import ModelLink
from tests.stand_ins import faults
from tests.stand_ins.faults import Fault
from tests.stand_ins.leftovers import Leftovers
from tests.stand_ins.model_server import ModelServer
from tests.stand_ins.ssh_process import SshProcess, asyncssh_process, openssh_process
from tests.stand_ins.ssh_server import SshServer

KEY = "sk-test-0123456789abcdefghijABCDEFGHIJ"
WAIT_S = 20.0  # only a hang takes as long


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    with SshServer(tmp_path / "ssh") as server:
        yield server


@pytest.fixture(params=[asyncssh_process, openssh_process], ids=["asyncssh", "openssh"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SshProcess]:
    made = request.param(tmp_path / "ssh")
    if made is None:
        pytest.skip("OpenSSH's sshd is not installed")
    with made as running:
        yield running


@pytest.fixture
def link(model: ModelServer, ssh: SshServer) -> Iterator[ModelLink]:
    """Through the SSH server to the model."""
    with ModelLink(model.entry(ssh=ssh.entry_fields())) as made:
        yield made


def answer(address: str, timeout_s: float = WAIT_S) -> int:
    """What GET {address}/models answers; the connection ends with it."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path}/models")
        return connection.getresponse().status
    finally:
        connection.close()


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def together(count: int, call: Callable[[str], str]) -> Callable[[str], str]:
    """`call`, once `count` threads want it."""
    barrier = threading.Barrier(count)

    def wait_and_call(address: str) -> str:
        barrier.wait(WAIT_S)
        return call(address)

    return wait_and_call


def is_taken(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=WAIT_S).close()
    except ConnectionRefusedError:
        return False
    return True


# --- where it leads


def test_a_direct_link_leads_to_the_model_s_own_address(model: ModelServer) -> None:
    with ModelLink(model.entry(path="/v1/")) as link:
        assert link.address() == f"http://127.0.0.1:{model.port}/v1"
    assert [asked.path for asked in model.looked] == ["/v1/models"]


def test_a_link_through_ssh_leads_to_a_port_of_this_machine(link: ModelLink, model: ModelServer) -> None:
    parts = urlsplit(link.address())
    assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/v1")
    assert parts.port != model.port
    assert answer(link.address()) == 200


def test_a_speech_model_is_reached_at_its_page(model: ModelServer, ssh: SshServer) -> None:
    with ModelLink(model.entry(kind="asr", ssh=ssh.entry_fields())) as link:
        assert urlsplit(link.address()).path == "/transcribe"
    assert [asked.path for asked in model.looked] == ["/transcribe"]


def test_a_hosted_model_is_asked_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    with ModelServer(api_key=KEY) as server:
        entry = server.entry(base_url=f"http://127.0.0.1:{server.port}/v1", api_key_env="TEST_API_KEY")
        with ModelLink(entry) as link:
            assert link.address() == f"http://127.0.0.1:{server.port}/v1"
            assert link.api_key == KEY


def test_a_model_without_a_key_has_none(model: ModelServer) -> None:
    assert ModelLink(model.entry()).api_key is None


@pytest.mark.parametrize("value", [None, "", f"{KEY} ", f"{KEY}\r\nX-Other: 1"])
def test_a_key_that_can_not_be_sent_is_named_and_never_shown(
    model: ModelServer, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TEST_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_API_KEY", value)
    entry = model.entry("hosted", base_url=f"http://127.0.0.1:{model.port}/v1", api_key_env="TEST_API_KEY")
    with ModelLink(entry) as link:
        for ask in (link.address, lambda: link.api_key):
            with pytest.raises(SettingsError, match=r"Model hosted: .*TEST_API_KEY") as caught:
                ask()
            assert KEY not in repr((caught.value, caught.value.evidence))
    assert model.looked == []


def test_a_key_that_is_refused_is_not_shown_though_the_server_quotes_it(
    model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    model.models_fault = faults.quoting_the_key
    entry = model.entry(base_url=f"http://127.0.0.1:{model.port}/v1", api_key_env="TEST_API_KEY")
    with ModelLink(entry) as link, pytest.raises(SettingsError, match="refuses the key in TEST_API_KEY") as caught:
        link.address()
    assert KEY not in repr((caught.value, caught.value.evidence, caught.value.__cause__))


# --- when it is opened


def test_it_is_opened_at_the_first_use_and_once(link: ModelLink, ssh: SshServer, model: ModelServer) -> None:
    assert ssh.connections_ever == 0
    assert link.address() == link.address()
    assert ssh.connections_ever == 1
    assert len(model.looked) == 1


def test_all_who_come_at_once_share_one_tunnel(link: ModelLink, ssh: SshServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        addresses = list(pool.map(lambda _: link.address(), range(8)))
    assert len(set(addresses)) == 1
    assert ssh.connections_ever == 1


def test_a_way_that_failed_is_tried_again_by_the_next_call(link: ModelLink, ssh: SshServer) -> None:
    ssh.pause()
    with pytest.raises(NetworkError, match=r"Model stand-in: .* refuses connections"):
        link.address()
    ssh.resume()
    assert answer(link.address()) == 200


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (faults.status(503), ServiceError, "answers with status 503"),
        (faults.too_many(), ServiceError, "answers with status 429"),
        (faults.hang, ServiceError, "gave no HTTP answer"),
        (faults.slow_drip, ServiceError, "broke off"),
        (faults.broken_off, ServiceError, "broke off"),
        (faults.reset, ServiceError, "broke off"),
        (faults.status(404), SettingsError, "there is no such page"),
        (faults.not_json, SettingsError, "is no list of models"),
        (faults.json_of_another_kind, SettingsError, "is no list of models"),
        (faults.huge_body, SettingsError, "is no list of models"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_does_not_answer_well_is_not_called(
    model: ModelServer, ssh: SshServer, fault: Fault, error: type[MomentsError], says: str
) -> None:
    model.models_fault = fault
    before = Leftovers()
    never_ends = fault in {faults.hang, faults.slow_drip}
    link = ModelLink(model.entry(ssh=ssh.entry_fields()), connect_s=0.5 if never_ends else WAIT_S)
    with pytest.raises(error, match=says) as caught:
        link.address()
    assert type(caught.value) is error
    assert str(caught.value).startswith("Model stand-in: ")
    before.assert_nothing_new()  # without a close, since nothing was opened


def test_a_server_of_other_models_is_not_called(model: ModelServer, ssh: SshServer) -> None:
    entry = model.entry(served_name="another", ssh=ssh.entry_fields())
    with ModelLink(entry) as link, pytest.raises(SettingsError, match="does not know another: it serves 'stand-in'"):
        link.address()


def test_a_model_that_is_not_started_yet_is_called_once_it_is(ssh: SshServer, model: ModelServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with ModelLink(model.entry(remote_port=port, ssh=ssh.entry_fields())) as link:
        with pytest.raises(ServiceError, match=f"Nothing answers at 127.0.0.1:{port} as seen from 127.0.0.1"):
            link.address()
        with ModelServer(port=port):
            assert answer(link.address()) == 200


# --- when it breaks


def test_a_tunnel_that_breaks_is_opened_again(link: ModelLink, ssh: SshServer) -> None:
    broken = link.address()
    ssh.drop_connections()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        answer(broken)
    again = link.reopened(broken)
    assert answer(again) == 200
    assert ssh.connections_ever == 2
    assert again == broken or not is_taken(broken)


def test_who_comes_late_gets_the_way_that_is_open(link: ModelLink, ssh: SshServer) -> None:
    link.address()
    assert link.reopened("http://127.0.0.1:1/v1") == link.address()
    assert ssh.connections_ever == 1


def test_all_who_saw_it_break_share_one_reopening(link: ModelLink, ssh: SshServer) -> None:
    broken = link.address()
    ssh.drop_connections()
    with ThreadPoolExecutor(8) as pool:
        addresses = set(pool.map(lambda _: link.reopened(broken), range(8)))
    assert len(addresses) == 1
    assert ssh.connections_ever == 2


def test_all_who_wait_for_a_reopening_that_fails_are_told_so_once(model: ModelServer, ssh: SshServer) -> None:
    with ModelLink(model.entry(ssh=ssh.entry_fields()), connect_s=0.5) as link:
        broken = link.address()
        model.models_fault = faults.hang
        looked = len(model.looked)
        reopened = together(8, link.reopened)
        with ThreadPoolExecutor(8) as pool:
            failures = [call.exception() for call in [pool.submit(reopened, broken) for _ in range(8)]]
    assert {type(failure) for failure in failures} == {ServiceError}
    assert len({id(failure) for failure in failures}) == 8  # each thread has its own traceback
    assert len(model.looked) <= looked + 2  # the second, if a thread came when the first attempt was over


def test_a_direct_link_is_checked_again_by_one_of_all(model: ModelServer) -> None:
    with ModelLink(model.entry()) as link:
        address = link.address()
        model.models_fault = lambda exchange: (exchange.wait(0.5), exchange.send(exchange.proper()))  # type: ignore[assignment]
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(together(8, link.reopened), [address] * 8)) == {address}
    assert len(model.looked) <= 3  # the first; its repetition; one more, if a thread came when that was over


def test_a_direct_model_that_is_away_is_said_to_be(model: ModelServer) -> None:
    with ModelLink(model.entry()) as link:
        address = link.address()
        model.models_fault = faults.status(503)
        with pytest.raises(ServiceError, match="status 503"):
            link.reopened(address)
        model.models_fault = None
        assert link.reopened(address) == address


def test_a_call_in_the_middle_of_which_the_server_is_killed_ends(process: SshProcess, model: ModelServer) -> None:
    with ModelLink(model.entry(ssh=process.entry_fields())) as link:
        broken = link.address()
        model.models_fault = faults.hang
        looked = len(model.looked)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(answer, broken)
            until(lambda: len(model.looked) > looked)
            process.kill()
            assert isinstance(call.exception(WAIT_S), (ConnectionError, http.client.HTTPException))
        with pytest.raises(NetworkError, match="refuses connections"):
            link.reopened(broken)
        model.models_fault = None
        process.start()
        assert answer(link.reopened(broken)) == 200


def test_a_call_in_the_middle_of_which_the_server_is_frozen_can_be_made_again(
    process: SshProcess, model: ModelServer
) -> None:
    before = Leftovers()
    with ModelLink(model.entry(ssh=process.entry_fields()), connect_s=0.7) as link:
        broken = link.address()
        process.freeze()
        with pytest.raises(TimeoutError):
            answer(broken, timeout_s=0.3)
        with pytest.raises(NetworkError, match="does not answer in time"):
            link.reopened(broken)
        assert not [name for name in before.new() if "tunnel" in name or "paramiko" in name]
        process.thaw()
        until(lambda: _works(link, broken))  # it first has to find out that its old connection is gone
        assert answer(link.address()) == 200


def _works(link: ModelLink, broken: str) -> bool:
    try:
        return bool(link.reopened(broken))
    except NetworkError:
        return False


# --- how it ends


def test_closing_leaves_nothing_however_often(model: ModelServer, ssh: SshServer) -> None:
    before = Leftovers()
    link = ModelLink(model.entry(ssh=ssh.entry_fields()))
    link.close()
    with ModelLink(model.entry(ssh=ssh.entry_fields())) as link:
        address = link.address()
    link.close()
    before.assert_nothing_new()
    assert not is_taken(address)
    assert (ssh.connections, ssh.channels) == (0, 0)


def test_a_failure_of_the_work_leaves_nothing(model: ModelServer, ssh: SshServer) -> None:
    before = Leftovers()
    with pytest.raises(ZeroDivisionError), ModelLink(model.entry(ssh=ssh.entry_fields())) as link:
        _ = len(link.address()) / 0
    before.assert_nothing_new()


def test_a_link_that_is_closed_is_not_opened_again(link: ModelLink, ssh: SshServer) -> None:
    address = link.address()
    link.close()
    for use in (link.address, lambda: link.reopened(address)):
        with pytest.raises(CancelledError, match="Model stand-in: the way to it was closed"):
            use()
    assert ssh.connections_ever == 1


def test_closing_ends_an_opening_that_waits_for_the_model(model: ModelServer, ssh: SshServer) -> None:
    model.models_fault = faults.hang
    before = Leftovers()
    link = ModelLink(model.entry(ssh=ssh.entry_fields()), connect_s=WAIT_S)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(link.address)
        until(lambda: model.looked)
        link.close()
        assert isinstance(opening.exception(WAIT_S / 2), CancelledError)
    before.assert_nothing_new()


@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "through ssh"])
def test_an_interrupt_while_it_waits_for_the_model_leaves_nothing(
    model: ModelServer, ssh: SshServer, is_direct: bool
) -> None:
    model.models_fault = faults.hang
    before = Leftovers()
    link = ModelLink(model.entry(ssh=None if is_direct else ssh.entry_fields()), connect_s=WAIT_S)
    interrupt = threading.Thread(target=_interrupt_when, args=(lambda: model.looked,))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        link.address()
    interrupt.join(WAIT_S)
    before.assert_nothing_new()  # without a close: the opening undid itself


def _interrupt_when(is_time: Callable[[], Any]) -> None:
    until(is_time)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
