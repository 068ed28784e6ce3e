"""How much a scraped counter grew between two instants, from its raw samples.

A counter is known at its scrapes only, and a window's edges lie between two of them. Inside the
window the samples' own differences are taken. From an edge to the nearest scrape inside, the
counter is taken to have grown as fast as in the scrape interval that follows it there, and never
by more than it grew up to the scrape on the edge's other side. (Prometheus' `increase()`
extrapolates too, by the mean rate and without that bound.) Under a steady load this is exact but
for chance; whatever the load did, it errs by no more than `Increase.uncertainty`: what the
counter grew by in the two scrape intervals that hold the edges.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

FEWEST_SCRAPES = 2
"""Inside the window: one sample tells no rate."""
LATE_SCRAPES = 1.5
"""Scrape intervals beyond which a scrape near an edge is not late but missing."""


@dataclass(frozen=True)
class Series:
    """One series' raw samples, in order of time."""

    labels: Mapping[str, str] = field(default_factory=dict)
    times_s: tuple[float, ...] = ()
    """When each was scraped, by Prometheus' clock (Unix time)."""
    values: tuple[float, ...] = ()

    @property
    def interval_s(self) -> float | None:
        """Between scrapes, the median; None of fewer than two."""
        gaps_s = [later - sooner for sooner, later in pairwise(self.times_s)]
        return median(gaps_s) if gaps_s else None


@dataclass(frozen=True)
class Increase:
    """What a counter grew by over a window."""

    value: float
    uncertainty: float = 0.0
    """At most how far it may be off."""
    reset: bool = False
    """The counter was reset inside the window: then the value is worth nothing."""


def problem_of(series: Series, start_s: float, end_s: float) -> str:
    """Why a window's increase cannot be told from these samples; empty where it can."""
    first, last = _inside(series, start_s, end_s)
    window = f"the window of {end_s - start_s:.1f} s"
    interval_s = series.interval_s
    every = f", one every {interval_s:.3g} s" if interval_s else ""
    if last - first < FEWEST_SCRAPES:
        count = {0: "no scrape", 1: "one scrape"}[last - first]
        return f"{window} holds {count} of Prometheus{every}: it takes two"
    assert interval_s is not None  # noqa: S101  (two scrapes lie inside)
    late_s = LATE_SCRAPES * interval_s
    begins_s = series.times_s[first] - start_s
    if first == 0 and begins_s > late_s:
        return f"Prometheus' samples begin {begins_s:.1f} s into {window}"
    ends_s = end_s - series.times_s[last - 1]
    if last == len(series.times_s) and ends_s > late_s:
        return f"Prometheus' samples end {ends_s:.1f} s before {window} does"
    return ""


def increase(series: Series, start_s: float, end_s: float) -> Increase:
    """What a counter grew by from one instant to another.

    A fall between the scrape before the window and the first inside it is taken to lie before
    the window: that is where the harness loads models.

    Args:
        series: a counter's, of which `problem_of` has nothing to say.
        start_s: Unix time, as is the end.
        end_s: after the start.
    """
    first, last = _inside(series, start_s, end_s)
    times_s, values = series.times_s, series.values
    steps = [later - sooner for sooner, later in pairwise(values[first:last])]
    if any(step < 0 for step in steps):
        return Increase(0.0, reset=True)
    fell_before = first == 0 or values[first - 1] > values[first]
    most_before = values[first] - (0.0 if fell_before else values[first - 1])
    before = _at_edge(
        steps[0] / (times_s[first + 1] - times_s[first]) * (times_s[first] - start_s), most_before
    )
    known_after = last < len(values) and values[last] >= values[last - 1]
    most_after = values[last] - values[last - 1] if known_after else None
    after = _at_edge(
        steps[-1] / (times_s[last - 1] - times_s[last - 2]) * (end_s - times_s[last - 1]),
        most_after,
    )
    return Increase(sum(steps) + before.value + after.value, before.uncertainty + after.uncertainty)


def last_inside(series: Series, start_s: float, end_s: float) -> float | None:
    """A gauge as of the last scrape inside a window; None without one."""
    first, last = _inside(series, start_s, end_s)
    return series.values[last - 1] if last > first else None


def _inside(series: Series, start_s: float, end_s: float) -> tuple[int, int]:
    """Where the samples inside a window begin, and end."""
    return bisect_left(series.times_s, start_s), bisect_right(series.times_s, end_s)


def _at_edge(expected: float, most: float | None) -> Increase:
    if most is None:
        return Increase(expected, expected)
    value = min(expected, most)
    return Increase(value, max(value, most - value))
