"""What a study needs of borrowed models to be scored and load-tested: data, and variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harness.cache import cache_root
from harness.load.generators import REQUEST_TIMEOUT_S
from harness.load.payloads import Group
from harness.load.transports.opening import transport_opener
from harness.pipeline.borrowed import Borrowed
from harness.pipeline.identity import FOLDER
from harness.pipeline.machinery import Machinery
from harness.pipeline.preflight import check_requests, try_one_request
from harness.pipeline.preparation import (
    OpenedFamily,
    OpenedModel,
    PreparedFamily,
    baseline_of,
    open_families,
)
from harness.pipeline.remote import settled
from harness.pipeline.serving import Served
from harness.pipeline.spaces import workloads
from harness.runs import RunFolder
from harness.serving.remote import RemoteModel
from harness.study import Family, Study, Task, variant_name
from harness.tasks.encoding import EncodedDataset
from harness.types import Accelerator, ModelFormat, ModelVariant, Precision, TaskKind, TensorSpec

_DYNAMIC = -1


def serve_borrowed(
    study: Study, borrowed: Borrowed, machinery: Machinery, folder: RunFolder
) -> Served:
    """Encode the data, and make sure that every model takes and answers it.

    Which models they are is known by what they answer; the folder keeps that for a later resume.

    Raises:
        UsageError: a model that does not take the study's requests, or does not answer as its task
            asks; the server was not loaded yet.
    """
    opened_families = open_families(study, study.families, machinery.progress, machinery.warn)
    borrowed = _with_bodies(study, opened_families, borrowed, machinery)
    families = tuple(_prepare(study, one, borrowed, machinery, folder) for one in opened_families)
    site = dataclasses.replace(borrowed.opened.site(), control=borrowed.control)
    if borrowed.control is not None:
        # As on a server of our own, only the model under test is loaded.
        for family in families:
            for variant in family.variants:
                borrowed.control.unload(variant)
        return Served(families, site)
    return Served(
        families, site, {variant: model.serving for variant, model in borrowed.models.items()}
    )


def _with_bodies(
    study: Study, families: Sequence[OpenedFamily], borrowed: Borrowed, machinery: Machinery
) -> Borrowed:
    """The server with the bodies that it takes, found out by one model where it does not tell."""
    family = families[0]
    first = family.teacher_first[0]
    name = variant_name(first.model, *first.model.artefacts[0])
    groups = [group.inputs for group in first.dataset.groups]
    workload = workloads(study, study.traffic_of(family.family))[0]
    model = borrowed.models[name]
    opened = settled(borrowed.opened, model, groups, workload, machinery.grpc)
    return dataclasses.replace(borrowed, opened=opened)


def described_fully(model: RemoteModel, dataset: EncodedDataset, task: Task) -> RemoteModel:
    """What a model is where its server does not say: what the study takes it for."""
    inputs = tuple(
        TensorSpec(name, "INT64", (_DYNAMIC, _DYNAMIC)) for name in dataset.groups[-1].inputs
    )
    if task.kind is TaskKind.SEQUENCE_CLASSIFICATION:
        labels = len(dataset.label_names or ())
        outputs: tuple[TensorSpec, ...] = (TensorSpec("logits", "FP32", (_DYNAMIC, labels)),)
    else:
        outputs = (
            TensorSpec("token_logprobs", "FP32", (_DYNAMIC, _DYNAMIC)),
            TensorSpec("greedy_token_ids", "INT64", (_DYNAMIC, _DYNAMIC)),
        )
    return dataclasses.replace(
        model, inputs=model.inputs or inputs, outputs=model.outputs or outputs
    )


def _prepare(
    study: Study,
    opened: OpenedFamily,
    borrowed: Borrowed,
    machinery: Machinery,
    folder: RunFolder,
) -> PreparedFamily:
    variants: list[ModelVariant] = []
    by_variant: dict[str, OpenedModel] = {}
    accelerated = borrowed.control is not None and any(
        one is not Accelerator.NONE for one in study.serving_of(opened.family).accelerators
    )
    for one in opened.teacher_first:
        groups = [group.inputs for group in one.dataset.groups]
        for precision, form in one.model.artefacts:
            name = variant_name(one.model, precision, form)
            model = described_fully(borrowed.models[name], one.dataset, opened.family.task)
            outputs = _try(study, opened.family, model, groups, borrowed, machinery)
            by_variant[name] = one
            identity = borrowed.opened.identities.establish(
                model,
                groups,
                precision,
                folders=(folder.path / FOLDER, cache_root() / FOLDER),
                accelerated=accelerated,
                warn=machinery.warn,
            )
            found = dataclasses.replace(model, identity=identity)
            variants.append(_variant(name, one, opened.family, precision, found, outputs))
    return PreparedFamily(
        family=opened.family,
        variants=tuple(variants),
        datasets={name: one.dataset for name, one in by_variant.items()},
        baseline=baseline_of(opened),
        opened=by_variant,
        training_file=opened.training_file,
    )


def _try(
    study: Study,
    family: Family,
    model: RemoteModel,
    groups: Sequence[Group],
    borrowed: Borrowed,
    machinery: Machinery,
) -> tuple[TensorSpec, ...]:
    """Hold every kind of request against the model, and send the first of the smallest."""
    if borrowed.control is not None:  # it will be served under the study's configurations
        checked = dataclasses.replace(model.serving, max_batch_size=_largest(study, family))
    else:
        checked = model.serving
    asked = workloads(study, study.traffic_of(family))
    for workload in asked:
        check_requests(dataclasses.replace(model, serving=checked), groups, workload)
    address = borrowed.opened.address
    opener = transport_opener(
        address.protocol, address.target, timeout_s=REQUEST_TIMEOUT_S, grpc=machinery.grpc
    )
    smallest = min(asked, key=lambda workload: workload.client_batch_size)
    return try_one_request(model, groups, smallest, opener)


def _largest(study: Study, family: Family) -> int:
    return max(study.serving_of(family).max_batch_sizes)


def _variant(
    name: str,
    opened: OpenedModel,
    family: Family,
    precision: Precision,
    model: RemoteModel,
    outputs: tuple[TensorSpec, ...],
) -> ModelVariant:
    """The variant, with the shapes of one row."""
    return ModelVariant(
        name=name,
        family=family.name,
        role=opened.model.role,
        task=family.task.kind,
        format=_format(model),
        precision=precision,
        source=opened.model.checkpoint,
        sha256=model.identity,
        path=Path(),
        inputs=tuple(dataclasses.replace(one, shape=one.shape[1:]) for one in model.inputs),
        outputs=outputs,
        parameters=opened.checkpoint.parameters,
        size_bytes=None,
        served_as=model.name,
    )


def _format(model: RemoteModel) -> ModelFormat:
    config = model.config or {}
    told = f"{config.get('platform', '')} {config.get('backend', '')}"
    return ModelFormat.TENSORRT if "tensorrt" in told else ModelFormat.ONNX
