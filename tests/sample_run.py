"""A synthetic stored run, shaped like the one that `studies/reference.yaml` gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from queueing_model import BOUND_MS, MODELS, digest_of, measure
from sample_evidence import cold_start_of, series_of, with_evidence

from harness.runs.folder import StoredRun
from harness.types import (
    BatchConsistency,
    Constraint,
    Decision,
    ModelFormat,
    ModelVariant,
    QualityScore,
    Rejection,
    Role,
    ServiceLevelObjective,
    ServingConfig,
    TensorSpec,
    Trial,
    TrialResult,
    Verdict,
    WireProtocol,
    Workload,
)

TOPICS_SLO = "p95 < 50 ms, accuracy >= 90% of teacher"
PROSE_SLO = "p95 < 50 ms, perplexity <= 2x teacher"

# accuracy, macro-F1, retained share of accuracy with its interval, McNemar's p
CLASSIFIER_QUALITY = {
    "topics-teacher-fp32": (0.8213, 0.8174, None, None, None, None),
    "topics-teacher-int8": (0.8200, 0.8161, 0.9984, 0.9921, 1.0047, 0.7266),
    "topics-student-fp32": (0.7987, 0.7931, 0.9724, 0.9513, 0.9935, 0.0118),
    "topics-student-int8": (0.7973, 0.7917, 0.9708, 0.9497, 0.9921, 0.0093),
    "topics-tiny-fp32": (0.6573, 0.6502, 0.8003, 0.7702, 0.8301, 3.1e-21),
    "tf-idf": (0.8587, 0.8561, 1.0455, 1.0211, 1.0707, 0.0004),
}
# perplexity, bits per byte, ratio to the teacher's perplexity with its interval
LANGUAGE_QUALITY = {
    "prose-teacher-fp32": (64.2, 1.912, None, None, None),
    "prose-student-fp32": (103.4, 2.131, 1.611, 1.548, 1.677),
    "prose-control-fp32": (101.2, 2.121, 1.576, 1.515, 1.640),
}
SERVING = ServingConfig(max_batch_size=16, queue_delay_us=0, instance_count=1)
OTHER_SERVING = (
    replace(SERVING, queue_delay_us=2000),
    replace(SERVING, instance_count=2),
    replace(SERVING, queue_delay_us=2000, instance_count=2),
)
CONFIRM_S = 12.0
MANIFEST = {
    "schema_version": 1,
    "created_utc": "2026-11-23T14:02:11+00:00",
    "resumed_utc": [],
    "study_digest": "5f0c" * 16,
    "source_revision": "d41d8cd98f00b204e9800998ecf8427e00000000",
    "seeds": {"study": 20},
    "environment": {
        "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "cores": 2,
        "usable_cores": 2,
        "memory_gib": 7.8,
        "gpus": [],
        "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
        "python": "3.11.7",
        "harness": "0.1.0",
        "packages": {"locust": "2.47.0", "onnxruntime": "1.32.0", "torch": "2.13.0+cpu"},
        "server_environment": "9ad3f0c1",
    },
    "artefacts": {},
    "data": {"topics": {"digest": "77ab", "samples": 1500, "truncated": 12}},
    "study": {
        "schema_version": 1,
        "name": "reference",
        "seed": 20,
        "objective": TOPICS_SLO,
        "search": "staged",
        "families": [
            {"name": "topics", "task": {"kind": "sequence-classification", "max_length": 32}},
            {"name": "prose", "task": {"kind": "causal-lm", "max_length": 64}},
        ],
        "traffic": {"protocols": ["http", "grpc"], "client_batch_sizes": [1, 4, 8, 16]},
    },
}


def sample_run() -> StoredRun:
    """The whole run: two families, both decided, one variant rejected for its quality."""
    measured = (*_topics_trials(), *_prose_trials())
    trials = tuple(with_evidence(result, place) for place, result in enumerate(measured))
    verdicts = (_topics_verdict(trials), _prose_verdict(trials))
    return StoredRun(
        manifest=MANIFEST,
        variants=tuple(_variant(name) for name in MODELS),
        scores=(*_classifier_scores(), *_language_scores()),
        consistency=tuple(_consistency()),
        trials=trials,
        verdicts=verdicts,
        decision=Decision.PASS,
        objectives={
            "topics": objective(TOPICS_SLO, "accuracy", ">=", 0.9),
            "prose": objective(PROSE_SLO, "perplexity", "<=", 2.0),
        },
        cold_starts=tuple(
            cold_start_of(name, digest_of(name), SERVING, batch_ms + sample_ms)
            for name, (*_, batch_ms, sample_ms) in MODELS.items()
            if name != "topics-tiny-fp32"  # rejected for its quality before any load
        ),
        series={result.trial.trial_id: series_of(result) for result in trials},
    )


def objective(text: str, metric: str, operator: str, factor: float) -> ServiceLevelObjective:
    """`p95 < 50 ms` and one quality clause relative to the teacher."""
    return ServiceLevelObjective(
        text=text,
        constraints=(
            Constraint("p95", "<", BOUND_MS, False, "p95 < 50 ms"),
            Constraint(metric, operator, factor, True, text.split(", ")[1]),
        ),
    )


def _trial(variant: str, workload: Workload, serving: ServingConfig, stage: str) -> Trial:
    return Trial(variant, MODELS[variant][0], serving, workload, stage, int(stage == "confirm"))


def _workload(protocol: WireProtocol, size: int, in_flight: int, duration_s: float) -> Workload:
    return Workload(protocol, size, in_flight, duration_s, 0.5, 20)


def _sweep(variant: str, protocol: WireProtocol, sizes: tuple[int, ...]) -> list[TrialResult]:
    """Client batch sizes by concurrencies, stopped at the first that is too slow."""
    results = []
    for size in sizes:
        for in_flight in (1, 4, 16):
            workload = _workload(protocol, size, in_flight, 2.0)
            invalid = "student-int8" in variant and size == 1 and in_flight == 16
            results.append(
                measure(_trial(variant, workload, SERVING, "workload"), valid=not invalid)
            )
            if results[-1].decision is Decision.FAIL:
                break
    return results


def _best(results: list[TrialResult] | tuple[TrialResult, ...]) -> TrialResult:
    passing = [result for result in results if result.decision is Decision.PASS]
    return max(passing, key=lambda result: result.throughput_inferences_per_s)


def _topics_trials() -> list[TrialResult]:
    results: list[TrialResult] = []
    for variant in list(MODELS)[:4]:
        results += _sweep(variant, WireProtocol.HTTP, (1, 4, 8, 16))
    for variant in list(MODELS)[2:4]:
        best = _best([r for r in results if r.trial.variant == variant]).trial.workload
        grpc = replace(best, protocol=WireProtocol.GRPC)
        results.append(measure(_trial(variant, grpc, SERVING, "protocol")))
        results += [measure(_trial(variant, grpc, serving, "serving")) for serving in OTHER_SERVING]
    winner = _best(results).trial
    longer = replace(winner.workload, duration_s=CONFIRM_S)
    results.append(measure(_trial(winner.variant, longer, winner.serving, "confirm")))
    return results


def _prose_trials() -> list[TrialResult]:
    results: list[TrialResult] = []
    for variant in ("prose-teacher-fp32", "prose-student-fp32"):
        results += _sweep(variant, WireProtocol.GRPC, (1, 8))
    winner = _best(results).trial
    longer = replace(winner.workload, duration_s=CONFIRM_S)
    results.append(measure(_trial(winner.variant, longer, winner.serving, "confirm")))
    return results


def _topics_verdict(trials: tuple[TrialResult, ...]) -> Verdict:
    tiny = Rejection(
        "topics-tiny-fp32",
        None,
        "quality",
        "accuracy keeps 80.0% (95% interval 77.0\u201383.0%) of the teacher's, under 90%",
    )
    left_out = Rejection(
        "topics-teacher-fp32",
        "topics-teacher-fp32--mb16-qd0-i2-t1--http-b16-c1",
        "dominated",
        "not measured: topics-teacher-fp32 gave at most 897 inferences/s on mb16-qd0-i1-t1",
    )
    verdict = _verdict("topics", TOPICS_SLO, trials, [tiny], "97.1% of the teacher's accuracy")
    return replace(verdict, pruned=(left_out,))


def _prose_verdict(trials: tuple[TrialResult, ...]) -> Verdict:
    return _verdict("prose", PROSE_SLO, trials, [], "1.61 times the teacher's perplexity")


def _verdict(
    family: str,
    slo: str,
    trials: tuple[TrialResult, ...],
    rejected: list[Rejection],
    quality: str,
) -> Verdict:
    own = [result for result in trials if result.trial.family == family]
    winner = own[-1]
    rejected += [_rejection(result, winner) for result in own[:-1]]
    rate = winner.throughput_inferences_per_s
    assert winner.latency is not None
    p95 = winner.latency.percentiles["p95"]
    return Verdict(
        family=family,
        slo=slo,
        decision=Decision.PASS,
        recommended=winner.trial.trial_id,
        summary=(
            f"Serve {winner.trial.variant}: {rate:,.0f} inferences/s at p95 {p95.value_ms:.1f} ms "
            f"(at most {p95.high_ms:.1f} ms with 95% confidence), with {quality}."
        ),
        rejected=tuple(rejected),
    )


def _rejection(result: TrialResult, winner: TrialResult) -> Rejection:
    causes = {Decision.FAIL: "latency", Decision.INVALID: "invalid"}
    cause = causes.get(result.decision, "slower")
    reason = result.reason or (
        f"meets the objective with {result.throughput_inferences_per_s:,.0f} inferences/s; "
        f"the recommended one gives {winner.throughput_inferences_per_s:,.0f}"
    )
    return Rejection(result.trial.variant, result.trial.trial_id, cause, reason)


def _variant(name: str) -> ModelVariant:
    family, role, precision, parameters, megabytes, *_ = MODELS[name]
    classifier = family == "topics"
    return ModelVariant(
        name=name,
        family=family,
        role=role,
        task="sequence-classification" if classifier else "causal-lm",
        format=ModelFormat.ONNX,
        precision=precision,
        source=f"reference:{name.rsplit('-', 1)[0]}",
        sha256=digest_of(name),
        path=Path("model_repository") / name,
        inputs=(TensorSpec("input_ids", "INT64", (-1,)),),
        outputs=(TensorSpec("logits" if classifier else "token_logprobs", "FP32", (-1,)),),
        parameters=parameters,
        size_bytes=int(megabytes * 1e6),
        parity={"logits": 2.9e-6},
    )


def _classifier_scores() -> list[QualityScore]:
    scores = []
    for name, (accuracy, f1, kept, low, high, p_value) in CLASSIFIER_QUALITY.items():
        role = MODELS[name][1] if name in MODELS else Role.BASELINE
        common = (name, "topics", role)
        digest = digest_of(name) if name in MODELS else ""
        scores += [
            QualityScore(
                *common, "accuracy", accuracy, accuracy - 0.02, accuracy + 0.02, 1500, digest,
                kept, low, high, p_value, f"samples/{name}.parquet",
            ),
            QualityScore(
                *common, "macro_f1", f1, f1 - 0.021, f1 + 0.021, 1500, digest, kept, low, high
            ),
        ]  # fmt: skip
    return scores


def _language_scores() -> list[QualityScore]:
    scores = []
    for name, (perplexity, bits, ratio, low, high) in LANGUAGE_QUALITY.items():
        common = (name, "prose", MODELS[name][1])
        scores += [
            QualityScore(
                *common, "perplexity", perplexity, perplexity * 0.96, perplexity * 1.04, 256,
                digest_of(name), ratio, low, high,
            ),
            QualityScore(
                *common, "bits_per_byte", bits, bits * 0.98, bits * 1.02, 256, digest_of(name),
                bits / 1.912 if ratio else None, None, None,
            ),
        ]  # fmt: skip
    return scores


def _consistency() -> list[BatchConsistency]:
    rows = []
    for name in MODELS:
        for size in (4, 8, 16):
            int8 = name.endswith("int8")
            rows.append(BatchConsistency(name, size, 256, 2 if int8 and size == 16 else 0,
                                         0.031 if int8 else 2.4e-6))  # fmt: skip
    return rows
