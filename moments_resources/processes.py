"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# A step that was killed with -9 left its ffmpeg alive (ppid 1). The kernel kills it with us if it asks for that
# itself, before it becomes ffmpeg. Not `preexec_fn`: that needs fork(), whose handlers hang in a process with gRPC
# threads; this way Python uses vfork(). The parent is compared because it may have died in between.
_LAUNCHER = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])\n"
)


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """`command` (a program's path first), to be started by the calling thread, with whose end the kernel kills it.

    Its own children are not included: they ask for the same themselves, or are left. Linux alone can do it.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
