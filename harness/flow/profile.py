"""A profile of one variant and its checkpoint: operators, roofline, scaling, into a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from harness.errors import RunFolderError, UsageError
from harness.flow.card import FamilySubject, card_serving, family_subjects, preload_for
from harness.flow.input_checks import check_driven, check_inputs
from harness.flow.options import ProgressSink, RunSettings
from harness.flow.preparation import PreparedFamily, prepare_alone
from harness.profiling.operators import profile_artefact, profile_checkpoint
from harness.profiling.roofline import machine_roofline
from harness.profiling.scaling import measure_scaling
from harness.profiling.subjects import ArtefactSubject, runtime_version
from harness.profiling.timing import SETTLING_CALLS, batch_of, lengths_of, spread, time_calls
from harness.profiling.worker import Worker
from harness.report.profile.page import PROFILE, build_profile
from harness.study import PLAN_SUFFIX, Study, plans_of
from harness.system.machine import cpu_model, describe_machine
from harness.system.storage import replace_text, storage_errors, utc_now
from harness.types import Progress
from harness.types.card import Runtime
from harness.types.profiles import OperatorProfile, VariantProfile

RUNS = 50
"""Profiled calls at batch 1; fewer at larger ones, so that traces stay of a size to open."""
FEWEST_RUNS = 10
TIMED_CALLS = 30
INTEGER_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
_PROFILE = TypeAdapter(VariantProfile)


@dataclass(frozen=True)
class ProfilePlan:
    """What is asked of a profile."""

    batch_size: int = 16
    """Operators are profiled at it, beside batch 1."""
    least_growth: float = 0.1
    """What doubling the batch has to bring, as a share, for a larger one to be tried."""
    roofline_afresh: bool = False
    """Measure the machine again, though it is known."""


def profile_variant(
    study: Study,
    variant: str,
    folder: Path,
    settings: RunSettings,
    plan: ProfilePlan,
) -> VariantProfile:
    """Profile a variant at batch 1 and at a larger batch, and find where its batches level off.

    Writes `profile.json`, `operators.csv`, `scaling.csv`, `profile.html` and the profilers' traces.

    Raises:
        StudyError: the study has no such variant, or its inputs are wrong.
        RunFolderError: the folder holds something already.
        EnvironmentFailure: the model cannot be loaded or run.
    """
    if variant in plans_of(study.family_of(variant)):
        raise UsageError(
            f"{variant} is a TensorRT plan, and profiles are made by PyTorch and ONNX Runtime",
            next_step=f"profile its graph: --variant {variant.removesuffix(PLAN_SUFFIX)}",
        )
    check_driven(study.alone(variant))
    check_inputs(study, settings.inputs, only=variant)
    with storage_errors(folder):
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(
                f"{folder} is not empty, and nothing measured is ever overwritten",
                next_step="choose another --out",
            )
        folder.mkdir(parents=True, exist_ok=True)
    family = prepare_alone(
        study,
        variant,
        repository=settings.repository,
        progress=settings.progress,
        inputs=settings.inputs,
    )
    profile = _profile(study, family, variant, folder, settings.progress, plan)
    write_profile(profile, folder)
    return profile


def _profile(
    study: Study,
    family: PreparedFamily,
    name: str,
    folder: Path,
    progress: ProgressSink,
    plan: ProfilePlan,
) -> VariantProfile:
    preload_for([family])
    serving = card_serving(study, family)
    subjects = _subjects(family_subjects(family, serving), name)
    threads = serving.intra_op_threads
    artefact = next(one.subject for one in subjects if isinstance(one.subject, ArtefactSubject))
    progress(
        Progress("machine's roofline", 0, 1, "large matrix products and triads; once per machine")
    )
    roofline = machine_roofline(
        cpu_model(), threads, artefact.make_options, afresh=plan.roofline_afresh
    )
    operators, scaling = [], []
    for one in subjects:
        length = lengths_of(one.dataset)[-1]
        with Worker(one.subject, threads) as worker:
            for batch in sorted({1, plan.batch_size}):
                step = f"operators in {one.subject.runtime}"
                progress(Progress(step, batch, plan.batch_size, f"batch {batch}"))
                operators.append(_operators(worker, one, (batch, length), folder, study.seed))
            scaling.append(
                measure_scaling(
                    worker,
                    one.dataset,
                    length,
                    least_growth=plan.least_growth,
                    seed=study.seed,
                    progress=progress,
                )
            )
    return VariantProfile(
        variant=next(one.variant for one in subjects if one.variant.name == name),
        threads=threads,
        seed=study.seed,
        roofline=roofline,
        operators=tuple(operators),
        scaling=tuple(scaling),
        versions={str(runtime): runtime_version(runtime) for runtime in Runtime},
        instructions=_instructions(),
        environment=describe_machine(),
        created_utc=utc_now(),
    )


def write_profile(profile: VariantProfile, folder: Path) -> None:
    """Write the profile as JSON, CSV and HTML.

    Raises:
        StorageError: it cannot be written.
    """
    document = json.dumps(_PROFILE.dump_python(profile, mode="json"), indent=1, allow_nan=False)
    replace_text(folder / PROFILE, document + "\n")
    with storage_errors(folder):
        _operators_frame(profile).to_csv(folder / "operators.csv", index=False)
        _scaling_frame(profile).to_csv(folder / "scaling.csv", index=False)
    build_profile(profile, folder)


def _subjects(found: list[FamilySubject], name: str) -> list[FamilySubject]:
    """The variant's checkpoint, then its artefact."""
    source = next(one.variant.source for one in found if one.subject.name == name)
    return [
        one
        for one in found
        if one.subject.name == name
        or (one.subject.runtime is Runtime.PYTORCH and one.variant.source == source)
    ]


def _operators(
    worker: Worker, one: FamilySubject, shape: tuple[int, int], folder: Path, seed: int
) -> OperatorProfile:
    batch_size, length = shape
    batch = batch_of(one.dataset, shape, np.random.default_rng(seed))
    spans_ns = worker.do(time_calls, [batch] * TIMED_CALLS, SETTLING_CALLS)
    runs = max(FEWEST_RUNS, RUNS // batch_size)
    traces = (folder / "traces").resolve()
    subject = one.subject
    if isinstance(subject, ArtefactSubject):
        prefix = traces / f"onnxruntime-batch{batch_size}"
        profiled = worker.do(profile_artefact, subject, batch, runs, prefix)
    else:
        profiled = worker.do(profile_checkpoint, batch, runs, traces / f"pytorch-batch{batch_size}")
    return OperatorProfile(
        runtime=subject.runtime,
        batch_size=batch_size,
        length=length,
        runs=runs,
        call_ms=spread([span / 1e6 for span in spans_ns]),
        operators=profiled.operators,
        trace=str(profiled.trace.relative_to(folder.resolve())),
    )


def _operators_frame(profile: VariantProfile) -> pd.DataFrame:
    rows = [
        {
            "runtime": str(one.runtime),
            "batch_size": one.batch_size,
            "length": one.length,
            "operator": cost.name,
            "kind": cost.kind,
            "calls": cost.calls,
            "time_us": cost.time_us,
            "share": cost.time_us / one.operator_us if one.operator_us else None,
            "datatype": cost.datatype,
            "operations": cost.operations,
            "moved_bytes": cost.moved_bytes,
            "operations_per_byte": cost.intensity,
            "operations_per_s": cost.operations_per_s,
        }
        for one in profile.operators
        for cost in one.operators
    ]
    return pd.DataFrame(rows)


def _scaling_frame(profile: VariantProfile) -> pd.DataFrame:
    rows = [
        {
            "runtime": str(scaling.runtime),
            "length": scaling.length,
            "batch_size": step.batch_size,
            "samples_per_s": step.per_s.value,
            "samples_per_s_low": step.per_s.low,
            "samples_per_s_high": step.per_s.high,
            "jobs_per_hour": step.per_s.value * 3600,
            "growth": step.growth,
            "growth_low": step.growth_low,
            "growth_high": step.growth_high,
            "rounds": step.rounds,
            "knee": step.batch_size == scaling.knee,
        }
        for scaling in profile.scaling
        for step in scaling.steps
    ]
    return pd.DataFrame(rows)


def _instructions() -> tuple[str, ...]:
    """What the processor has for products of 8-bit integers."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    flags = set(text.split())
    return tuple(name for name in INTEGER_INSTRUCTIONS if name in flags)
