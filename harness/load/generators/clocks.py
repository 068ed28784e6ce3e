"""How far two processes' monotonic clocks are apart, from questions that were answered.

Whoever is asked shows his clock at some instant between the question and its arrival back here. So
each exchange holds the difference between two bounds, and several hold it between the narrowest:
however the way there and the way back share the delay, the bounds are right. Clocks drift: a bound
is wider the longer ago its exchange was.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from harness.load.generators.messages import GeneratorAnswer, LoadProgress

DRIFT_PER_S = 100e-6
"""How much two clocks may gain on each other in a second. Quartz does 50e-6 at worst, and a clock
that is being disciplined may be slewed by 500e-6 for a while: then the bounds contradict each
other, and the older ones are forgotten."""
REMEMBERED_S = 60.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; nanoseconds of CLOCK_MONOTONIC."""

    asked_ns: int
    """Our clock before the question was sent."""
    shown_ns: int
    """What the other clock showed."""
    answered_ns: int
    """Our clock when the answer was read."""

    @property
    def round_trip_ns(self) -> int:
        """From the question to its answer."""
        return self.answered_ns - self.asked_ns


@dataclass(frozen=True)
class ClockOffset:
    """What another process's clock shows beyond ours."""

    offset_ns: int
    """Added to an instant here it is the same instant there."""
    error_ns: int
    """How wrong the offset may be at most."""

    def there(self, here_ns: int) -> int:
        """An instant of our clock, on the other."""
        return here_ns + self.offset_ns

    def told(self, answer: GeneratorAnswer) -> GeneratorAnswer:
        """What was said there, with its times on our clock."""
        if not isinstance(answer, LoadProgress) or not self.offset_ns:
            return answer
        return replace(
            answer,
            at_ns=answer.at_ns - self.offset_ns,
            since_ns=answer.since_ns - self.offset_ns,
            first_failure_ns=answer.first_failure_ns - self.offset_ns,
            complete_before_ns=answer.complete_before_ns - self.offset_ns,
        )


SAME_CLOCK = ClockOffset(0, 0)


class ClockEstimate:
    """What is known of one process's clock.

    Args:
        same_machine: both processes run under one kernel, whose clock is one, unless somebody gave
            a container its own time: that shows.
    """

    def __init__(self, *, same_machine: bool = False) -> None:
        self._same_machine = same_machine
        self._exchanges: deque[Exchange] = deque()

    def add(self, exchange: Exchange) -> None:
        """Take in an answered question; answers come in the order in which they are read."""
        self._exchanges.append(exchange)
        oldest_ns = exchange.answered_ns - REMEMBERED_S * 1e9
        while self._exchanges[0].answered_ns < oldest_ns:
            self._exchanges.popleft()
        while len(self._exchanges) > 1 and self._bounds(exchange.answered_ns)[2]:
            self._exchanges.popleft()

    @property
    def questions(self) -> int:
        """How many answers it rests on."""
        return len(self._exchanges)

    @property
    def round_trip_ns(self) -> int:
        """The shortest of those."""
        return min((one.round_trip_ns for one in self._exchanges), default=0)

    def at(self, now_ns: int) -> ClockOffset:
        """The difference at an instant of our clock, and how well it is known.

        Raises:
            ValueError: nothing was answered yet.
        """
        low_ns, high_ns, _ = self._bounds(now_ns)
        if self._same_machine and low_ns <= 0 <= high_ns:
            return SAME_CLOCK
        return ClockOffset((low_ns + high_ns) // 2, max(0, high_ns - low_ns + 1) // 2)

    def _bounds(self, now_ns: int) -> tuple[int, int, bool]:
        """The lowest and the highest that the difference may be; whether they contradict."""
        lows, highs = [], []
        for one in self._exchanges:
            drift_ns = int(abs(now_ns - one.answered_ns) * DRIFT_PER_S)
            lows.append(one.shown_ns - one.answered_ns - drift_ns)
            highs.append(one.shown_ns - one.asked_ns + drift_ns)
        low_ns, high_ns = max(lows), min(highs)
        return low_ns, high_ns, low_ns > high_ns


def this_machine() -> str:
    """An id that all processes under one running kernel share; empty where it cannot be told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
