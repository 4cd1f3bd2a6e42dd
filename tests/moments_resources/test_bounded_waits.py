from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from moments_resources.database import Database

# In a process of its own: the bound holds for all of it.
ASK = """
import sys, time
from sqlalchemy import text
from moments_core.errors import MomentsError
from moments_resources.bounded_waits import bound_waits
from moments_resources.database import Database
bound_waits(float(sys.argv[1]))
database = Database(sys.argv[2])
print("asking", flush=True)
for statement in sys.argv[3:]:
    started = time.monotonic()
    try:
        with database.begin() as connection:
            print(time.monotonic() - started, connection.scalar(text(statement)))
    except (MomentsError, KeyboardInterrupt) as error:
        print(time.monotonic() - started, str(error) or "stopped", flush=True)
"""
SLEEP, AGAIN = "select pg_sleep(60)", "select 'again'"


def asking(url: str, seconds: float, *statements: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASK, str(seconds), url, *statements]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    return process


def told(process: subprocess.Popen[str]) -> list[tuple[float, str]]:
    """What came of each statement, with its seconds."""
    lines = process.communicate()[0].splitlines()
    return [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


def test_a_wait_ends_in_time_and_the_next_statement_goes_well(database: Database) -> None:
    (seconds, reason), (_, last) = told(asking(database.url, 2, SLEEP, AGAIN))
    assert reason.startswith("PostgreSQL does not answer")
    assert 2 <= seconds < 50
    assert last == "again"


def test_a_signal_breaks_off_a_wait(database: Database) -> None:
    process = asking(database.url, 50, SLEEP, AGAIN)
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    (seconds, reason), (_, last) = told(process)
    assert reason == "stopped"
    assert seconds < 50
    assert last == "again"


def test_a_server_that_was_silent_is_given_less_time_until_it_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        first, second, third = (seconds for seconds, _ in told(asking(url, 6, AGAIN, AGAIN, AGAIN)))
    assert first >= 6
    assert max(second, third) < 5
