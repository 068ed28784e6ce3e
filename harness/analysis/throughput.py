"""Confidence bounds of a throughput, and how far failures come in bursts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness import hdr
from harness.analysis.percentiles import (
    BLOCKS,
    CLOSED_ROOM,
    CYCLES_A_BLOCK,
    FEWEST_DEGREES,
    ar1_inflation,
    autocorrelation,
)
from harness.types import ArrivalKind, LoadMode, ShapeKind, TimeSlice, Workload


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


STEEPEST = 1.5
"""Slope of the regression of a step from 0 to 1 in the midst of a window of length 1."""
LONG_MEMORY = 2.0
"""Ratio of the residuals' variance to that of independent ones from which the swing counts
instead."""
_FEWEST_BLOCKS = 4
_ROUNDING = 1e-9
"""Relative differences of rates that are but rounding."""

Floats = NDArray[np.float64]
Bounds = tuple[float, float]


def throughput_bounds(
    window: Sequence[TimeSlice],
    slice_s: float,
    workload: Workload,
    *,
    confidence: float,
    mean_ms: float | None,
) -> Bounds | None:
    """Two-sided bounds of the inferences per second; None where the window is too short for any.

    Args:
        window: slices of one steady state, in time order.
        slice_s: the length of each.
        workload: that was asked for.
        confidence: of the interval.
        mean_ms: mean latency; None where nothing was answered.
    """
    blocks = min(BLOCKS, len(window))
    requests = sum(one.completed for one in window)
    if blocks < _FEWEST_BLOCKS or mean_ms is None or not requests:
        return None
    seconds = _by_block([slice_s] * len(window), blocks)
    answered = _by_block([one.inferences for one in window], blocks)
    rows = float(answered.sum()) / requests
    if workload.load_mode is LoadMode.CLOSED:
        memory_s = mean_ms / 1e3 if workload.keeps_in_flight else math.inf
        found = _of_blocks(answered / seconds, float(seconds.min()), confidence, memory_s)
    else:
        lost = _by_block([rows * _lost(one) for one in window], blocks)
        due = lost + _by_block([rows * hdr.total(one.ok.response) for one in window], blocks)
        nominal = nominal_per_s(workload)
        asked = float(due.sum() / seconds.sum()) if nominal is None else nominal * rows
        found = _of_open(_Blocks(due, lost, answered, seconds), asked, confidence)
    if found is None:
        return None
    value, length_s = float(answered.sum() / seconds.sum()), float(seconds.sum())
    one_request = rows / length_s  # whichever side of the window's edge it came to
    return max(0.0, min(found[0], value - one_request)), max(found[1], value + one_request)


def rate_bounds(
    counts: Sequence[int],
    slice_s: float,
    *,
    confidence: float,
    due: Sequence[int] = (),
    nominal_per_s: float | None = None,
) -> Bounds | None:
    """Two-sided bounds of how often something happens a second, by batch means.

    Args:
        counts: how often in each slice, in time order.
        slice_s: the length of each.
        confidence: of the interval.
        due: requests that were scheduled in each slice, where the counts are of these; with
            `nominal_per_s` the share of them is bounded, and not the noise of their arrivals.
        nominal_per_s: the rate at which an open loop's requests fall due.

    Returns:
        None where the window is too short for any.
    """
    blocks = min(BLOCKS, len(counts))
    if blocks < _FEWEST_BLOCKS:
        return None
    if not any(counts):  # none of a Poisson process bounds its rate by -ln(tail) over the time
        return 0.0, -math.log((1 - confidence) / 2) / (len(counts) * slice_s)
    counted, seconds = _by_block(counts, blocks), _by_block([slice_s] * len(counts), blocks)
    one = 1 / float(seconds.sum())
    if nominal_per_s is None or not due:
        found, value = _of_rates(counted / seconds, confidence), float(counted.sum()) * one
    else:
        share = _share_bounds(counted, _by_block(due, blocks), confidence)
        found = share and (share[0] * nominal_per_s, min(share[1], 1.0) * nominal_per_s)
        value = float(counted.sum()) * one
    if found is None:
        return None
    return max(0.0, min(found[0], value - one)), max(found[1], value + one)


def nominal_per_s(workload: Workload) -> float | None:
    """The rate of an open loop's requests; None where it has no single one.

    Of conversations only the first turns fall due at the loop's rate.
    """
    arrivals, generation = workload.arrivals, workload.generation
    if arrivals.kind is ArrivalKind.TRACE or arrivals.shape.kind is not ShapeKind.FLAT:
        return None
    if generation is not None and generation.converses:
        return None
    return workload.rate_per_s


@dataclass(frozen=True)
class _Blocks:
    """Samples (rows of requests) in each block of the window: (blocks,) each."""

    due: Floats
    lost: Floats
    """How many of those due failed, were left by their clients, or were never sent."""
    answered: Floats
    seconds: Floats


def _by_block(values: Sequence[float], blocks: int) -> Floats:
    place = np.arange(len(values)) * blocks // len(values)
    sums: Floats = np.bincount(place, np.asarray(values, dtype=np.float64)).astype(np.float64)
    return sums


def _lost(one: TimeSlice) -> int:
    """What fell due in a slice and is never answered; a client that leaves has no answer either."""
    return sum(one.failures.values()) + one.dropped + one.streams.left


def _of_blocks(rates: Floats, block_s: float, confidence: float, memory_s: float) -> Bounds | None:
    """Of a closed loop, with its clear cases; `memory_s` is how long it remembers."""
    found = _of_rates(rates, confidence)
    if len(rates) < BLOCKS or block_s < CYCLES_A_BLOCK * memory_s:
        return found
    clear = float(rates.min()) / CLOSED_ROOM, float(rates.max()) * CLOSED_ROOM
    return clear if found is None else (max(found[0], clear[0]), min(found[1], clear[1]))


def _of_rates(rates: Floats, confidence: float) -> Bounds | None:
    count, mean = len(rates), float(rates.mean())
    deviations = rates - mean
    if float(np.abs(deviations).max()) <= _ROUNDING * abs(mean):  # no memory is to be read of that
        return mean, mean
    variance = float(np.square(deviations).sum()) / (count - 1) / count
    half = _half(deviations, variance, confidence)
    return None if half is None else (mean - half, mean + half)


def _share_bounds(counted: Floats, due: Floats, confidence: float) -> Bounds | None:
    """Of what fell due, the share that was counted; that all were does not show that all will be.

    For all of n the lower bound is Clopper and Pearson's: where it is less, so many are all right
    by chance.
    """
    if counted.sum() < due.sum():
        return _of_rates(_shares(counted, due), confidence)
    return ((1 - confidence) / 2) ** (1 / float(due.sum())), 1.0


def _shares(counted: Floats, due: Floats) -> Floats:
    """(blocks,) values whose mean is the share of all that fell due, and whose spread is its own.

    A ratio, linearised (Cochran, Sampling Techniques, 3rd ed., section 6.3): blocks weigh as much
    as falls due in them, and one in which nothing does says nothing.
    """
    total = float(due.sum())
    if not total:
        return np.zeros_like(due)
    share = float(counted.sum()) / total
    shares: Floats = share + len(due) / total * (counted - share * due)
    return shares


def _of_open(blocks: _Blocks, asked_per_s: float, confidence: float) -> Bounds | None:
    """What is asked for a second, less what is lost of it and what the backlog grows by."""
    kept = _of_rates(1 - _shares(blocks.lost, blocks.due), confidence)
    backlog = np.concatenate([[0.0], np.cumsum(blocks.due - blocks.lost - blocks.answered)])
    growth = _growth(backlog, blocks.seconds, confidence)
    if growth is None or kept is None:  # what is answered is all that there can be
        return _of_rates(blocks.answered / blocks.seconds, confidence)
    return kept[0] * asked_per_s - growth[1], kept[1] * asked_per_s - growth[0]


def _growth(backlog: Floats, seconds: Floats, confidence: float) -> Bounds | None:
    """How fast the backlog grows from block to block, per second; None where it surely grows."""
    at_s = np.concatenate([[0.0], np.cumsum(seconds)])
    at_s -= at_s.mean()
    spread = float(np.square(at_s).sum())
    growth = float(at_s @ backlog) / spread
    residuals = backlog - backlog.mean() - growth * at_s
    variance = float(np.square(residuals).sum()) / (len(backlog) - 2) / spread
    half = _half(residuals, variance, confidence)
    if half is not None and growth > half:
        return None
    # A backlog that stays within its swing makes a regression no steeper than this.
    steepest = STEEPEST * float(np.ptp(backlog)) / float(seconds.sum())
    if half is None or ar1_inflation(autocorrelation(residuals)) > LONG_MEMORY:
        half = steepest
    half = min(half, steepest)
    return growth - half, growth + half


def _half(deviations: Floats, variance: float, confidence: float) -> float | None:
    """Half an interval of an estimate with this variance, were the blocks independent.

    None where they remember each other for as long as the window.
    """
    larger = ar1_inflation(autocorrelation(deviations))
    degrees = len(deviations) / larger - 1
    if degrees < FEWEST_DEGREES:
        return None
    return float(special.stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(variance * larger)
