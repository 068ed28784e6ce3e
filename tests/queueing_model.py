"""What a small closed queueing model says of a trial, instead of a server.

N requests in flight, batches joined up to the maximum batch, one service time a batch: latencies
and throughputs bend where real ones do. Seeded by the trial: the same numbers every time.
"""

from __future__ import annotations

import math
import random

from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    Decision,
    HostMetrics,
    LatencySummary,
    Percentile,
    Precision,
    Role,
    ServerMetrics,
    Trial,
    TrialResult,
    WireProtocol,
)

BOUND_MS = 50.0
# name -> (family, role, precision, parameters, megabytes, ms per batch, ms per sample)
MODELS = {
    "topics-teacher-fp32": ("topics", Role.TEACHER, Precision.FP32, 2_140_000, 8.61, 0.9, 1.15),
    "topics-teacher-int8": ("topics", Role.TEACHER, Precision.INT8, 2_140_000, 2.31, 0.8, 0.72),
    "topics-student-fp32": ("topics", Role.STUDENT, Precision.FP32, 581_000, 2.33, 0.5, 0.16),
    "topics-student-int8": ("topics", Role.STUDENT, Precision.INT8, 581_000, 0.66, 0.5, 0.11),
    "topics-tiny-fp32": ("topics", Role.STUDENT, Precision.FP32, 270_000, 1.09, 0.4, 0.07),
    "prose-teacher-fp32": ("prose", Role.TEACHER, Precision.FP32, 921_000, 3.72, 1.0, 2.40),
    "prose-student-fp32": ("prose", Role.STUDENT, Precision.FP32, 331_000, 1.36, 0.7, 0.55),
    "prose-control-fp32": ("prose", Role.CONTROL, Precision.FP32, 331_000, 1.36, 0.7, 0.55),
}
INVALID_REASON = "the load generator was the limit (0.97 of a core): add workers: --workers 2"


def measure(trial: Trial, *, valid: bool = True) -> TrialResult:
    """What the queueing model says of a trial, with seeded noise of a few percent."""
    noise = random.Random(trial.trial_id)
    *_, batch_ms, sample_ms = MODELS[trial.variant]
    size, in_flight = trial.workload.client_batch_size, trial.workload.concurrency
    lanes = trial.serving.instance_count
    joined = max(1, min(math.ceil(in_flight / lanes), trial.serving.max_batch_size // size))
    slowdown = 1.0 if lanes == 1 else 1.35  # two instances share two busy cores
    compute_ms = (batch_ms + sample_ms * joined * size) * slowdown
    rounds = math.ceil(in_flight / (lanes * joined))
    queue_ms = compute_ms * (rounds - 1) * 0.9 + trial.serving.queue_delay_us / 1e4
    client_ms = (0.35 if trial.workload.protocol is WireProtocol.HTTP else 0.25) + 0.02 * in_flight
    mean_ms = (client_ms + queue_ms + compute_ms) * noise.uniform(0.97, 1.03)
    rate = in_flight / mean_ms * 1e3
    requests = int(rate * trial.workload.duration_s)
    p95_ms = mean_ms * noise.uniform(1.25, 1.4)
    return TrialResult(
        trial=trial,
        sha256=digest_of(trial.variant),
        started_utc="2026-11-23T14:03:00+00:00",
        duration_s=trial.workload.duration_s,
        requests=requests,
        failures=0,
        failures_by_kind={},
        throughput_requests_per_s=rate,
        throughput_inferences_per_s=rate * size,
        latencies={RESPONSE: _latency(mean_ms, p95_ms, requests)},
        values_ms={SCHEDULE_DELAY: {"p99": 0.08}},
        generator_cpu=0.97 if not valid else min(0.8, rate * 45e-6),
        server=ServerMetrics(
            requests=requests,
            inferences=requests * size,
            executions=max(1, requests // joined),
            queue_ms=queue_ms,
            compute_input_ms=0.04 * compute_ms,
            compute_infer_ms=0.93 * compute_ms,
            compute_output_ms=0.03 * compute_ms,
            batch_sizes=_batch_sizes(size, joined, requests),
        ),
        host=HostMetrics(cpu_utilization=0.83, server_cpu=1.41, server_memory_bytes=412_000_000),
        valid=valid,
        invalid_reason="" if valid else INVALID_REASON,
        histogram_file=f"histograms/{trial.trial_id}.hdr",
        **_judged(p95_ms, valid=valid),
    )


def _judged(p95_ms: float, *, valid: bool) -> dict[str, object]:
    if not valid:
        return {"decision": Decision.INVALID, "reason": INVALID_REASON}
    low, high = p95_ms * 0.97, p95_ms * 1.04
    interval = f"p95 {p95_ms:.1f} ms (95% interval {low:.1f}\u2013{high:.1f} ms)"
    if low >= BOUND_MS:
        return {"decision": Decision.FAIL, "reason": f"{interval} is over 50 ms"}
    if high >= BOUND_MS:
        return {"decision": Decision.UNDECIDED, "reason": f"{interval} straddles 50 ms"}
    return {"decision": Decision.PASS, "reason": ""}


def _latency(mean_ms: float, p95_ms: float, count: int) -> LatencySummary:
    factors = {"p50": 0.95 * mean_ms, "p90": 0.93 * p95_ms, "p95": p95_ms, "p99": 1.22 * p95_ms}
    return LatencySummary(
        count=count,
        mean_ms=mean_ms,
        min_ms=0.7 * mean_ms,
        max_ms=1.9 * p95_ms,
        percentiles={
            name: Percentile(value, 0.97 * value, 1.04 * value) for name, value in factors.items()
        },
        confidence=0.95,
        design_effect=1.8,
    )


def _batch_sizes(size: int, joined: int, requests: int) -> dict[int, int]:
    executions = max(1, requests // joined)
    if joined == 1:
        return {size: executions}
    stragglers = max(1, executions // 9)
    return {size: stragglers, size * joined: executions - stragglers}


def digest_of(name: str) -> str:
    return f"{abs(hash_of(name)):064x}"


def hash_of(name: str) -> int:
    """A stable number of a name (Python's own hash changes from process to process)."""
    return int.from_bytes(name.encode()[-24:], "big")
