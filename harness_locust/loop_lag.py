"""How late the event loop wakes a sleeper: what every latency of this process may be too long by.

A loop that is busy with one user's answer leaves the others' answers unread; the clock runs on.
"""

from __future__ import annotations

import time
from typing import Self

import gevent
import numpy as np

from harness import hdr
from harness.types import SparseHistogram

EVERY_S = 0.01
"""A hundred wake-ups per second cost about 0.2% of a core."""


class LoopLag:
    """Sleeps, and notes how much longer it took; a context manager."""

    def __init__(self) -> None:
        self._late_ns: list[int] = []
        self._sleeper = gevent.Greenlet(self._sleep_on)

    def __enter__(self) -> Self:
        self._sleeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sleeper.kill()

    def take(self) -> SparseHistogram:
        """What was seen since the last time."""
        late_ns, self._late_ns = self._late_ns, []
        return hdr.of_nanoseconds(np.array(late_ns, dtype=np.int64))

    def _sleep_on(self) -> None:
        asked_ns = int(EVERY_S * 1e9)
        while True:
            before_ns = time.monotonic_ns()
            gevent.sleep(EVERY_S)
            self._late_ns.append(max(0, time.monotonic_ns() - before_ns - asked_ns))
