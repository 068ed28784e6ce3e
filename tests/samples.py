"""Small made-up values of the project's terms, for tests that need one of each."""

from pathlib import Path

from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    Decision,
    HostMetrics,
    LatencySummary,
    ModelFormat,
    ModelVariant,
    Percentile,
    Precision,
    Role,
    ServerMetrics,
    ServingConfig,
    TensorSpec,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)


def sample_study(**changes):
    """A study document with one reference teacher."""
    return {
        "name": "small",
        "families": [
            {
                "name": "topics",
                "task": {
                    "kind": "sequence-classification",
                    "data": {"source": "reference", "name": "topics"},
                },
                "models": [
                    {"name": "teacher", "role": "teacher", "checkpoint": "reference:topics-teacher"}
                ],
            }
        ],
        **changes,
    }


def sample_variant(name="teacher-fp32", role=Role.TEACHER):
    return ModelVariant(
        name=name,
        family="topics",
        role=role,
        task="sequence-classification",
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="reference:topics-teacher",
        sha256="ab" * 32,
        path=Path("model_repository") / name,
        inputs=(TensorSpec("input_ids", "INT64", (-1,)),),
        outputs=(TensorSpec("logits", "FP32", (10,)),),
        parameters=1000,
        size_bytes=4000,
        parity={"logits": 1e-6},
    )


def sample_trial_result(*, variant="teacher-fp32", concurrency=1, generator_cpu=0.1):
    workload = Workload(WireProtocol.GRPC, 4, concurrency, duration_s=2.0, warmup_s=0.5, seed=1)
    latency = LatencySummary(
        count=500,
        mean_ms=8.0,
        min_ms=3.0,
        max_ms=30.0,
        percentiles={
            name: Percentile(value, value * 0.9, value * 1.1)
            for name, value in (("p50", 7.0), ("p90", 12.0), ("p95", 15.0), ("p99", 25.0))
        },
        confidence=0.95,
        design_effect=1.5,
    )
    return TrialResult(
        trial=Trial(variant, "topics", ServingConfig(), workload),
        sha256="ab" * 32,
        started_utc="2026-01-01T00:00:00+00:00",
        duration_s=2.0,
        requests=500,
        failures=0,
        failures_by_kind={},
        throughput_requests_per_s=250.0,
        throughput_inferences_per_s=1000.0,
        latencies={RESPONSE: latency},
        values_ms={SCHEDULE_DELAY: {"p99": 0.1}},
        generator_cpu=generator_cpu,
        server=ServerMetrics(
            requests=500, inferences=2000, executions=250, queue_ms=1.0, compute_input_ms=0.1,
            compute_infer_ms=5.0, compute_output_ms=0.1, batch_sizes={8: 250},
        ),
        host=HostMetrics(cpu_utilization=0.5),
        valid=True,
        decision=Decision.PASS,
    )  # fmt: skip
