"""A family's models as they are opened in process: each checkpoint, and each of its artefacts.

What the export knows of loading a checkpoint, and the embedded backend of opening a session, is
handed to the profiling from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.profiling.subjects import ArtefactSubject, CheckpointSubject, Subject
from harness.study import Model, variants_of
from harness.types import ModelFormat, ModelVariant, ServingConfig, TaskKind

if TYPE_CHECKING:
    from harness.pipeline.preparation import PreparedFamily
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
    """On disk."""


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


def load_graph(model: Model, folder: Path, kind: TaskKind) -> Any:
    """The checkpoint as the export takes it: the weights, wrapped to answer the task."""
    from harness.export.graphs import make_graph
    from harness.export.weights import load_model

    return make_graph(load_model(model, folder, kind), kind)


def import_architecture(model: Model, folder: Path, kind: TaskKind) -> None:
    """Import a checkpoint's code, by building it without memory."""
    from harness.export.weights import count_parameters

    count_parameters(model, folder, kind)


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
        load=partial(load_graph, model, checkpoint.folder, kind),
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
