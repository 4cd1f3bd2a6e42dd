from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from moments_resources.database import Database

# In a process of its own: the bound holds for all of it.
ASK = """
import sys
from sqlalchemy import text
from moments_core.errors import MomentsError
from moments_resources.bounded_waits import bound_waits
from moments_resources.database import Database
bound_waits(float(sys.argv[1]))
database = Database(sys.argv[2])
with database.begin() as connection:
    print("asking", connection.scalar(text("select 1")), flush=True)
try:
    with database.begin() as connection:
        connection.execute(text("select pg_sleep(60)"))
except MomentsError as error:
    print(error)
except KeyboardInterrupt:
    print("stopped")
with database.begin() as connection:
    print("again", connection.scalar(text("select 1")))
"""


@pytest.mark.parametrize(
    ("seconds", "number", "said"), [(1, None, "PostgreSQL does not answer"), (60, signal.SIGINT, "stopped")]
)
def test_a_wait_ends_in_time_or_by_a_signal_and_the_next_statement_goes_well(
    database: Database, seconds: int, number: signal.Signals | None, said: str
) -> None:
    command = [sys.executable, "-c", ASK, str(seconds), database.url]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "asking 1\n"
        if number is not None:
            time.sleep(0.5)
            os.kill(asking.pid, number)
        assert asking.stdout.readline().startswith(said)
        assert asking.stdout.readline() == "again 1\n"
    assert time.monotonic() - started < 30
