"""Latencies: histograms of them, and their percentiles with bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SparseHistogram:
    """How often each latency was seen, in HDR buckets of microseconds (`harness.hdr`)."""

    buckets: tuple[int, ...] = ()
    """Bucket indices that hold something, ascending."""
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Latencies:
    """The three spans of the requests of one outcome."""

    schedule_delay: SparseHistogram = SparseHistogram()
    """Sent - scheduled."""
    service: SparseHistogram = SparseHistogram()
    """Completed - sent."""
    response: SparseHistogram = SparseHistogram()
    """Completed - scheduled: the latency that counts."""


@dataclass(frozen=True)
class Percentile:
    """A quantile of latency with its confidence interval."""

    value_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class ServiceLatency:
    """Latency from the actual send: what most load testers report, for comparison only."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class LatencySummary:
    """Latency from the scheduled time, over the requests that succeeded."""

    count: int
    mean_ms: float
    min_ms: float
    max_ms: float
    percentiles: Mapping[str, Percentile]
    """By name: p50, p90, p95, p99."""
    confidence: float
    design_effect: float
    """How many requests count as one independent sample (1 = all independent)."""
    mean_low_ms: float | None = None
    """Confidence bounds of the mean by batch means; None from a single block."""
    mean_high_ms: float | None = None
