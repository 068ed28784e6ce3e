"""What other work on the machine does to a trial or to a test, and how that is told from a fault.

A trial says it of itself: its reason has one of `HELD_UP`. Of a test, the tests' conftest says it:
while the test ran, a thread that only sleeps woke late by more than `LOST_S` in all. Only then is
its failure a `HeldUp`, which `make test` and `make check-slow` repeat, and say so; what fails on a
machine that did not stall is a fault, and so is what fails each time (docs/tests.md).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from harness.analysis import validity

HELD_UP = ("sent late", "slow to send", "woke late", "steady", "short of a core")
"""A trial that is invalid for one of these was measured on a busy machine; no fault of the code."""


@contextmanager
def unhurried() -> Iterator[None]:
    """In this process, no trial is invalid for one of `HELD_UP`.

    For tests of what a run does with its trials. That a trial which was held up is invalid is
    tested on trials whose times are made up.
    """
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("GENERATOR_CPU_LIMIT", "IDLE_SHARE", "LOST_SHARE"):
            patch.setattr(validity, limit, math.inf)
        patch.setattr(validity, "allowed_late_ms", lambda p95_ms: math.inf)
        patch.setattr(validity, "still_warming", lambda window: 0)
        yield


PATIENCE_S = 240.0
"""How long a test waits for what must come; what comes sooner is not waited for."""
LOST_S = 0.25
"""How much later than asked a sleeper may wake in all, before a failure is the machine's."""
STEP_S = 0.02
LATE_S = 0.01
"""What one waking may take on a machine with nothing else to do."""


class HeldUp(AssertionError):  # noqa: N818  (no error: a reason to measure again)
    """A test failed while the machine stalled or worked for others."""


@contextmanager
def told_apart(sleeper: Sleeper) -> Iterator[None]:
    """Raise a failure of the block as `HeldUp` where the machine lost too much of its time.

    Args:
        sleeper: a fresh one; it runs as long as the block.
    """
    try:
        with sleeper:
            yield
    except (Exception, pytest.fail.Exception) as failure:
        # A test that hung would only hang again.
        if sleeper.lost_s < LOST_S or str(failure).startswith("Timeout"):
            raise
        raise HeldUp(f"while it ran the machine lost {sleeper.lost_s:.1f} s") from failure


class Sleeper:
    """A thread that sleeps and sums up how late it was woken; a context manager.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sleep, daemon=True)
        self.lost_s = 0.0
        """Beyond `LATE_S` a waking."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _sleep(self) -> None:
        before_s = self._now_s()
        while not self._over.wait(STEP_S):
            before_s = self.woken(before_s)
        # A test may fail right after a standstill, before this thread has been woken.
        self.woken(before_s)

    def woken(self, before_s: float) -> float:
        """Take a waking into account; the time of it.

        Args:
            before_s: when it went to sleep.
        """
        now_s = self._now_s()
        self.lost_s += max(0.0, now_s - before_s - STEP_S - LATE_S)
        return now_s
