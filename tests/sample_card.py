"""Synthetic report-card entries for the models of `sample_run`."""

from __future__ import annotations

from dataclasses import replace

from queueing_model import MODELS, digest_of
from sample_run import SERVING, sample_run

from harness.runs.folder import StoredRun
from harness.types import LatencySummary, Percentile, Precision, WireProtocol
from harness.types.card import (
    CardEntry,
    CardPlan,
    ColdCalls,
    RepeatedMeasure,
    Runtime,
    ServedEntry,
    ServedPoint,
    ThroughputPoint,
)

PLAN = CardPlan()
BATCHES = (1, 4, 8, 16)
LENGTHS = (8, 16, 32)


def run_with_card(*, served: bool = True) -> StoredRun:
    """The sample run with a card of every model."""
    points = tuple(served_of(name) for name in MODELS) if served else ()
    return replace(sample_run(), card=tuple(entries()), served=points)


def entries() -> list[CardEntry]:
    found, seen = [], set()
    for name in MODELS:
        source = name.rsplit("-", 1)[0]
        if source not in seen:
            seen.add(source)
            found.append(_entry(name, source, Runtime.PYTORCH, 2.2))
        found.append(_entry(name, name, Runtime.ONNX_RUNTIME, 1.0))
    return found


def served_of(name: str) -> ServedEntry:
    points = tuple(
        ServedPoint(
            protocol=WireProtocol.HTTP,
            batch_size=batch,
            in_flight=1,
            serving=SERVING,
            latency=latency_of(_call_ms(name, batch) + 0.4),
            throughput_per_s=1e3 * batch / (_call_ms(name, batch) + 0.4),
            valid=True,
            invalid_reason="",
        )
        for batch in BATCHES
    )
    return ServedEntry(name, digest_of(name), points)


def latency_of(mean_ms: float) -> LatencySummary:
    spread = {"p50": 0.97, "p90": 1.1, "p95": 1.2, "p99": 1.7}
    return LatencySummary(
        count=1000,
        mean_ms=mean_ms,
        min_ms=mean_ms * 0.9,
        max_ms=mean_ms * 4,
        percentiles={
            name: Percentile(mean_ms * f, mean_ms * f * 0.97, mean_ms * f * 1.06)
            for name, f in spread.items()
        },
        confidence=0.95,
        design_effect=1.4,
        mean_low_ms=mean_ms * 0.98,
        mean_high_ms=mean_ms * 1.03,
    )


def _call_ms(name: str, batch: int) -> float:
    *_, batch_ms, sample_ms = MODELS[name]
    return batch_ms + batch * sample_ms


def _entry(variant: str, name: str, runtime: Runtime, slower: float) -> CardEntry:
    family, role, precision, parameters, megabytes, *_ = MODELS[variant]
    mean_ms = _call_ms(variant, 1) * slower
    torch = runtime is Runtime.PYTORCH
    shapes = [(b, LENGTHS[-1]) for b in BATCHES]
    shapes += [(b, n) for n in LENGTHS[:-1] for b in (BATCHES[0], BATCHES[-1])]
    return CardEntry(
        name=name,
        family=family,
        role=role,
        runtime=runtime,
        runtime_version="2.13.0+cpu" if torch else "1.32.0",
        precision=Precision.FP32 if torch else precision,
        source=f"reference:{variant.rsplit('-', 1)[0]}",
        digest=digest_of(name),
        plan=PLAN,
        threads=1,
        seed=20,
        distinct_samples=1000 if family == "topics" else 256,
        parameters=parameters,
        size_bytes=int(megabytes * 1e6),
        cold=ColdCalls(
            load_s=_around(0.31 * slower),
            first_call_ms=_around(9 * mean_ms),
            first_calls_ms=_around(2 * mean_ms),
            memory_bytes=_around(1.4e6 * megabytes * slower),
        ),
        memory_in_use_bytes=int(1.9e6 * megabytes * slower),
        latency=latency_of(mean_ms),
        throughput=tuple(
            ThroughputPoint(
                b, n, _around(1e3 * b / (_call_ms(variant, b) * slower) * LENGTHS[-1] / n)
            )
            for b, n in shapes
        ),
        measured_utc="2026-11-25T19:40:00+00:00",
    )


def _around(value: float) -> RepeatedMeasure:
    return RepeatedMeasure(value, value * 0.96, value * 1.05)
