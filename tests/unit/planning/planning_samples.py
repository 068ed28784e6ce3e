"""Trials and scores with given numbers, for the tests of planning."""

from harness.planning.assessment import assess
from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    HostMetrics,
    LatencySummary,
    Percentile,
    QualityScore,
    Role,
    ServerMetrics,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)


def make_trial(variant="student", *, batch=4, concurrency=4, stage="workload", serving=None):
    workload = Workload(WireProtocol.GRPC, batch, concurrency, duration_s=2.0, warmup_s=0.5, seed=0)
    repeat = int(stage == "confirm")
    return Trial(variant, "topics", serving or ServingConfig(), workload, stage, repeat)


def make_result(
    trial=None, *, p95_ms=40.0, width=0.05, rate=1000.0, failures=0, requests=2000, invalid=""
):
    """A result whose p95 is known to +-`width` of itself; `rate` is in inferences per second."""
    trial = trial or make_trial()
    shares = {"p50": 0.5, "p90": 0.9, "p95": 1.0, "p99": 1.4}
    latency = LatencySummary(
        count=requests,
        mean_ms=0.55 * p95_ms,
        min_ms=0.1 * p95_ms,
        max_ms=2 * p95_ms,
        percentiles={
            name: Percentile(
                share * p95_ms, share * p95_ms * (1 - width), share * p95_ms * (1 + width)
            )
            for name, share in shares.items()
        },
        confidence=0.95,
        design_effect=2.0,
        mean_low_ms=0.5 * p95_ms,
        mean_high_ms=0.6 * p95_ms,
    )
    return TrialResult(
        trial=trial,
        sha256="ab" * 32,
        started_utc="2026-01-01T00:00:00+00:00",
        duration_s=trial.workload.duration_s,
        requests=requests,
        failures=failures,
        failures_by_kind={"timeout": failures} if failures else {},
        throughput_requests_per_s=rate / trial.workload.client_batch_size,
        throughput_inferences_per_s=rate,
        throughput_low_inferences_per_s=0.999 * rate,
        throughput_high_inferences_per_s=1.001 * rate,
        latencies={RESPONSE: latency} if requests else {},
        values_ms={SCHEDULE_DELAY: {"p99": 0.1}},
        generator_cpu=0.3,
        server=ServerMetrics(),
        host=HostMetrics(),
        valid=not invalid,
        invalid_reason=invalid,
    )


def make_score(
    variant="student", metric="accuracy", value=0.8, *, width=0.02, relative=None, spread=0.02
):
    return QualityScore(
        variant=variant,
        family="topics",
        role=Role.STUDENT,
        metric=metric,
        value=value,
        low=value - width,
        high=value + width,
        samples=1500,
        sha256="ab" * 32,
        relative_to_teacher=relative,
        relative_low=None if relative is None else relative - spread,
        relative_high=None if relative is None else relative + spread,
    )


def judge_trial(slo, result):
    """The decision on a trial, and why it is not a pass (empty for a pass)."""
    assessment = assess(slo, result)
    return assessment.decision, assessment.reason
