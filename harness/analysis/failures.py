"""Whether a window's failures come in bursts: how many requests count as one independent one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from harness import hdr
from harness.analysis.intervals import BLOCKS, ar1_inflation, autocorrelation
from harness.types import TimeSlice


def failure_design_effect(window: Sequence[TimeSlice], confidence: float) -> float:
    """The design effect (Kish 1965) of the share of failed and dropped requests, 1 or more.

    The variance of the share, from batch means over the window's blocks, over what independence
    would give; as for the share of slow requests, it is taken to be larger as far as ten blocks
    leave it uncertain, and where the blocks remember each other. 1 where nothing failed, or all.

    Args:
        window: slices in time order.
        confidence: of the interval it is for.
    """
    blocks = min(BLOCKS, len(window))
    if blocks < 2:  # noqa: PLR2004  (one block has no spread)
        return 1.0
    place = np.arange(len(window)) * blocks // len(window)
    lost = np.array([sum(one.failures.values()) + one.dropped for one in window], dtype=np.float64)
    due = lost + [hdr.total(one.ok.response) for one in window]
    lost, due = (np.bincount(place, one).astype(np.float64) for one in (lost, due))
    total = float(due.sum())
    share = float(lost.sum()) / total if total else 0.0
    if share in (0.0, 1.0):
        return 1.0
    residuals = lost - share * due
    variance = blocks / (blocks - 1) * float(np.square(residuals).sum()) / total**2
    effect = ar1_inflation(autocorrelation(residuals)) * variance / (share * (1 - share) / total)
    tail = (1 + confidence) / 2
    unsure = (float(special.stdtrit(blocks - 1, tail)) / float(special.ndtri(tail))) ** 2
    return min(max(1.0, effect) * unsure, total)
