"""Arrivals: when an open loop's requests fall due, fixed in advance and whatever the server does.

There is one sequence a load, the same for the same seed. Of several processes each walks the whole
sequence and keeps its share, so that together they send what one process would have sent.

A load that changes over time is drawn in nominal time, where the rate is constant, and each arrival
then moved to the moment at which the shape has let that much nominal time through (time rescaling;
Cinlar, *Introduction to Stochastic Processes*, 1975, chapter 4). For Poisson arrivals this is
exactly the process of that changing rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.load.schedule.shapes import elapsed_at
from harness.load.schedule.trace import read_trace
from harness.types import ArrivalKind, ArrivalProcess

CHUNK = 4096
"""Arrivals drawn at a time: what is in memory of a load that may have millions."""
_STREAM = 1
"""Keeps the arrivals' random numbers apart from those of the payloads, drawn by the same seed."""


def arrival_times_ns(
    process: ArrivalProcess, *, rate_per_s: float | None, seed: int
) -> Iterator[NDArray[np.int64]]:
    """When requests fall due, in ascending chunks of nanoseconds from the load's start.

    It goes on for ever, except for a trace, which ends with its file, and a shape that ends at 0.
    The first constant arrival falls due half a gap after the start.

    Args:
        process: which kind, and its shape.
        rate_per_s: nominal requests per second; None for a trace.
        seed: the same seed gives the same arrivals.

    Raises:
        UsageError: no rate, and no trace either.
        DataError: the trace file cannot be read.
    """
    if process.kind is ArrivalKind.TRACE:
        if process.trace is None:
            raise UsageError("arrivals of a trace, and no trace file named")
        times_ns = read_trace(process.trace, process.trace_unit).times_ns
        return (times_ns[start : start + CHUNK] for start in range(0, len(times_ns), CHUNK))
    if rate_per_s is None:
        raise UsageError(
            "an open loop without a rate", next_step="name one, in requests per second"
        )
    return _timed(process, rate_per_s, np.random.default_rng([_STREAM, seed]))


def share(
    chunks: Iterable[NDArray[np.int64]], worker: int, workers: int
) -> Iterator[NDArray[np.int64]]:
    """One worker's share of a sequence: arrivals `worker`, `worker + workers` and so on."""
    seen = 0
    for chunk in chunks:
        yield chunk[(worker - seen) % workers :: workers]
        seen += len(chunk)


def _timed(
    process: ArrivalProcess, rate_per_s: float, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    drawn = 0.0
    while True:
        # Counts first, time after: a count of arrivals is nominal time times the rate.
        counts = drawn + np.cumsum(_unit_gaps(process, generator))
        offset = 0.5 if process.kind is ArrivalKind.CONSTANT else 0.0
        elapsed_s = elapsed_at(process.shape, (counts - offset) / rate_per_s)
        reached = elapsed_s[np.isfinite(elapsed_s)]
        yield np.rint(reached * 1e9).astype(np.int64)
        if len(reached) < CHUNK:
            return
        drawn = float(counts[-1])


def _unit_gaps(process: ArrivalProcess, generator: np.random.Generator) -> NDArray[np.float64]:
    """Gaps with a mean of 1."""
    if process.kind is ArrivalKind.CONSTANT:
        return np.ones(CHUNK)
    if process.kind is ArrivalKind.POISSON:
        return generator.standard_exponential(CHUNK)
    variance = process.burstiness_cv**2
    return generator.gamma(shape=1 / variance, scale=variance, size=CHUNK)
