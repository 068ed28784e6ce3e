r"""Shapes: a load that changes over time, as a factor of the nominal one.

    ramp          step          spike         sine
       ____          ____         _
      /             |            | |          .-.
    _/          ____|         ___| |___     _/   \_
    0  P        0   P         0       P     0      P

With `P` the period, `low` and `high` the factors:

- flat: 1, for ever.
- ramp: from `low` to `high` over `P`, in a straight line; `high` from then on.
- step: `low` for `P`; `high` from then on.
- spike: `low`, but `high` in the middle tenth, from 0.45 P to 0.55 P; again every `P`.
- sine: (low + high) / 2 - (high - low) / 2 * cos(2 pi t / P); again every `P`. It starts at `low`:
  a day that starts at night.

`harness/load/schedule/arrivals.py` uses the factor on the rate of an open loop, a Locust
`LoadTestShape` on the users of a closed one.
"""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.types import LoadShape, ShapeKind

MOST_PER_S = 1_000_000
"""More than any client sends; beyond it the dispatcher could not even count what it drops."""
SPIKE_FROM = 0.45
"""Share of the period after which the spike begins."""
SPIKE_TO = 0.55
_CELLS = 2000
"""Cells of a period in which the rate is held constant when a time is looked up. The spike's edges
are edges of cells."""
_REPEATED = {ShapeKind.SPIKE, ShapeKind.SINE}


def peak(shape: LoadShape) -> float:
    """The largest factor it ever has."""
    return 1.0 if shape.kind is ShapeKind.FLAT else max(shape.low, shape.high)


@overload
def level(shape: LoadShape, elapsed_s: float) -> float: ...
@overload
def level(shape: LoadShape, elapsed_s: NDArray[np.float64]) -> NDArray[np.float64]: ...
def level(shape: LoadShape, elapsed_s: ArrayLike) -> float | NDArray[np.float64]:
    """The factor at a time from the load's start, or at many."""
    elapsed = np.asarray(elapsed_s, dtype=np.float64)
    share = elapsed / shape.period_s
    phase = share % 1.0
    rise = shape.high - shape.low
    match shape.kind:
        case ShapeKind.FLAT:
            factor = np.ones_like(share)
        case ShapeKind.RAMP:
            factor = shape.low + rise * np.clip(share, 0.0, 1.0)
        case ShapeKind.STEP:
            factor = np.where(share < 1.0, shape.low, shape.high)
        case ShapeKind.SPIKE:
            inside = (phase >= SPIKE_FROM) & (phase < SPIKE_TO)
            factor = np.where(inside, shape.high, shape.low)
        case ShapeKind.SINE:
            factor = shape.low + rise * (1.0 - np.cos(2 * np.pi * phase)) / 2
    return factor if factor.ndim else float(factor)


def nominal_seconds(shape: LoadShape, elapsed_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many seconds of the nominal load the shape has let through: the integral of `level`."""
    if shape.kind is ShapeKind.FLAT:
        return np.asarray(elapsed_s, dtype=np.float64)
    whole = np.floor(elapsed_s / shape.period_s)
    period = _within_period(shape, 1.0) * shape.period_s
    if shape.kind in _REPEATED:
        rest = _within_period(shape, elapsed_s / shape.period_s - whole)
        return whole * period + rest * shape.period_s
    inside = _within_period(shape, np.minimum(elapsed_s / shape.period_s, 1.0)) * shape.period_s
    return np.asarray(inside + shape.high * np.maximum(elapsed_s - shape.period_s, 0.0))


def elapsed_at(shape: LoadShape, nominal_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """When the shape has let so much through: the inverse of `nominal_seconds`.

    Infinite where it never does, after a ramp or step to 0.
    """
    if shape.kind is ShapeKind.FLAT:
        return np.asarray(nominal_s, dtype=np.float64)
    edges_s = np.linspace(0.0, shape.period_s, _CELLS + 1)
    through_s = nominal_seconds(shape, edges_s)
    period = through_s[-1]
    if shape.kind in _REPEATED:
        whole, rest = np.divmod(nominal_s, period)
        return np.asarray(whole * shape.period_s + np.interp(rest, through_s, edges_s))
    inside = np.interp(nominal_s, through_s, edges_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        after = shape.period_s + (nominal_s - period) / shape.high
    return np.asarray(np.where(nominal_s <= period, inside, after))


def _within_period(shape: LoadShape, share: ArrayLike) -> NDArray[np.float64]:
    """Integral of the factor over the first period, from 0 to a share of it, in periods."""
    share = np.asarray(share, dtype=np.float64)
    rise = shape.high - shape.low
    match shape.kind:
        case ShapeKind.RAMP:
            extra = share**2 / 2
        case ShapeKind.SPIKE:
            extra = np.clip(share - SPIKE_FROM, 0.0, SPIKE_TO - SPIKE_FROM)
        case ShapeKind.SINE:
            extra = (share - np.sin(2 * np.pi * share) / (2 * np.pi)) / 2
        case _:
            extra = np.zeros_like(share)
    return np.asarray(shape.low * share + rise * extra)
