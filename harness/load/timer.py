"""Waking at an instant: what an open loop's schedule is worth.

`time.sleep` under gevent wakes up to a millisecond late, because libev waits in whole ones, and
every request's latency would have that in it. A kernel timer (timerfd, Linux) is a file that can be
read from a nanosecond of CLOCK_MONOTONIC on, and event loops wait for files without delay. What
remains is the kernel waking an idle core, 0.05 to 0.3 ms, and the event loop's own work: so the
timer is set that much early, and whoever is to act at the instant lets it come (`let_come`).
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections.abc import Callable

EARLY_NS = 400_000
"""How much before the instant the timer is set."""
_EARLY_SHARE = 25
"""But at most a 25th of the wait: what passes in yielding is spent CPU."""
_LAST_NS = 40_000
"""What is not worth yielding for: letting others run takes about as long."""
_ABSOLUTE = 1
"""TFD_TIMER_ABSTIME, from <sys/timerfd.h>."""


def wait_readable(file: int) -> None:
    """Wait until a file can be read; in a Locust process `gevent.socket.wait_read` is cheaper."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    poll.poll()


class Timer:
    """A kernel timer, for one sleeper at a time.

    Args:
        wait: waits until a file can be read.
    """

    def __init__(self, wait: Callable[[int], object] = wait_readable) -> None:
        self._wait = wait
        self._library = ctypes.CDLL(None, use_errno=True)
        self._file = self._library.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._file < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"timerfd_create: {os.strerror(code)}")
        # struct itimerspec: interval and first expiry, each in seconds and nanoseconds.
        self._setting = (ctypes.c_int64 * 4)()

    def sleep_until_nearly(self, instant_ns: int) -> None:
        """Let others run until shortly before an instant; once, where it is past."""
        remaining_ns = instant_ns - time.monotonic_ns()
        if remaining_ns > 0:
            early_ns = min(EARLY_NS, remaining_ns // _EARLY_SHARE)
            self._setting[2], self._setting[3] = divmod(instant_ns - early_ns, 1_000_000_000)
            self._library.timerfd_settime(self._file, _ABSOLUTE, self._setting, None)
            self._wait(self._file)
        else:
            time.sleep(0)

    def close(self) -> None:
        """Give the timer back; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def let_come(instant_ns: int) -> None:
    """Return when CLOCK_MONOTONIC shows the instant, which is near; at once, where it is past."""
    while instant_ns - time.monotonic_ns() > _LAST_NS:
        time.sleep(0)
    while time.monotonic_ns() < instant_ns:
        pass
