"""Synthetic evidence, shaped like measured ones, for the sample run."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from harness.runs.series import MEASURED, WARM_UP, LoadSeries, SecondPoint, SlicePoint
from harness.types import (
    SERVICE,
    ColdStart,
    LatencySummary,
    Percentile,
    ServingConfig,
    TrialResult,
)

SLICE_S = 0.05
FIRST_UTC = datetime(2026, 11, 23, 14, 3, tzinfo=UTC)


def with_evidence(result: TrialResult, place: int) -> TrialResult:
    """Add what the load generators say of themselves and of the send; a trial every 4 s."""
    assert result.latency is not None
    return replace(
        result,
        started_utc=(FIRST_UTC + timedelta(seconds=4 * place)).isoformat(),
        warmup_s=0.45,
        offered_requests_per_s=result.throughput_requests_per_s,
        latencies={**result.latencies, SERVICE: scaled(result.latency, 0.99)},
        loop_lag_p99_ms=0.42,
        in_flight_mean=0.99 * result.trial.workload.concurrency,
    )


def scaled(summary: LatencySummary, *factors: float) -> LatencySummary:
    """The same latencies so many times as long; one factor for p50, p90, p95, p99, or one each."""
    each = dict(zip(summary.percentiles, factors * (4 // len(factors)), strict=True))
    return replace(
        summary,
        mean_ms=factors[0] * summary.mean_ms,
        percentiles={
            name: Percentile(*(each[name] * value for value in (p.value_ms, p.low_ms, p.high_ms)))
            for name, p in summary.percentiles.items()
        },
    )


def series_of(result: TrialResult) -> LoadSeries:
    """A latency that falls to the trial's own mean within its warm-up, then varies about it."""
    assert result.latency is not None
    noise = random.Random(result.trial.trial_id)
    slices = []
    for index in range(round((result.warmup_s + result.duration_s) / SLICE_S)):
        start_s = index * SLICE_S
        cold = 2.5 * math.exp(-start_s / 0.12)
        mean_ms = result.latency.mean_ms * (1 + cold) * noise.uniform(0.93, 1.07)
        phase = WARM_UP if start_s < result.warmup_s - 1e-9 else MEASURED
        slices.append(SlicePoint(start_s, phase, mean_ms))
    return LoadSeries(tuple(slices), _seconds(result, noise))


def _seconds(result: TrialResult, noise: random.Random) -> tuple[SecondPoint, ...]:
    assert result.latency is not None
    seconds = [SecondPoint(0.0, result.warmup_s, WARM_UP, 0.0, None, None, None)]
    for index in range(math.ceil(result.duration_s)):
        factor = noise.uniform(0.96, 1.04)
        spans = (result.latency.percentiles[name].value_ms for name in ("p50", "p95", "p99"))
        seconds.append(
            SecondPoint(
                result.warmup_s + index,
                min(1.0, result.duration_s - index),
                MEASURED,
                result.throughput_inferences_per_s / factor,
                *(span * factor for span in spans),
            )
        )
    return tuple(seconds)


def cold_start_of(variant: str, digest: str, serving: ServingConfig, steady_ms: float) -> ColdStart:
    """A cold start whose first request takes six times as long; int8 variants never settle."""
    settles = not variant.endswith("int8")
    return ColdStart(
        variant=variant,
        sha256=digest,
        serving=serving,
        load_s=1.31,
        first_request_ms=6 * steady_ms,
        requests=300,
        steady_after_requests=38 if settles else None,
        steady_after_s=0.21 if settles else None,
        steady_ms=steady_ms if settles else None,
    )
