"""The clock of a load: handed in, so that a test may let a load's minute pass in a moment."""

from __future__ import annotations

import time

_LAST_NS = 40_000
"""A wait so short is spent spinning: letting others run takes about as long."""


class Clock:
    """CLOCK_MONOTONIC; a test hands in one of its own.

    Who asks it for every request holds `now_ns` in a local name: it is the function of the standard
    library itself, and gives nanoseconds.
    """

    now_ns = staticmethod(time.monotonic_ns)

    def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        # Asked for by name each time: Locust's patching exchanges it for gevent's.
        time.sleep(seconds)

    def let_come(self, instant_ns: int) -> None:
        """Return at a near instant to some microseconds, yielding until shortly before.

        At once, where it is past.
        """
        while instant_ns - time.monotonic_ns() > _LAST_NS:
            time.sleep(0)
        while time.monotonic_ns() < instant_ns:
            pass


MONOTONIC = Clock()
