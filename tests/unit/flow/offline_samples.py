"""Closed-loop trials with given throughputs, for the tests of jobs with a deadline."""

from harness.types import (
    HostMetrics,
    ServerMetrics,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)


def base_trial(variant="student"):
    workload = Workload(WireProtocol.HTTP, 4, 8, duration_s=1.0, warmup_s=0.5, seed=0)
    return Trial(variant, "topics", ServingConfig(instance_count=2), workload)


def made_up_result(trial, rate, *, invalid=""):
    return TrialResult(
        trial=trial,
        sha256="ab" * 32,
        started_utc="2026-01-01T00:00:00+00:00",
        duration_s=trial.workload.duration_s,
        requests=100,
        failures=0,
        failures_by_kind={},
        throughput_requests_per_s=rate / trial.workload.client_batch_size,
        throughput_inferences_per_s=rate,
        latencies={},
        generator_cpu=0.3,
        server=ServerMetrics(),
        host=HostMetrics(),
        valid=not invalid,
        invalid_reason=invalid,
        throughput_low_inferences_per_s=0.9 * rate,
        throughput_high_inferences_per_s=1.1 * rate,
    )
