"""Run a command, and from time to time stop it with all that it has started: a bad machine at will.

    python tests/stress/freeze.py make test
    python tests/stress/freeze.py --busy 1 make test

Every `--every` seconds all processes below this one get SIGSTOP, `--for` seconds later SIGCONT, as
when a hypervisor gives the machine to somebody else. `--busy N` runs N loops beside the command
that do nothing but take processor time; with `--every 0` nothing is stopped. The exit code is the
command's.

After a real standstill the timers that ran out meanwhile fire in the order in which they were due;
here the processes go on one after the other, and those without children go first. Triton depends
on that order: its Python backend waits a second at a time for a model's process, which reports
every 0.3 s that it is alive. Woken before that process, the server takes it for dead, though its
report was due long before the server's second was over, and then crashes on an answer that it has
not got (seen with release 24.10, at nearly every stop with a request in flight).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

import psutil

HEAD_START_S = 0.1
"""How much earlier than their parents those without children go on: ample for a thread to run."""


def freeze(pid: int, seconds: float) -> int:
    """Stop a process and all its descendants for a while; how many there were.

    A process that somebody else has stopped, as some tests do, is left alone: it stays so.
    """
    frozen: dict[int, psutil.Process] = {}
    seen: set[int] = set()
    parents: set[int] = set()
    try:
        # Again until there is none that was born meanwhile.
        while fresh := [one for one in family(pid) if one.pid not in seen]:
            for one in fresh:
                seen.add(one.pid)
                with contextlib.suppress(psutil.Error):
                    parents.add(one.ppid())
                    if one.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
                        one.suspend()
                        frozen[one.pid] = one
        time.sleep(seconds)
    finally:
        go_on(one for one in frozen.values() if one.pid not in parents)
        time.sleep(HEAD_START_S)
        go_on(one for one in frozen.values() if one.pid in parents)
    return len(frozen)


def go_on(stopped: Iterable[psutil.Process]) -> None:
    """Let processes run again; some may have been killed meanwhile."""
    for one in stopped:
        with contextlib.suppress(psutil.Error):
            one.resume()


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many loops that take all the processor time they get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait()


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=float, default=20.0, help="seconds; 0: never")
    parser.add_argument("--for", type=float, default=1.2, dest="seconds", help="seconds")
    parser.add_argument("--busy", type=int, default=0, help="loops beside the command")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("no command")
    times = 0
    with busy(options.busy):
        # In its own group, so that a terminal's Ctrl-C is handed on once, by us.
        command = subprocess.Popen(options.command, start_new_session=True)
        try:
            while True:
                try:
                    command.wait(options.every or None)
                    break
                except subprocess.TimeoutExpired:
                    times += freeze(command.pid, options.seconds) > 0
        except KeyboardInterrupt:
            os.killpg(command.pid, signal.SIGINT)
            command.wait()
    print(f"stopped {times} times for {options.seconds:g} s", file=sys.stderr)  # noqa: T201
    return command.returncode


if __name__ == "__main__":
    sys.exit(main())
