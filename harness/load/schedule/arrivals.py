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
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.load.schedule.shapes import MOST_PER_S, elapsed_at, peak
from harness.load.schedule.trace import read_trace
from harness.types import ArrivalKind, ArrivalProcess, LoadMode, Workload
from harness.types.workloads import check_burstiness, check_mix, check_shape
from harness.words.numbers import asked, count, seconds

CHUNK = 4096
"""Arrivals drawn at a time: what is in memory of a load that may have millions."""
_STREAM = 1
"""Keeps the arrivals' random numbers apart from those of the payloads, drawn by the same seed."""
_ROUNDING = 1e-9
"""Share of a trace's length that is but rounding: 1,000 arrivals every 60 ms last a minute."""


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


def check_workload(workload: Workload) -> None:
    """Refuse a workload that nothing can be measured with.

    Raises:
        UsageError: the first thing that is wrong with it; `DataError` where it is the trace file.
    """
    _check_durations(workload)
    if workload.concurrency < 1:
        raise UsageError(f"{workload.concurrency} requests in flight: at least one is needed")
    if workload.seed < 0:
        raise UsageError(f"a seed of {workload.seed}: it must be 0 or more")
    _check_mixes(workload)
    check_shape(workload.arrivals.shape)
    if workload.load_mode is LoadMode.OPEN:
        _check_open_loop(workload)
    elif workload.rate_per_s is not None:
        raise UsageError(
            f"a closed loop at {asked(workload.rate_per_s)} requests/s: only an open loop has "
            "a rate",
            next_step="leave the rate out, or ask for an open loop",
        )


def _check_durations(workload: Workload) -> None:
    if not (isfinite(workload.duration_s) and workload.duration_s > 0):
        raise UsageError(f"a duration of {asked(workload.duration_s)} s: it must be above 0")
    if not (isfinite(workload.warmup_s) and workload.warmup_s >= 0):
        raise UsageError(f"a warm-up of {asked(workload.warmup_s)} s: it must be 0 or more")
    shortest_s = workload.min_duration_s
    if shortest_s is None:
        return
    if not shortest_s > 0:
        raise UsageError(f"a shortest duration of {asked(shortest_s)} s: it must be above 0")
    if shortest_s > workload.duration_s:
        raise UsageError(
            f"a shortest duration of {asked(shortest_s)} s in a trial of "
            f"{asked(workload.duration_s)} s",
            next_step="make the duration longer, or its minimum shorter",
        )


def _check_mixes(workload: Workload) -> None:
    largest = workload.client_batch_size
    if largest < 1:
        raise UsageError(f"a client batch size of {largest}: at least one row is needed")
    check_mix("the mix of batch sizes", workload.batch_mix)
    check_mix("the mix of lengths", workload.length_mix)
    mixed = max((size for size, _ in workload.batch_mix), default=largest)
    if mixed != largest:
        raise UsageError(
            f"a mix of batch sizes up to {mixed} with a client batch size of {largest}",
            next_step="with a mix, the client batch size is its largest",
        )


def _check_open_loop(workload: Workload) -> None:
    arrivals, rate_per_s = workload.arrivals, workload.rate_per_s
    if arrivals.kind is ArrivalKind.TRACE:
        _check_trace(workload)
        return
    if rate_per_s is None:
        raise UsageError(
            "an open loop without a rate", next_step="name one, in requests per second, or a trace"
        )
    if not (isfinite(rate_per_s) and rate_per_s > 0):
        raise UsageError(f"a rate of {asked(rate_per_s)} requests/s: it must be above 0")
    peak_per_s = rate_per_s * peak(arrivals.shape)
    if peak_per_s > MOST_PER_S:
        raise UsageError(
            f"a rate of {asked(peak_per_s)} requests/s: at most {count(MOST_PER_S)} can be asked"
        )
    if arrivals.kind is ArrivalKind.GAMMA:
        check_burstiness(arrivals.burstiness_cv)


def _check_trace(workload: Workload) -> None:
    path = workload.arrivals.trace
    if path is None:
        raise UsageError("arrivals of a trace, and no trace file named")
    if workload.rate_per_s is not None or workload.arrivals.shape.kind != "flat":
        raise UsageError(
            f"the trace {path} with a rate or a shape besides",
            next_step="leave both out: a trace has its own",
        )
    trace = read_trace(path, workload.arrivals.trace_unit)
    needed_s = workload.warmup_s + workload.duration_s
    if trace.duration_s < needed_s * (1 - _ROUNDING):
        raise UsageError(
            f"the trace {path} lasts {seconds(trace.duration_s)} s, the trial up to "
            f"{seconds(needed_s)} s with its warm-up",
            next_step="make the duration or the warm-up shorter: where a trace ends, the load ends",
        )
