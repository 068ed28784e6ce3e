"""A synthetic stored run of models that write, searched and decided by the harness itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streaming_queue import Writer, faster, measure, record_batches, streaming_workload

from harness.load.records.requests import RecordWriter
from harness.planning.decision import decide, judge_quality
from harness.planning.dialogue import Reserved
from harness.planning.saturation import SaturationTerms, saturation_trials
from harness.planning.search import BisectionSearch
from harness.runs.folder import RECORDS, StoredRun
from harness.runs.records import StoredRecords
from harness.study.objective import parse_objective
from harness.types import (
    Decision,
    ModelFormat,
    ModelVariant,
    Precision,
    QualityScore,
    Role,
    ServingConfig,
    TensorSpec,
    TrialResult,
)

STORIES_SLO = parse_objective(
    "ttft p95 < 200 ms, itl p99 < 50 ms, goodput >= 2/s, perplexity <= 1.3x teacher"
)
TEACHER, STUDENT, SMALL = "stories-teacher-fp32", "stories-student-fp32", "stories-student-int8"
CONTROL = "stories-control-fp32"
SLOW = Writer(step_ms=12.0, row_ms=1.5, read_ms=14.0)
WRITERS = {
    TEACHER: SLOW,
    STUDENT: faster(SLOW, 3.0),
    SMALL: faster(SLOW, 4.2),
    CONTROL: faster(SLOW, 3.0),
}
ROLES = {TEACHER: Role.TEACHER, CONTROL: Role.CONTROL}
# perplexity, ROUGE-L, ratio to the teacher's perplexity with its interval
QUALITY = {
    TEACHER: (24.1, 0.312, None, None, None),
    STUDENT: (27.4, 0.287, 1.137, 1.112, 1.163),
    SMALL: (27.9, 0.284, 1.158, 1.131, 1.186),
    CONTROL: (27.0, 0.281, 1.120, 1.096, 1.145),
}
SERVING = ServingConfig(max_batch_size=8, queue_delay_us=0, instance_count=1)
IN_FLIGHT = (1, 2, 4, 8, 16, 32)
DURATION_S, CONFIRM_S, OPEN_S = 12.0, 20.0, 12.0


def searched() -> list[TrialResult]:
    """Every trial that a search asks for, the confirming ones last."""
    loads = [streaming_workload(one, DURATION_S) for one in IN_FLIGHT]
    search = BisectionSearch(
        "stories",
        [SMALL, STUDENT, TEACHER],
        [SERVING],
        loads,
        STORIES_SLO,
        confirm_duration_s=CONFIRM_S,
        reserved=Reserved(yardsticks=frozenset({TEACHER})),
    )
    results = []
    while (trial := search.ask()) is not None:
        results.append(measure(WRITERS[trial.variant], trial, STORIES_SLO))
        search.tell(results[-1])
    return results


def streaming_run(folder: Path | None = None) -> StoredRun:
    """The whole run: one family, its open loops after the verdict, records where a folder is."""
    results = searched()
    scores = [score for name in QUALITY for score in _scores(name)]
    of_teacher = [one for one in scores if one.variant == TEACHER]
    quality = {
        name: judge_quality(STORIES_SLO, [one for one in scores if one.variant == name], of_teacher)
        for name in (TEACHER, STUDENT, SMALL)
    }
    verdict = decide("stories", STORIES_SLO, quality, results, teachers=[TEACHER])
    terms = SaturationTerms((0.3, 0.5, 0.7, 0.9), OPEN_S, 256)
    after = [
        measure(WRITERS[trial.variant], trial, STORIES_SLO)
        for trial in saturation_trials(verdict, results, [TEACHER], terms)
    ]
    run = StoredRun(
        manifest={
            "schema_version": 1,
            "created_utc": "2026-11-23T14:02:11+00:00",
            "environment": {"cpu": "Intel(R) Xeon(R) Platinum 8481C", "usable_cores": 2},
            "study": {
                "name": "stories",
                "families": [{"name": "stories", "task": {"kind": "generation"}}],
            },
        },
        variants=tuple(map(_variant, QUALITY)),
        scores=tuple(scores),
        consistency=(),
        trials=tuple(results),
        verdicts=(verdict,),
        decision=verdict.decision,
        objectives={"stories": STORIES_SLO},
        saturation=tuple(after),
    )
    return run if folder is None else replace(run, records=_records(folder, run))


def _records(folder: Path, run: StoredRun) -> StoredRecords:
    """Records of the recommended trial alone."""
    recommended = run.verdicts[0].recommended
    result = next(one for one in run.trials if one.trial.trial_id == recommended)
    assert result.decision is Decision.PASS
    trial = result.trial
    with RecordWriter(folder / RECORDS / trial.trial_id / "worker-0.parquet") as writer:
        for batch in record_batches(WRITERS[trial.variant], trial, STORIES_SLO):
            writer.add(batch)
    return StoredRecords(folder / RECORDS)


def _variant(name: str) -> ModelVariant:
    return ModelVariant(
        name=name,
        family="stories",
        role=ROLES.get(name, Role.STUDENT),
        task="generation",
        format=ModelFormat.ONNX,
        precision=Precision.INT8 if name.endswith("int8") else Precision.FP32,
        source=f"local:{name.rsplit('-', 1)[0]}",
        sha256="0" * 64,
        path=Path("model_repository") / name,
        inputs=(TensorSpec("text_input", "BYTES", (1,)),),
        outputs=(TensorSpec("text_output", "BYTES", (1,)),),
        parameters=6_400_000 if name == TEACHER else 1_700_000,
        size_bytes=25_600_000 if name == TEACHER else 6_900_000,
    )


def _scores(name: str) -> list[QualityScore]:
    perplexity, rouge, ratio, low, high = QUALITY[name]
    common = (name, "stories", ROLES.get(name, Role.STUDENT))
    kept = None if ratio is None else rouge / QUALITY[TEACHER][1]
    return [
        QualityScore(
            *common, "perplexity", perplexity, 0.96 * perplexity, 1.04 * perplexity, 256,
            "0" * 64, ratio, low, high,
        ),
        QualityScore(
            *common, "rouge_l", rouge, rouge - 0.02, rouge + 0.02, 256, "0" * 64, kept,
            kept and kept - 0.04, kept and kept + 0.04,
        ),
    ]  # fmt: skip
