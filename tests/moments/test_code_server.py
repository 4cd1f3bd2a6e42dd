"""The code server and the process that runs are forked from."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from moments.forking import PRELOADED
from tests.moments.production import until


def fork_server(server: psutil.Process) -> psutil.Process:
    (found,) = (one for one in server.children() if any("multiprocessing.forkserver" in word for word in one.cmdline()))
    return found


def test_what_is_forked_from_has_imported_all_and_has_one_thread_and_nothing_open(
    code_server: psutil.Process, short_folder: Path
) -> None:
    """A lock that another thread holds at the fork would stay taken in the run for ever."""
    forks = fork_server(code_server)
    # pandas' own code comes with one of the last names.
    until(lambda: any("pandas" in one.path for one in forks.memory_maps()))
    until(lambda: forks.status() == psutil.STATUS_SLEEPING)
    others = [one.id for one in forks.threads() if one.id != forks.pid]
    names = {Path(f"/proc/{forks.pid}/task/{number}/comm").read_text().strip() for number in others}
    assert names <= {"jemalloc_bg_thd"}  # which expects forks
    assert [one for one in forks.open_files() if one.fd > 2] == []
    assert all(one.laddr.startswith(f"{short_folder}/pymp-") for one in forks.net_connections("all"))


@pytest.mark.parametrize("name", PRELOADED)
def test_a_name_that_is_to_be_imported_early_exists(name: str) -> None:
    """multiprocessing passes over one that does not, without a word."""
    __import__(name)


def test_its_socket_lies_in_the_private_folder_and_it_ends_with_the_code_server(
    code_server: psutil.Process, short_folder: Path
) -> None:
    forks = fork_server(code_server)
    assert list(short_folder.glob("pymp-*/listener-*"))
    code_server.kill()
    _, alive = psutil.wait_procs([forks], timeout=30)
    assert alive == []
