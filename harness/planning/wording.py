"""How numbers and trials read in reasons and summaries."""

from __future__ import annotations

import math

from harness.planning.objective import SHARE_METRICS, SURPRISE_METRICS
from harness.types import Accelerator, Constraint, LoadMode, Trial, WireProtocol, Workload

UNBOUNDED_MS = 3_600_000.0
"""The largest recordable latency; as an upper bound it says that there is none."""
_PROTOCOLS = {WireProtocol.HTTP: "HTTP", WireProtocol.GRPC: "gRPC"}


def number(value: float) -> str:
    """Three significant digits, whole above 1000, with separators: 0.0123, 42.0, 1,430."""
    if not math.isfinite(value):
        return "unbounded"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """A share as a percentage of three significant digits at most: 97.2%, 90%, 0.031%."""
    return f"{share * 100:.3g}%"


def bound(constraint: Constraint) -> str:
    """What a clause asks for: `at least 90%`, `under 50 ms`."""
    words = {"<": "under", "<=": "at most", ">": "over", ">=": "at least"}
    return f"{words[constraint.operator]} {amount(constraint)}"


def amount(constraint: Constraint) -> str:
    """A clause's bound with its unit."""
    metric, value = constraint.metric, constraint.value
    if constraint.relative_to_teacher:
        return relative(metric, value)
    if metric == "throughput":
        return f"{number(value)} inferences/s"
    if metric == "error_rate" or metric in SHARE_METRICS:
        return percent(value)
    return f"{value:g}" if metric in SURPRISE_METRICS else f"{value:g} ms"


def relative(metric: str, factor: float) -> str:
    """A factor of the teacher's value: a percentage of a score, a multiple of a perplexity."""
    return percent(factor) if metric in SHARE_METRICS else f"{factor:.2f}x"


def load(workload: Workload) -> str:
    """What is asked of the server: `4 in flight`, `250 requests/s (poisson)`, `trace-monday`."""
    if workload.load_mode is LoadMode.CLOSED:
        return f"{workload.concurrency} in flight"
    if workload.rate_per_s is None:
        return workload.arrivals.label
    return f"{workload.rate_per_s:,g} requests/s ({workload.arrivals.label})"


def setting(trial: Trial) -> str:
    """A trial's configuration: `gRPC, client batch 16, 4 in flight, max batch 16, 2 instances`."""
    workload, serving = trial.workload, trial.serving
    parts = [
        _PROTOCOLS[workload.protocol],
        f"client batch {workload.client_batch_size}{' at most' if workload.batch_mix else ''}",
        load(workload),
    ]
    if not serving.told:
        return ", ".join([*parts, "as its server has it"])
    parts += [
        f"max batch {serving.max_batch_size}",
        f"{serving.instance_count} instance{'s' if serving.instance_count > 1 else ''}",
    ]
    if serving.queue_delay_us:
        parts.append(f"queue delay {serving.queue_delay_us / 1000:g} ms")
    if serving.intra_op_threads > 1:
        parts.append(f"{serving.intra_op_threads} threads")
    if serving.accelerator is not Accelerator.NONE:
        parts.append(f"accelerator {serving.accelerator}")
    return ", ".join(parts)
