"""Run a command, and from time to time stop it with all that it has started: a bad machine at will.

    python tests/stress/freeze.py make test
    python tests/stress/freeze.py --busy 1 make test

Every `--every` seconds all processes below this one get SIGSTOP, `--for` seconds later SIGCONT, as
when a hypervisor gives the machine to somebody else. `--busy N` runs N loops beside the command
that do nothing but take processor time; with `--every 0` nothing is stopped. The exit code is the
command's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil


def freeze(pid: int, seconds: float) -> int:
    """Stop a process and all its descendants for a while; how many there were.

    A process that somebody else has stopped, as some tests do, is left alone: it stays so.
    """
    frozen: dict[int, psutil.Process] = {}
    seen: set[int] = set()
    try:
        # Again until there is none that was born meanwhile.
        while fresh := [one for one in family(pid) if one.pid not in seen]:
            for one in fresh:
                seen.add(one.pid)
                with contextlib.suppress(psutil.Error):
                    if one.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
                        one.suspend()
                        frozen[one.pid] = one
        time.sleep(seconds)
    finally:
        for one in frozen.values():
            with contextlib.suppress(psutil.Error):
                one.resume()
    return len(frozen)


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
