"""Money from rates: per million answers, per month, and until a distillation has paid for itself.

Every figure is an interval. Where two intervals meet, the bounds are those of the least and the
most favourable combination of both: that is wider than the joint uncertainty, never narrower.
"""

from __future__ import annotations

import math

from harness.types.capacity import Headroom
from harness.types.costs import BreakEven, MachineFleet
from harness.types.estimates import Interval, Pricing

SECONDS_PER_HOUR = 3600.0
HOURS_PER_MONTH = 730.0
"""365 days of 24 hours over 12: what the clouds' own calculators count with."""
MILLION = 1e6


def scaled(rate: Interval, scaling: Interval) -> Interval:
    """A measured rate on another machine; the bounds of both multiply."""
    return Interval(rate.value * scaling.value, rate.low * scaling.low, rate.high * scaling.high)


def usd_per_million(pricing: Pricing, inferences_per_s: Interval) -> Interval:
    """US dollars per million inferences of a machine that is always at this load.

    1,000 inferences/s on a machine at 1 USD per hour are 3.6 million per hour: 0.2778 USD each.

    Args:
        pricing: the machine.
        inferences_per_s: as measured, before the scaling of `pricing`; above 0.

    Returns:
        The cost; infinite above where the rate's lower bound is 0.
    """
    rate = scaled(inferences_per_s, pricing.scaling)
    return Interval(
        _per_million(pricing.usd_per_hour, rate.value),
        _per_million(pricing.usd_per_hour, rate.high),
        _per_million(pricing.usd_per_hour, rate.low),
    )


def _per_million(usd_per_hour: float, per_s: float) -> float:
    return usd_per_hour * MILLION / (per_s * SECONDS_PER_HOUR) if per_s > 0 else math.inf


def per_tokens(usd_per_million_inferences: Interval, tokens_per_inference: float) -> Interval:
    """US dollars per million tokens, from those per million inferences."""
    return times(usd_per_million_inferences, 1 / tokens_per_inference)


def times(amount: Interval, factor: float) -> Interval:
    """An interval times a factor that is not negative."""
    return Interval(amount.value * factor, amount.low * factor, amount.high * factor)


def filled_machines(peak_inferences_per_s: float, rate: Interval) -> Interval:
    """The number of machines that the peak fills, without a spare one.

    Args:
        peak_inferences_per_s: of the demand in its busiest minutes.
        rate: inferences per second of one machine; its bounds above 0.
    """
    return Interval(
        *(_whole(peak_inferences_per_s / one) for one in (rate.value, rate.high, rate.low))
    )


def planned_machines(headroom: Headroom, scaling: Interval) -> Interval:
    """A plan's replicas, one for each machine, on machines of another throughput.

    What carries the peak and what is spare are scaled apart, so that a spare replica stays at
    least one machine: 6 for the peak and 2 spare ones are 3 + 1 machines of twice the throughput.

    Args:
        headroom: the plan's, on the machine that was measured.
        scaling: throughput of the other machine over that of the measured one.
    """
    spare = headroom.recommended - headroom.peak
    return Interval(
        *(
            _whole(headroom.peak / one) + (_whole(spare / one) if spare else 0.0)
            for one in (scaling.value, scaling.high, scaling.low)
        )
    )


def _whole(machines: float) -> float:
    # A quotient that is whole but for rounding (6 / (1 / 3)) is that many.
    return float(max(1, math.ceil(machines - 1e-9)))


def fleet_of(
    mean_inferences_per_s: float, machines: Interval, rate: Interval, usd_per_hour: float
) -> MachineFleet:
    """A fixed fleet, paid for all month.

    Args:
        mean_inferences_per_s: of the demand.
        machines: how many.
        rate: inferences per second of one machine; its bounds above 0.
        usd_per_hour: of one machine.
    """
    return MachineFleet(
        machines,
        times(machines, usd_per_hour * HOURS_PER_MONTH),
        mean_inferences_per_s / (machines.value * rate.value),
    )


def difference(before: Interval, after: Interval) -> Interval:
    """What is saved: `before` less `after`."""
    return Interval(before.value - after.value, before.low - after.high, before.high - after.low)


def share_saved(before: Interval, after: Interval) -> Interval:
    """What is saved as a share of `before`, which is above 0; negative where `after` costs more."""
    return Interval(
        1 - after.value / before.value, 1 - after.high / before.low, 1 - after.low / before.high
    )


def break_even(
    usd_saved_per_month: Interval, invested_usd: float, horizon_months: float
) -> BreakEven:
    """When savings have paid for what was invested.

    1,000 USD that save 250 (200 to 500) USD per month are back after 4 (2 to 5) months.
    """

    def months(saved: float) -> float | None:
        return invested_usd / saved if saved > 0 else None

    roi = None
    if invested_usd > 0:
        gained = times(usd_saved_per_month, horizon_months / invested_usd)
        roi = Interval(gained.value - 1, gained.low - 1, gained.high - 1)
    return BreakEven(
        invested_usd,
        months(usd_saved_per_month.value),
        months(usd_saved_per_month.high),
        months(usd_saved_per_month.low),
        horizon_months,
        roi,
    )
