"""How far two processes' monotonic clocks are apart, from questions that were answered.

Whoever is asked shows his clock at some instant between the question and its arrival back here. So
each exchange holds the difference between two bounds, and several hold it between the narrowest:
however the way there and the way back share the delay, the bounds are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.load.generators.messages import GeneratorAnswer, LoadProgress

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
        if not isinstance(answer, LoadProgress):
            return answer
        return replace(
            answer,
            at_ns=answer.at_ns - self.offset_ns,
            since_ns=answer.since_ns - self.offset_ns,
            complete_before_ns=answer.complete_before_ns - self.offset_ns,
            first_failure_ns=answer.first_failure_ns - self.offset_ns,
        )


SAME_CLOCK = ClockOffset(0, 0)


def offset_of(exchanges: Sequence[Exchange], *, same_machine: bool = False) -> ClockOffset:
    """The difference of two clocks, and how well it is known.

    Args:
        exchanges: at least one.
        same_machine: both processes run under one kernel, whose clock is one, unless somebody gave
            a container its own time: that shows.
    """
    low_ns = max(one.shown_ns - one.answered_ns for one in exchanges)
    high_ns = min(one.shown_ns - one.asked_ns for one in exchanges)
    if same_machine and low_ns <= 0 <= high_ns:
        return SAME_CLOCK
    return ClockOffset((low_ns + high_ns) // 2, max(0, high_ns - low_ns + 1) // 2)


def this_machine() -> str:
    """An id that all processes under one running kernel share; empty where it cannot be told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
