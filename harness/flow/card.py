"""The report card: every model of a study in process, and through the server, to the journal.

What the export knows of loading a checkpoint, and the embedded backend of opening a session, is
handed to the profiling from here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import hdr
from harness.analysis.percentiles import summarise
from harness.errors import EnvironmentFailure
from harness.flow.options import ProgressSink
from harness.flow.preparation import PreparedFamily
from harness.flow.scoring import standing
from harness.flow.spaces import serving_configs
from harness.flow.trial import TrialRunner
from harness.profiling.subjects import ArtefactSubject, CheckpointSubject, Subject, runtime_version
from harness.profiling.timing import InProcess, measure_side_by_side
from harness.profiling.worker import preload, start_forkserver
from harness.runs.folder import RunFolder
from harness.study import Model, Study, Task, variants_of
from harness.system.storage import utc_now
from harness.tasks.registry import family_of
from harness.types import (
    LatencySummary,
    ModelFormat,
    ModelVariant,
    Precision,
    Progress,
    ServingConfig,
    Trial,
    TrialResult,
    Workload,
)
from harness.types.card import CardEntry, CardPlan, Runtime, ServedEntry, ServedPoint

if TYPE_CHECKING:
    from harness.flow.preparation import PreparedFamily
    from harness.tasks.encoding import EncodedDataset


@dataclass(frozen=True)
class FamilySubject:
    """A subject, and what it is to its family."""

    subject: Subject
    variant: ModelVariant
    """The artefact; of a checkpoint the first that was made of it."""
    dataset: EncodedDataset
    digest: str
    size_bytes: int
    """Size on disk."""


def family_subjects(family: PreparedFamily, serving: ServingConfig) -> list[FamilySubject]:
    """Model by model, the checkpoint first; the teacher's come first of all.

    Artefacts that ONNX Runtime cannot open (TensorRT plans) are left out.
    """
    models = {m.name: m for m in family.family.models}
    found: list[FamilySubject] = []
    seen: set[str] = set()
    for variant in family.variants:
        if variant.format is not ModelFormat.ONNX:
            continue
        model = next(m for m in models.values() if variant.name in variants_of(m))
        if model.name not in seen:
            seen.add(model.name)
            found.append(_checkpoint(family, model, variant))
        found.append(_artefact(family, variant, serving))
    return found


def load_graph(model: Model, folder: Path, task: Task) -> Any:
    """The checkpoint as the export takes it: the weights, wrapped to answer the task."""
    from harness.export.checkpoint_files import load_model
    from harness.export.source import make_graph

    return make_graph(load_model(model, folder, family_of(task)), task)


def import_architecture(model: Model, folder: Path, kind: str) -> None:
    """Import a checkpoint's code, by building it without memory."""
    from harness.export.checkpoint_files import count_parameters

    count_parameters(model, folder, family_of(kind))


def backend_options(config: dict[str, Any]) -> Any:
    """ONNX Runtime's session options as the embedded server's backend makes them."""
    from harness.serving.backends.onnxruntime.ort_session import session_options

    return session_options(config)


def _checkpoint(family: PreparedFamily, model: Model, variant: ModelVariant) -> FamilySubject:
    checkpoint = family.checkpoints[model.name]
    dataset = family.datasets[variant.name]
    kind = variant.task
    subject = CheckpointSubject(
        name=model.name,
        load=partial(load_graph, model, checkpoint.folder, family.family.task),
        warm_imports=partial(import_architecture, model, checkpoint.folder, kind),
    )
    weights = checkpoint.folder.glob("*.safetensors")
    size_bytes = sum(file.stat().st_size for file in weights)
    return FamilySubject(subject, variant, dataset, checkpoint.digest, size_bytes)


def _artefact(
    family: PreparedFamily, variant: ModelVariant, serving: ServingConfig
) -> FamilySubject:
    from google.protobuf import json_format

    from harness.serving.repository import model_config

    message = model_config(variant, serving)
    config = json_format.MessageToDict(message, preserving_proto_field_name=True)
    subject = ArtefactSubject(
        name=variant.name,
        path=(variant.path / "1" / "model.onnx").resolve(),
        make_options=partial(backend_options, config),
    )
    dataset = family.datasets[variant.name]
    size_bytes = variant.size_bytes or 0  # of a file that lies here: known
    return FamilySubject(subject, variant, dataset, variant.sha256, size_bytes)


FULL = CardPlan()
DEMO = CardPlan(
    samples=200, rounds=2, fresh_processes=1, window_s=0.01, batch_sizes=(1, 16), served_s=0.0
)
"""Part of a run that has load-tested its variants already: their trials are its served side."""
QUICK = dataclasses.replace(DEMO, samples=100, window_s=0.004)
PRELOADED, FROZEN = "harness.flow.preloaded", "harness.profiling.frozen"
SERVED_WARMUP_S = 1.0
CARD_REPEAT = 1000
"""Sets a card's trials apart from those of a search: their evidence has names of its own."""
PARTS = 20
"""The calls are cut into so many stretches of time, from which their correlation is judged."""


def measure_card(
    study: Study,
    families: Sequence[PreparedFamily],
    folder: RunFolder,
    plan: CardPlan,
    progress: ProgressSink,
) -> None:
    """Measure in process what the journal does not hold yet, a family at a time.

    Raises:
        EnvironmentFailure: a model cannot be loaded or run.
    """
    preload_for(families)
    for family in families:
        serving = card_serving(study, family)
        subjects = [
            one
            for one in family_subjects(family, serving)
            if not _is_kept(folder.journal.card, one, plan)
        ]
        if not subjects:
            continue
        name = family.family.name
        measured = measure_side_by_side(
            [(one.subject, one.dataset) for one in subjects],
            plan,
            threads=serving.intra_op_threads,
            seed=study.seed,
            progress=lambda step, name=name: progress(  # type: ignore[misc]  # bound by default
                Progress(f"report card of {name}", step.done, step.total, step.note)
            ),
        )
        for one, result in zip(subjects, measured, strict=True):
            folder.journal.add(_entry(study, one, result, plan, serving))


def preload_for(families: Sequence[PreparedFamily]) -> None:
    """Name what every measuring process finds imported: libraries, and the models' own code."""
    architectures = set()
    for family in families:
        for checkpoint in family.checkpoints.values():
            config = json.loads((checkpoint.folder / "config.json").read_text(encoding="utf-8"))
            kind = str(config.get("model_type", "")).replace("-", "_")
            architectures.add(f"transformers.models.{kind}.modeling_{kind}")
    preload(PRELOADED, *sorted(architectures), FROZEN)


def begin_preloading(families: Sequence[PreparedFamily]) -> Thread:
    """Import what the card's measuring processes need, in the background.

    Returns:
        The thread that waits for it; join it before anything is timed.
    """
    preload_for(families)
    thread = Thread(target=start_forkserver, name="preloading", daemon=True)
    thread.start()
    return thread


def serve_card(
    study: Study,
    families: Sequence[PreparedFamily],
    runner: TrialRunner,
    folder: RunFolder,
    plan: CardPlan,
    progress: ProgressSink,
) -> None:
    """Measure each variant through the server at each batch, one request in flight."""
    variants = [(family, variant) for family in families for variant in standing(family, folder)]
    for number, (family, variant) in enumerate(variants):
        known = folder.journal.served.get(variant.name)
        if known is not None and known.sha256 == variant.sha256:
            continue
        progress(Progress("report card, served", number, len(variants), variant.name))
        points = tuple(
            _served_point(runner.measure(trial, study.objective_of(family.family)))
            for trial in _served_trials(study, family, variant, plan)
        )
        folder.journal.add(ServedEntry(variant.name, variant.sha256, points))


def card_serving(study: Study, family: PreparedFamily) -> ServingConfig:
    """The serving configuration a card is made with: the study's first, the model computing all."""
    first = serving_configs(study.serving_of(family.family))[0]
    return dataclasses.replace(first, response_cache=False)


def _is_kept(card: dict[str, CardEntry], one: FamilySubject, plan: CardPlan) -> bool:
    """Whether it was measured before, the same artefact and as thoroughly."""
    entry = card.get(f"{one.subject.name}/{one.subject.runtime}")
    return entry is not None and entry.digest == one.digest and entry.plan == plan


def _entry(
    study: Study,
    one: FamilySubject,
    result: InProcess,
    plan: CardPlan,
    serving: ServingConfig,
) -> CardEntry:
    subject, variant = one.subject, one.variant
    checkpoint = subject.runtime is Runtime.PYTORCH
    return CardEntry(
        name=subject.name,
        family=variant.family,
        role=variant.role,
        runtime=subject.runtime,
        runtime_version=runtime_version(subject.runtime),
        precision=Precision.FP32 if checkpoint else variant.precision,
        source=variant.source,
        digest=one.digest,
        plan=plan,
        threads=serving.intra_op_threads,
        seed=study.seed,
        distinct_samples=result.distinct_samples,
        parameters=variant.parameters,
        size_bytes=one.size_bytes,
        cold=result.cold,
        memory_in_use_bytes=result.memory_in_use_bytes,
        latency=_latency(result.spans_ns),
        throughput=result.throughput,
        measured_utc=utc_now(),
    )


def _latency(spans_ns: Sequence[int]) -> LatencySummary:
    parts = np.array_split(np.array(spans_ns, dtype=np.int64), PARTS)
    summary = summarise([hdr.of_nanoseconds(part) for part in parts if len(part)])
    if summary is None:
        raise EnvironmentFailure("no call was timed")
    return summary


def _served_trials(
    study: Study, family: PreparedFamily, variant: ModelVariant, plan: CardPlan
) -> list[Trial]:
    traffic = study.traffic_of(family.family)
    serving = card_serving(study, family)
    return [
        Trial(
            variant.name,
            variant.family,
            serving,
            Workload(
                protocol=traffic.protocols[0],
                client_batch_size=batch,
                concurrency=1,
                duration_s=plan.served_s,
                warmup_s=SERVED_WARMUP_S,
                seed=study.seed,
            ),
            stage="card",
            repeat=CARD_REPEAT,
        )
        for batch in plan.batch_sizes
        if batch <= serving.max_batch_size
    ]


def _served_point(result: TrialResult) -> ServedPoint:
    workload = result.trial.workload
    return ServedPoint(
        protocol=workload.protocol,
        batch_size=workload.client_batch_size,
        in_flight=workload.concurrency,
        serving=result.trial.serving,
        latency=result.latency,
        throughput_per_s=result.throughput_inferences_per_s,
        valid=result.valid,
        invalid_reason=result.invalid_reason,
    )
