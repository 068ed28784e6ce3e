"""What was asked of the server, in words: so many in flight, or requests at a rate."""

from __future__ import annotations

from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    LoadShape,
    ShapeKind,
    TrialResult,
    Workload,
)
from harness.types.limits import lost_share
from harness.words.numbers import MISSING, count, number, percent, span

_KINDS = {
    ArrivalKind.CONSTANT: "constant",
    ArrivalKind.POISSON: "Poisson",
    ArrivalKind.GAMMA: "gamma",
    ArrivalKind.TRACE: "trace",
}


def is_open(workload: Workload) -> bool:
    """Whether requests fall due whatever the server does."""
    return workload.load_mode is LoadMode.OPEN


def throughput_span(result: TrialResult) -> str:
    """Bounds of the inferences per second; empty where there are none."""
    return span(
        number(result.throughput_low_inferences_per_s),
        number(result.throughput_high_inferences_per_s),
    )


def load_words(workload: Workload) -> str:
    """`16 in flight`, `250 req/s Poisson` or `trace monday`."""
    amount, kind = load_parts(workload)
    return f"{amount} {kind}".strip()


def load_parts(workload: Workload) -> tuple[str, str]:
    """How much and of what: (`16`, `in flight`), (`250`, `req/s Poisson`), (``, `trace monday`)."""
    if not is_open(workload):
        return f"{workload.concurrency:,}", "in flight"
    arrivals = arrival_words(workload.arrivals)
    if workload.rate_per_s is None:
        return "", arrivals
    return rate(workload.rate_per_s), f"req/s {arrivals}"


def load_label(workload: Workload) -> str:
    """Where there is little room: `c16`, `250/s` or `trace`."""
    if not is_open(workload):
        return f"c{workload.concurrency}"
    return "trace" if workload.rate_per_s is None else f"{rate(workload.rate_per_s)}/s"


def load_amount(workload: Workload) -> float:
    """What loads of one kind are ordered by."""
    return (workload.rate_per_s or 0.0) if is_open(workload) else float(workload.concurrency)


def arrival_words(process: ArrivalProcess) -> str:
    """`Poisson`, `gamma (variation 2)`, `trace monday`, each with its shape."""
    words = _KINDS[process.kind]
    if process.kind is ArrivalKind.GAMMA:
        words += f" (variation {process.burstiness_cv:g})"
    if process.trace is not None:
        words += f" {process.trace.stem}"
    return words if process.shape.kind is ShapeKind.FLAT else f"{words}, {_shape(process.shape)}"


def _shape(shape: LoadShape) -> str:
    return f"{shape.kind} {shape.low:g} to {shape.high:g} over {shape.period_s:g} s"


def rate(rate_per_s: float) -> str:
    """A rate that somebody asked for, as exact as it was asked."""
    return f"{rate_per_s:,.10g}"


def asked_rate(workload: Workload) -> float | None:
    """The one rate that is asked for over the whole load; None in a closed loop, trace or shape."""
    flat = workload.arrivals.shape.kind is ShapeKind.FLAT
    return workload.rate_per_s if is_open(workload) and flat else None


def offered_words(workload: Workload, offered_per_s: float) -> str:
    """What fell due, against what was asked for where that is one rate."""
    asked = asked_rate(workload)
    of = f" of {rate(asked)}" if asked is not None else ""
    return f"{number(offered_per_s)}{of} req/s"


def cached_words(result: TrialResult) -> str:
    """How many requests the response cache answered, of how many; missing where nobody tells."""
    hits, requests = result.server.from_cache, result.server.requests
    if hits is None:
        return MISSING
    if not requests:
        return f"answered {count(hits)}"
    return f"answered {count(hits)} of {count(requests)} ({percent(hits / requests)})"


def lost_words(result: TrialResult) -> str:
    """How much of the server's time others took, and who; empty where nobody tells."""
    lost, host = lost_share(result.host, result.in_flight_mean), result.host
    if lost is None:
        return ""
    words = f"{percent(lost)} of its time; other processes used {number(host.foreign_cpu)} cores"
    return words + (f", steal {percent(host.cpu_steal)}" if host.cpu_steal else "")
