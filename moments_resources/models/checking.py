"""Whether a model works, step by step: what `moments models test` and `moments doctor` say.

Each step runs what a call of the model runs too, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from moments_core.errors import MomentsError
from moments_core.model_entry import ModelEntry, Ssh
from moments_resources.models.known_hosts import read_host_keys
from moments_resources.models.link import opened_address, tunnel_to
from moments_resources.models.served import api_key, check_served, reached
from moments_resources.models.tunnel import CONNECT_S


class Step(NamedTuple):
    """One thing that was looked at. `ok` is None where it could not be checked."""

    name: str
    ok: bool | None
    sentence: str


class ModelTest(NamedTuple):
    """What a test found. `ok`: True, it works; False, something is wrong; None, nothing is, as far as one can see."""

    ok: bool | None
    steps: list[Step]


def check_entry(entry: ModelEntry, *, connect_s: float = CONNECT_S) -> ModelTest:
    """Check what can be checked of an entry without asking the model anything that costs.

    `connect_s`: for each phase of the way to the model, and for its answer.
    """
    steps = [Step("entry", True, f"The entry of {entry.key} is valid."), *_before_the_way(entry)]
    if all(step.ok for step in steps):
        steps += _on_the_way(entry, connect_s)
    verdicts = {step.ok for step in steps}
    return ModelTest(False if False in verdicts else None if None in verdicts else True, steps)


def _before_the_way(entry: ModelEntry) -> Iterator[Step]:
    if entry.ssh is not None:
        yield _tried("ssh key", partial(_key_file, entry.ssh))
        yield _tried("known hosts", partial(_known_hosts, entry.ssh))
    if entry.api_key_env is not None:
        yield _tried("api key", partial(_api_key, entry))


def _on_the_way(entry: ModelEntry, connect_s: float) -> Iterator[Step]:
    try:
        with _way(entry, connect_s) as (address, connection):
            yield Step("reach", True, _reached(entry, connection))
            yield _serves(entry, address, connection)
    except MomentsError as error:
        yield Step("reach", False, str(error))


@contextmanager
def _way(entry: ModelEntry, connect_s: float) -> Iterator[tuple[str, HTTPConnection]]:
    tunnel = tunnel_to(entry, connect_s=connect_s)
    try:
        address = opened_address(entry, tunnel)
        with reached(address, connect_s) as connection:
            yield address, connection
    finally:
        if tunnel is not None:
            tunnel.close()


def _tried(name: str, check: Callable[[], str]) -> Step:
    try:
        return Step(name, True, check())
    except MomentsError as error:
        return Step(name, False, str(error))


def _key_file(ssh: Ssh) -> str:
    from moments_resources.models.ssh_key import read_key

    path = Path(ssh.key_file).expanduser()
    read_key(path)
    return f"{path} is a private key that you alone can read."


def _known_hosts(ssh: Ssh) -> str:
    host_keys = read_host_keys(ssh)
    return f"{host_keys.file} names {host_keys.name}."


def _api_key(entry: ModelEntry) -> str:
    api_key(entry)
    return f"The environment variable {entry.api_key_env} is set."


def _reached(entry: ModelEntry, connection: HTTPConnection) -> str:
    if entry.ssh is None:
        return f"{connection.host}:{connection.port} accepts connections."
    return f"{entry.remote_host}:{entry.remote_port} accepts connections, through {entry.ssh.host}."


def _serves(entry: ModelEntry, address: str, connection: HTTPConnection) -> Step:
    step = _tried("serve", partial(check_served, entry, connection, address))
    if step.ok and entry.kind == "asr":  # any web server answers; only a call tells what this one is
        return Step("serve", None, f"{step.sentence} Not checked: no sound was sent to be transcribed.")
    return step
