"""Where the transient ends (MSER), and when a trial may look at its data and stop.

MSER (White, Simulation 69, 1997) cuts the first d of n observations so that the confidence interval
of the rest's mean is narrowest: it leaves out what lies far from the rest, and keeps all it can.
Of five rules compared by White, Cobb & Spratt (Winter Simulation Conference 2000) it did best, on
batches of five (MSER-5): here a slice of time is the batch, and slices with few requests are merged
until they hold five on average. A cut in the second half means that there is no steady state yet.

Mean latency alone tells: in a closed loop N = throughput x latency (Little), so a transient of
either is one of both, and in an open loop what the server cannot keep up with waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.analysis.percentiles import BlockCounts, Floats
from harness.types import TimeSlice

REQUESTS_A_POINT = 5
"""Requests that a point needs on average for its mean to be an observation: the 5 of MSER-5."""
FEWEST_POINTS = 10
"""Below it a transient and noise look the same."""
FEWEST_LEFT = 5
SHARE_LEFT = 0.25
"""What no cut is tried beyond, the more of the two: the variance of a few is small by chance (Hoad,
Robinson & Davies, Journal of Simulation 4, 2010, leave out the last five)."""
NEGLIGIBLE = 0.02
"""What a cut may change of the rest's mean and yet be no use: the earliest such is taken."""
STILL_WARM_POINTS = 2
"""One slow point is a stall like any other."""
STILL_WARM_FACTOR = 1.5
STILL_WARM_DEVIATIONS = 8.0
"""How far above the rest a window's start must lie to be warm-up, not the swing of a queue. Of
simulated M/M/1 windows 1% are that far by chance, 8% where the window is no longer than its
queue's memory, and undecided for that anyway."""


def truncation(series: Sequence[float] | Floats) -> int:
    """How many observations to cut from the start of a series (0 to its length).

    With m = n - d left, the d that minimises `sum((x - mean)**2) / m**2` over them. The whole
    length says that there is no steady part: the cut would lie in the second half.
    """
    values = np.asarray(series, dtype=float)
    count = len(values)
    if count < FEWEST_POINTS:
        return count
    cut = _mser(values)
    return cut if cut <= count // 2 and cut < count - FEWEST_LEFT else count


def steady_from(slices: Sequence[TimeSlice]) -> int | None:
    """The slice from which a load is steady, as far as it has gone; None where it is not yet.

    For a parent that asks again with each slice that comes in, and opens the window when it gets
    an answer: what came before is then warm-up, all of it, so that the window's edges can be fixed
    and the server's counters read there.

    Args:
        slices: the load so far, in time order; those without requests too.
    """
    points, per_point = _points_us(slices)
    if len(points) < FEWEST_POINTS:
        return None
    cut = truncation(points)
    return None if cut == len(points) else cut * per_point


def steady_after(latencies_ms: Sequence[float]) -> int | None:
    """How many requests a cold start takes to become steady; None where it did not.

    A slow first request among hundreds moves no mean, but it is what a cold start is about: those
    that are slower than the rest's median by half count too, up to the first that is not.

    Args:
        latencies_ms: of requests sent one after the other. At one in flight they are not averaged.
    """
    values = np.asarray(latencies_ms, dtype=float)
    cut = truncation(values)
    if cut == len(values):
        return None
    ordinary = values <= STILL_WARM_FACTOR * np.median(values[cut:])
    return max(cut, int(np.argmax(ordinary)))


def still_warming(window: Sequence[TimeSlice]) -> int:
    """How many of a window's first slices belong to a warm-up that outlasted its time; else 0.

    Only a start that is slower than all that follows, by far, is called so: a queue near its limit
    swings by itself, and that is what the bounds are for. Latency that grows is not a warm-up
    either.
    """
    points, per_point = _points_us(window)
    if len(points) < FEWEST_POINTS:
        return 0
    cut = _mser(points)
    if cut < STILL_WARM_POINTS:
        return 0
    start_us, rest_us = float(points[:cut].mean()), points[cut:]
    rest_mean_us, rest_deviation_us = float(rest_us.mean()), float(rest_us.std(ddof=1))
    limit_us = max(
        STILL_WARM_FACTOR * rest_mean_us, rest_mean_us + STILL_WARM_DEVIATIONS * rest_deviation_us
    )
    return cut * per_point if start_us > limit_us else 0


def _mser(values: Floats) -> int:
    """The cut by the marginal standard error, wherever enough is left.

    In noise the least error lies anywhere. So the cut moves back as long as the rest's mean stays
    the same: what it would leave out there is no transient.
    """
    fewest_left = max(FEWEST_LEFT, int(SHARE_LEFT * len(values)))
    tried = len(values) - fewest_left + 1
    left = np.arange(len(values), 0, -1)
    mean = float(values.mean())
    reversed_ = (values - mean)[::-1]  # small numbers lose nothing when squared
    sums, squares = reversed_.cumsum()[::-1], np.square(reversed_).cumsum()[::-1]
    errors = (squares - np.square(sums) / left) / np.square(left)
    rest_means = mean + sums / left
    least = int(np.argmin(errors[:tried]))
    changed = np.abs(rest_means[:least] - rest_means[least]) > NEGLIGIBLE * abs(rest_means[least])
    return int(np.flatnonzero(changed)[-1]) + 1 if changed.any() else 0


def _points_us(slices: Sequence[TimeSlice]) -> tuple[Floats, int]:
    """Mean response latencies of neighbouring slices, and how many slices make a point.

    Points without requests take the value before them: they say nothing new.
    """
    if not slices:
        return np.empty(0), 1
    each = BlockCounts.of([one.ok.response for one in slices], blocks=len(slices))
    per_point = max(1, math.ceil(REQUESTS_A_POINT * len(slices) / max(1, each.answered)))
    points = len(slices) // per_point
    # What is over stands at the end, and waits for its point to fill.
    starts = np.arange(points) * per_point
    whole = slice(0, points * per_point)
    sums = np.add.reduceat(each.block_sums_us[whole], starts) if points else np.empty(0)
    sizes = np.add.reduceat(each.block_answered[whole], starts) if points else np.empty(0)
    filled = np.flatnonzero(sizes)
    if not len(filled):
        return np.empty(0), per_point
    latest = np.maximum.accumulate(np.where(sizes > 0, np.arange(points), filled[0]))
    return sums[latest] / sizes[latest], per_point


_ROUNDING = 1e-9


@dataclass(frozen=True)
class LookSchedule:
    """The looks of one trial, counted from its window's start."""

    shortest_s: float
    """Window of the first look; `longest_s` for a trial that runs its time out."""
    longest_s: float
    """Window of the last look, after which an undecided trial stays so."""
    confidence: float = 0.95
    """Probability (0 to 1) that the whole trial decides nothing wrongly."""

    @cached_property
    def looks(self) -> tuple[float, ...]:
        """Windows in seconds: evenly spaced on a logarithmic scale, at most a factor of 2 apart."""
        if self.shortest_s >= self.longest_s:
            return (self.longest_s,)
        ratio = self.longest_s / self.shortest_s
        steps = math.ceil(math.log2(ratio) - _ROUNDING)
        inner = (self.shortest_s * ratio ** (step / steps) for step in range(steps))
        return (*inner, self.longest_s)

    @property
    def confidence_per_look(self) -> float:
        """Confidence of the two-sided interval that each look judges by."""
        return 1 - (1 - self.confidence) / len(self.looks)

    def next_look(self, elapsed_s: float) -> float | None:
        """The first look after a window of `elapsed_s`; None after the last."""
        return next((look for look in self.looks if look > elapsed_s + _ROUNDING), None)


def seconds_needed(elapsed_s: float, evidence_factor: float | None) -> float | None:
    """Window that would decide, by how many times the present evidence is needed.

    Evidence grows with time, and an interval shrinks with its square root: the factor is that of
    the objective's undecided clause. None where it predicts nothing.
    """
    if evidence_factor is None or not math.isfinite(evidence_factor):
        return None
    return elapsed_s * max(1.0, evidence_factor)
