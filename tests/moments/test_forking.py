"""Processes of runs, and the fork server that they come from: neither is lost with the other."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import psutil

FORK_SERVER_KILLED = """
import os, signal, time
from multiprocessing import forkserver
from moments.forking import ForkingContext

if __name__ == "__main__":
    forks = ForkingContext()
    run = forks.Process(target=time.sleep, args=(3,))
    run.start()
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    time.sleep(0.5)
    print(run.is_alive(), run.exitcode)
    next_run = forks.Process(target=time.sleep, args=(0,))
    next_run.start()
    next_run.join()
    print(next_run.exitcode)
    began = time.monotonic()
    run.join()
    print(time.monotonic() - began > 1, run.is_alive())
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
"""
PARENT = """
import time
from multiprocessing import forkserver
from moments.forking import ForkingContext

if __name__ == "__main__":
    run = ForkingContext().Process(target=time.sleep, args=(600,))
    run.start()
    time.sleep(1)
    print(run.pid, forkserver._forkserver._forkserver_pid, flush=True)
    time.sleep(600)
"""


def test_a_run_whose_fork_server_was_killed_is_known_to_live_until_it_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK_SERVER_KILLED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[:3] == ["True None", "0", "True False"]


def test_a_fork_server_ends_with_its_code_server_while_its_runs_go_on() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    run, forks = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
    try:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        _, alive = psutil.wait_procs([forks], timeout=30)
        assert alive == []
        assert run.is_running()
    finally:
        for one in (run, forks):
            with suppress(psutil.NoSuchProcess):
                one.kill()
