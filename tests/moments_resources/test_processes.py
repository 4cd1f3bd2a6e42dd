from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
PARENT = f"""
import subprocess, time
from moments_resources.processes import dying_with_parent
print(subprocess.Popen(dying_with_parent({SLEEP!r})).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_dies_with_a_parent_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        while child.cmdline() != SLEEP:  # the launcher has become the program
            time.sleep(0.01)
        parent.kill()
        _, alive = psutil.wait_procs([child], timeout=30)
        assert alive == []
