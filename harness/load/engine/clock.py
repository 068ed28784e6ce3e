"""The clock of a load: handed in, so that a test may let a load's minute pass in a moment."""

from __future__ import annotations

import time
from typing import Protocol

_LAST_NS = 40_000
"""A wait so short is spent spinning: letting others run takes about as long."""


class Clock(Protocol):
    """CLOCK_MONOTONIC, or a made-up one.

    Who asks it for every request holds `now_ns` in a local name: the real one's is then the
    function of the standard library itself.
    """

    def now_ns(self) -> int:
        """The current time in nanoseconds."""

    def sleep(self, seconds: float) -> None:
        """Let others run for so long."""

    def let_come(self, instant_ns: int) -> None:
        """Return when the clock shows an instant that is near; at once, where it is past."""


class MonotonicClock:
    """The kernel's CLOCK_MONOTONIC."""

    now_ns = staticmethod(time.monotonic_ns)

    def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        # Asked for by name each time: Locust's patching exchanges it for gevent's.
        time.sleep(seconds)

    def let_come(self, instant_ns: int) -> None:
        """Return at the instant to some microseconds, yielding until shortly before."""
        while instant_ns - time.monotonic_ns() > _LAST_NS:
            time.sleep(0)
        while time.monotonic_ns() < instant_ns:
            pass


MONOTONIC = MonotonicClock()
