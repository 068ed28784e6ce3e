"""How many replicas still carry a peak when one of them, a zone, or an update takes some away."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.types import ColdStart
from harness.types.capacity import Headroom
from harness.types.estimates import Demand


@dataclass(frozen=True)
class Surroundings:
    """What the replicas live in, and what may happen to them."""

    zones: int = 3
    max_unavailable: float = 0.25
    """0 to 1: of the replicas, those that a rolling update takes away at a time."""
    ramp_s: float = 600.0
    """How long the demand takes from its mean to its peak."""


def cold_start_seconds(start: ColdStart | None) -> float | None:
    """Seconds from the order to load until the steady state; None where either was not measured."""
    if start is None or start.steady_after_s is None:
        return None
    return start.load_s + start.steady_after_s


def headroom(
    demand: Demand, rate_per_s: float, surroundings: Surroundings, cold_start_s: float | None
) -> Headroom:
    """Replicas for the peak, and for what may happen to them.

    Args:
        demand: mean and peak.
        rate_per_s: requests per second that one replica is sure to carry, above 0.
        surroundings: zones (replicas are spread evenly), the rolling update, the rise.
        cold_start_s: until a new replica carries its part; None: not known, counted as the whole
            rise.
    """
    peak = _whole(demand.peak_rate_per_s / rate_per_s)
    zones, away = surroundings.zones, surroundings.max_unavailable
    rise = demand.peak_rate_per_s - demand.rate_per_s
    share = 1.0 if cold_start_s is None else min(1.0, cold_start_s / surroundings.ramp_s)
    return Headroom(
        peak=peak,
        lost_replica=peak + 1,
        lost_zone=_least(peak, lambda count: count - math.ceil(count / zones))
        if zones > 1
        else peak,
        rolling_update=_least(peak, lambda count: count - math.floor(count * away)),
        cold_start=_whole((demand.rate_per_s + share * rise) / rate_per_s),
    )


def _whole(replicas: float) -> int:
    """Rounded up, but not for a rounding error's sake."""
    return max(1, math.ceil(replicas - 1e-9))


def _least(needed: int, left: Callable[[int], int]) -> int:
    """The smallest number of which as many as needed are left, by halving: that never falls."""
    fewest = enough = needed
    while left(enough) < needed:
        fewest, enough = enough + 1, 2 * enough
    while fewest < enough:
        middle = (fewest + enough) // 2
        fewest, enough = (middle + 1, enough) if left(middle) < needed else (fewest, middle)
    return enough
