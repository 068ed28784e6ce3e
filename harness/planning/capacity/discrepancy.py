"""What a fitted model still misses of its open loops, as a function of the load.

The logarithm of measured over predicted is taken for a Gaussian process over the share of
saturation, plus the scatter between two measurements of one load (Kennedy and O'Hagan, *Bayesian
calibration of computer models*, JRSS B 63, 2001). With a few trials neither the size of the
deviation nor that of the scatter is known, so several of each are averaged by their likelihood:
where the trials agree on a deviation the prediction follows them, where they scatter it stays and
its interval is wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from harness.planning.capacity.checks import TrialCheck

Floats = NDArray[np.float64]

FEWEST = 2
"""Open loops from which on there is something to follow."""
_REACH = 0.4
"""How far along the share of saturation a deviation carries over before it fades."""
_DEVIATIONS = (0.0, 0.1, 0.2, 0.4, 0.8)
_SCATTERS = (0.05, 0.1, 0.2, 0.4, 0.8)
_COMMON = (0.0, 1.0)
"""Whether the deviation is the same at every load (1) or fades with the distance (0)."""


@dataclass(frozen=True)
class Discrepancy:
    """For one statistic, the ratio of what open loops measured to what the model says."""

    shares: tuple[float, ...]
    """Share of saturation of each open loop."""
    logs: tuple[float, ...]
    """Logarithms of measured over predicted."""

    def at(self, share: float) -> tuple[float, float]:
        """The logarithm to add at a load, and the deviation of one measurement about it."""
        places, logs = np.array(self.shares), np.array(self.logs)
        means, squares, weights = [], [], []
        for size, scatter, common in product(_DEVIATIONS, _SCATTERS, _COMMON):
            known = size**2 * _alike(places, places, common) + scatter**2 * np.eye(len(places))
            across = size**2 * _alike(np.array([share]), places, common)[0]
            solved = np.linalg.solve(known, np.column_stack((logs, across)))
            means.append(float(across @ solved[:, 0]))
            squares.append(size**2 - float(across @ solved[:, 1]) + scatter**2)
            _, volume = np.linalg.slogdet(known)
            weights.append(-0.5 * float(logs @ solved[:, 0]) - 0.5 * float(volume))
        likely = np.exp(np.array(weights) - max(weights))
        mean = float(np.average(means, weights=likely))
        square = float(
            np.average(np.array(squares) + (np.array(means) - mean) ** 2, weights=likely)
        )
        return mean, float(np.sqrt(square))


def _alike(these: Floats, those: Floats, common: float) -> Floats:
    """Correlation of the deviations at two loads each, shape (these, those)."""
    apart = (these[:, None] - those[None, :]) / _REACH
    return np.asarray(common + (1 - common) * np.exp(-0.5 * apart**2))


def discrepancies(
    checks: Sequence[tuple[float, TrialCheck]],
) -> dict[str, Discrepancy]:
    """By statistic, the discrepancy fitted to open loops, each with its share of saturation.

    Empty where there are fewer than `FEWEST`.
    """
    checks = [(share, check) for share, check in checks if check]
    if len(checks) < FEWEST:
        return {}
    names = {name for _, check in checks for name in check}
    return {
        name: Discrepancy(
            tuple(share for share, check in checks if name in check),
            tuple(float(np.log(c[name][0] / c[name][1])) for _, c in checks if name in c),
        )
        for name in names
    }
