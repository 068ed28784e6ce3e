"""Made-up time: a load's seconds pass in a moment, and by exactly as much as a test says."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.load.engine.open_loop import OpenLoop

FOR_REAL_S = 60.0
"""How long a test waits for its own threads before it gives up."""


class VirtualClock:
    """Stands still until somebody sleeps; for what runs in one thread."""

    def __init__(self, at_ns: int = 0) -> None:
        self.at_ns = at_ns

    def now_ns(self) -> int:
        return self.at_ns

    def sleep(self, seconds: float) -> None:
        self.at_ns += round(seconds * 1e9)

    def let_come(self, instant_ns: int) -> None:
        self.at_ns = max(self.at_ns, instant_ns)


class SharedClock(VirtualClock):
    """For an open loop's slots: their threads wait until its dispatcher has moved time on."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[int, threading.Event]] = []

    def sleep(self, seconds: float) -> None:
        self.let_come(self.at_ns + round(seconds * 1e9))

    def let_come(self, instant_ns: int) -> None:
        if instant_ns > self.at_ns:
            woken = threading.Event()
            self.waiting.append((instant_ns, woken))
            assert woken.wait(FOR_REAL_S), "time was not moved on"


class VirtualTimer:
    """A dispatcher's timer that moves time on, event by event, instead of waiting for it.

    Before each step every slot has come to rest: it is idle, or waits for an instant.
    """

    def __init__(self) -> None:
        self.clock = SharedClock()
        self.loop: OpenLoop | None = None
        """That the slots belong to."""

    def sleep_until_nearly(self, instant_ns: int) -> None:
        self._settle()
        waiting = self.clock.waiting
        while waiting and min(due for due, _ in waiting) <= instant_ns:
            first = min(waiting, key=lambda one: one[0])
            waiting.remove(first)
            self.clock.at_ns = max(self.clock.at_ns, first[0])
            first[1].set()
            self._settle()
        self.clock.at_ns = max(self.clock.at_ns, instant_ns)

    def _settle(self) -> None:
        assert self.loop is not None
        deadline_s = time.monotonic() + FOR_REAL_S
        while len(self.loop._idle) + len(self.clock.waiting) < len(self.loop._slots):
            assert time.monotonic() < deadline_s, "a slot neither rests nor waits"
            time.sleep(0)
