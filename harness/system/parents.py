"""A process that must not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
"""Number of the option in <sys/prctl.h>."""


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies.

    To the kernel the parent is the thread that started this process: it has to stay.

    Args:
        parent: the parent's process id.

    Raises:
        SystemExit: the parent is dead already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent died before this process was up")
