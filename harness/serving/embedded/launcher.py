"""Becomes `tritonserver`, but one that cannot outlive the harness.

Run as a file by the server environment's Python; imports nothing of the harness, so it costs a few
milliseconds. Usage: `launcher.py PARENT_PID CPUS PROGRAM ARGUMENT...`, CPUS as `0,1` or `-`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for the signal, pin the processors, become the program."""
    parent, cpus, *command = sys.argv[1:]
    # SIGTERM, because Triton then ends its stubs and removes their shared memory.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the harness ended before the server started")
    if cpus != "-":
        os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(",")])
    os.execv(command[0], command)  # noqa: S606  (to become the server is this file's purpose)


if __name__ == "__main__":
    main()
