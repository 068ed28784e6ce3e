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
from functools import cache
from typing import Self

import pytest

from harness.analysis import validity
from harness.load.generators import attendance, driver

HELD_UP = (
    *("sent late", "slow to send", "woke late", "stood still", "steady", "short of a core"),
    "the clock of",
)
"""A trial that is invalid for one of these was measured on a busy machine; no fault of the code."""


def is_held_up(invalid_reason: str) -> bool:
    """Whether a trial is invalid because of other work on the machine."""
    return any(words in invalid_reason for words in HELD_UP)


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
        patch.setattr(attendance, "STANDSTILL_SHARE", math.inf)
        patch.setattr(driver, "CLOCK_ERROR_SLICES", math.inf)
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


class Sleeper:
    """Sums up how late a thread is woken that only sleeps.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._known = (now_s(), 0.0)
        """When it was last woken, and what had been lost by then; exchanged as one."""

    def start(self) -> Self:
        """Let it sleep, `STEP_S` at a time, as long as this process lives."""
        threading.Thread(target=self._sleep, daemon=True).start()
        return self

    @property
    def lost_s(self) -> float:
        """Beyond `LATE_S` a waking, since it was made.

        A test may fail right after a standstill, before the thread has been woken: that counts.
        """
        return self._until(self._now_s())

    def woken(self) -> None:
        """Take a waking into account."""
        now_s = self._now_s()
        self._known = (now_s, self._until(now_s))

    def _until(self, now_s: float) -> float:
        woken_s, lost_s = self._known
        return lost_s + max(0.0, now_s - woken_s - STEP_S - LATE_S)

    def _sleep(self) -> None:
        while True:
            time.sleep(STEP_S)
            self.woken()


@cache
def sleeper_here() -> Sleeper:
    """The one of this process, which sleeps from the first call on."""
    return Sleeper().start()


@contextmanager
def told_apart(sleeper: Sleeper, since_s: float | None = None) -> Iterator[None]:
    """Raise a failure of the block as `HeldUp` where the machine lost too much of its time.

    Args:
        sleeper: tells what is lost.
        since_s: what was lost before the time that counts; by default before the block.
    """
    before_s = sleeper.lost_s if since_s is None else since_s
    try:
        yield
    except (Exception, pytest.fail.Exception) as failure:
        lost_s = sleeper.lost_s - before_s
        # A test that hung would only hang again.
        if lost_s < LOST_S or str(failure).startswith("Timeout"):
            raise
        raise HeldUp(f"while it ran the machine lost {lost_s:.1f} s") from failure
