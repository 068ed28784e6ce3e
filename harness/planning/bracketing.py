"""The highest load that holds, by bracketing and bisection over a ladder of loads: pure functions.

Upwards the load doubles while it holds and still brings throughput; downwards it at least halves;
between the heaviest that held and the lightest that did not it is bisected, to one rung.

In a closed loop two laws save trials (Lazowska et al., Quantitative System Performance, 1984,
chapters 3 and 5). Throughput does not fall as more requests are in flight, so by Little's law N
requests whose latency is s times too long rule out all loads above N / s. And a saturated server
gives no more throughput for more load, only more latency: the search stops there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from harness.planning.assessment import THROUGHPUT_TIE

GROWTH = 0.05
"""A doubled load that adds no more throughput than this has met a saturated server."""
CEILING_SLACK = 1.1
"""What noise and a changing shape of the distribution may add to a ceiling by Little's law."""
INVALID_TRIES = 3
"""So many trials that cannot be trusted, and none that can, end the search of a ladder."""
IN_FLIGHT_RUNGS = 2
RATE_RUNGS = 14
"""Rungs a doubling: rates are found to 5%, requests in flight to the nearest of 1 2 3 4 6 8 11."""


@dataclass(frozen=True)
class Ladder:
    """The loads that may be tried, ascending: requests in flight, or requests a second."""

    loads: tuple[float, ...]
    is_open: bool = False

    @property
    def middle(self) -> float:
        """Where to begin when nothing is known."""
        return self.loads[(len(self.loads) - 1) // 2]

    def at_most(self, load: float) -> float:
        """The highest rung that is no higher than a load; else the lowest."""
        return self.loads[max(0, bisect_right(self.loads, load) - 1)]

    def below(self, load: float) -> float:
        """The next rung down; zero under the lowest."""
        return max((rung for rung in self.loads if rung < load), default=0.0)


@dataclass(frozen=True)
class TriedLoad:
    """What one load told of a ladder."""

    load: float
    holds: bool
    inferences_per_s: float = 0.0
    ceiling: float = math.inf
    """Where it does not hold: heavier loads than this cannot hold either."""
    potential: float = math.inf
    """Where it does not hold: the most inferences/s that a lighter load can give."""
    valid: bool = True


def in_flight_ladder(lowest: int, highest: int) -> Ladder:
    """Geometric, rounded to whole requests; both ends are rungs."""
    rungs = {float(round(load)) for load in _geometric(lowest, highest, IN_FLIGHT_RUNGS)}
    return Ladder(tuple(sorted(rungs)))


def rate_ladder(lowest: float, highest: float) -> Ladder:
    """Geometric in steps of 5%, in three digits; both ends are rungs."""
    rounded = (float(f"{rate:.3g}") for rate in _geometric(lowest, highest, RATE_RUNGS))
    rungs = {lowest, highest, *(rate for rate in rounded if lowest < rate < highest)}
    return Ladder(tuple(sorted(rungs)), is_open=True)


def next_load(ladder: Ladder, probes: Sequence[TriedLoad]) -> float | None:
    """The load to try next, one that was not tried; None once the ladder has told all it can."""
    held = [probe for probe in probes if probe.holds]
    if not held:
        return _lighter(ladder, probes)
    top = max(held, key=lambda probe: probe.load)
    heavier = [probe for probe in probes if probe.load > top.load]
    above = _still_open(ladder, top, heavier)
    if not above or (_saturated(held, heavier) and not ladder.is_open):
        return None
    if heavier:
        return above[len(above) // 2]
    return next((rung for rung in above if rung >= 2 * top.load), above[-1])


def calmer_load(ladder: Ladder, probes: Sequence[TriedLoad]) -> float | None:
    """Half the lightest load that gives all the throughput, to see whether it gives it too.

    None where a lighter load is known, and in an open loop: there half the load is half of it.
    """
    held = [probe for probe in probes if probe.holds]
    if ladder.is_open or not held:
        return None
    most = max(probe.inferences_per_s for probe in held)
    equals = [p.load for p in held if p.inferences_per_s >= (1 - THROUGHPUT_TIE) * most]
    lightest = min(equals)
    if lightest <= ladder.loads[0] or any(probe.load < lightest for probe in probes):
        return None
    return ladder.at_most(lightest / 2)


def potential(probes: Sequence[TriedLoad]) -> float:
    """The most inferences/s that loads which were not tried can still give."""
    return min((probe.potential for probe in probes if not probe.holds), default=math.inf)


def _lighter(ladder: Ladder, probes: Sequence[TriedLoad]) -> float | None:
    """Half the lightest load or less: as much less as its ceiling says."""
    lightest = min(probes, key=lambda probe: probe.load)
    hopeless = len(probes) >= INVALID_TRIES and not any(probe.valid for probe in probes)
    if hopeless or lightest.load <= ladder.loads[0]:
        return None
    return ladder.at_most(min(lightest.ceiling, lightest.load / 2))


def _still_open(ladder: Ladder, top: TriedLoad, heavier: Sequence[TriedLoad]) -> list[float]:
    """Rungs above the heaviest load that held, as far as what did not hold leaves them open."""
    failed_at = min((probe.load for probe in heavier), default=math.inf)
    ceiling = CEILING_SLACK * min((probe.ceiling for probe in heavier), default=math.inf)
    return [rung for rung in ladder.loads if top.load < rung < failed_at and rung <= ceiling]


def _saturated(held: Sequence[TriedLoad], heavier: Sequence[TriedLoad]) -> bool:
    """Whether a load heavier than the heaviest that held promises no more throughput."""
    most = max(probe.inferences_per_s for probe in held)
    if heavier:
        return min(probe.potential for probe in heavier) <= (1 + GROWTH) * most
    ranked = sorted(held, key=lambda probe: probe.load)
    return len(ranked) > 1 and ranked[-1].inferences_per_s <= (1 + GROWTH) * max(
        probe.inferences_per_s for probe in ranked[:-1]
    )


def _geometric(lowest: float, highest: float, rungs_a_doubling: int) -> list[float]:
    steps = math.ceil(rungs_a_doubling * math.log2(highest / lowest))
    between = [lowest * 2 ** (step / rungs_a_doubling) for step in range(1, steps)]
    return [lowest, *between, highest]
