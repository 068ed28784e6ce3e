"""Whether a workload can be driven at all: asked before anything starts."""

from __future__ import annotations

from math import isfinite

from harness.errors import UsageError
from harness.load.schedule.shapes import MOST_PER_S, peak
from harness.load.schedule.trace import read_trace
from harness.types import ArrivalKind, LoadMode, Workload
from harness.types.load_texts import check_burstiness, check_mix, check_shape


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
            f"a closed loop at {workload.rate_per_s:g} requests/s: only an open loop has a rate",
            next_step="leave the rate out, or ask for an open loop",
        )


def _check_durations(workload: Workload) -> None:
    if not (isfinite(workload.duration_s) and workload.duration_s > 0):
        raise UsageError(f"a duration of {workload.duration_s:g} s: it must be above 0")
    if not (isfinite(workload.warmup_s) and workload.warmup_s >= 0):
        raise UsageError(f"a warm-up of {workload.warmup_s:g} s: it must be 0 or more")
    shortest_s = workload.min_duration_s
    if shortest_s is None:
        return
    if not shortest_s > 0:
        raise UsageError(f"a shortest duration of {shortest_s:g} s: it must be above 0")
    if shortest_s > workload.duration_s:
        raise UsageError(
            f"a shortest duration of {shortest_s:g} s in a trial of {workload.duration_s:g} s",
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
        raise UsageError(f"a rate of {rate_per_s:g} requests/s: it must be above 0")
    peak_per_s = rate_per_s * peak(arrivals.shape)
    if peak_per_s > MOST_PER_S:
        raise UsageError(
            f"a rate of {peak_per_s:g} requests/s: at most {MOST_PER_S:,} can be asked"
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
    if trace.duration_s < needed_s:
        raise UsageError(
            f"the trace {path} lasts {trace.duration_s:.4g} s, the trial up to {needed_s:.4g} s "
            f"with its warm-up",
            next_step="make the duration or the warm-up shorter: where a trace ends, the load ends",
        )
