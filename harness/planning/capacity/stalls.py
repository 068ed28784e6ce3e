"""Moments in which a whole machine stands still, and a clock that leaves them out.

A virtual machine may lose its cores to others for tens of milliseconds without a sign of it among
its own counters. What comes in such a moment waits for its end, and for the queue that it leaves:
at half of saturation a stall of 50 ms delays 100 ms' worth of requests. It is therefore no matter
of single executions, of which it hits one at most.

As nothing moves in a stall, the server is simulated on a clock that stands still with it; what it
shows is then read on the clock on the wall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.planning.capacity.replica import ReplicaRun

Floats = NDArray[np.float64]

_SHAPE = 4.0
"""Shape of the gamma distribution of the stalls' lengths, whose deviation is then half of its
mean."""


@dataclass(frozen=True)
class Stalls:
    """How often a machine stands still, and for how long."""

    per_s: float
    """Stalls per second of the time in which the machine is not stalled."""
    mean_s: float
    """Mean length of a stall."""

    def clock(self, span_s: float, generator: np.random.Generator) -> StallClock:
        """Stalls over a time: one in each stretch of equal length, of lengths evenly drawn.

        Drawn so, a few seconds show what an hour of independent stalls would.
        """
        count = math.ceil(self.per_s * span_s)
        if not count:
            return StallClock(np.empty(0), np.empty(0))
        begins = (np.arange(count) + generator.random(count)) / self.per_s
        shares = (generator.permutation(count) + generator.random(count)) / count
        return StallClock(begins, scipy.special.gammaincinv(_SHAPE, shares) * self.mean_s / _SHAPE)


NO_STALLS = Stalls(0.0, 0.0)


class StallClock:
    """Turns seconds on the wall into seconds in which the machine runs, and back.

    Args:
        begins_s: of each stall, in running time, ascending, shape (stalls,).
        lengths_s: shape (stalls,).
    """

    def __init__(self, begins_s: Floats, lengths_s: Floats) -> None:
        self._begins_s = begins_s
        self._lost_s = np.concatenate(([0.0], np.cumsum(lengths_s)))
        self._on_wall_s = begins_s + self._lost_s[:-1]

    def running_s(self, on_wall_s: Floats) -> Floats:
        """Running time at moments on the wall: in a stall that of its beginning; any shape."""
        begun = np.searchsorted(self._on_wall_s, on_wall_s, side="right")
        running = on_wall_s - self._lost_s[begun]
        if not len(self._begins_s):
            return np.asarray(running)
        return np.asarray(
            np.where(begun > 0, np.maximum(running, self._begins_s[np.maximum(begun - 1, 0)]),
                     running)
        )  # fmt: skip

    def on_wall_s(self, running_s: Floats) -> Floats:
        """Moments on the wall at running times: at a stall's beginning its end; any shape."""
        passed = np.searchsorted(self._begins_s, running_s, side="right")
        return np.asarray(running_s + self._lost_s[passed])

    def run_on_wall(self, run: ReplicaRun) -> ReplicaRun:
        """A simulation in running time, as the clock on the wall has it; NaN stays NaN."""
        ended = self.on_wall_s(run.started_s + run.busy_s)
        started = self.on_wall_s(run.started_s)
        return ReplicaRun(
            completed_s=self.on_wall_s(run.completed_s),
            joined=run.joined,
            executed_rows=run.executed_rows,
            started_s=started,
            busy_s=ended - started,
        )
