"""The folder of the daemon's processes: private, gone at the end, and after a power cut gone with the next start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moments.daemon import group_folder

HOLDS = """
import time
from moments.daemon import group_folder
with group_folder() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What TMPDIR names: short enough for a socket's address."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as short:
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(short)


def test_it_is_private_and_gone_at_the_end(folder: Path) -> None:
    with group_folder() as name:
        assert Path(name).parent == folder
        assert Path(name).stat().st_mode & 0o777 == 0o700
        (Path(name) / "code.sock").touch()
    assert list(folder.iterdir()) == []


def test_what_a_power_cut_left_goes_with_the_next_start_and_what_is_in_use_stays(folder: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        left, used = (Path(process.stdout.readline().strip()) for process in processes if process.stdout)
        (left / "workspace.yaml").write_text("{}")
        processes[0].kill()
        processes[0].wait()
        assert left.exists()
        with group_folder():
            assert not left.exists()
            assert not left.with_suffix(".lock").exists()
            assert used.exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
