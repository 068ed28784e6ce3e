"""What a study needs of external models to be scored and load-tested: data, and variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.flow.external.identity import FOLDER
from harness.flow.external.server import settled
from harness.flow.external.study import ExternalStudy
from harness.flow.external.tensors import NamingClient, TensorNames, task_outputs
from harness.flow.opening import OpenedFamily, OpenedModel, baseline_of, open_families
from harness.flow.options import RunSettings
from harness.flow.preflight import check_requests, try_one_request
from harness.flow.preparation import PreparedFamily
from harness.flow.serving import Served
from harness.flow.spaces import workloads
from harness.load.generators.pool import REQUEST_TIMEOUT_S
from harness.load.requests.payloads import Group
from harness.load.transports.opening import transport_opener
from harness.runs.folder import RunFolder
from harness.serving.external.server import ExternalModel
from harness.study import Family, Study, Task, variant_name
from harness.system.storage import cache_root
from harness.tasks.encoding import EncodedDataset
from harness.tasks.registry import family_of
from harness.types import Accelerator, ModelFormat, ModelVariant, Precision, TensorSpec

_DYNAMIC = -1


def serve_external(
    study: Study, external: ExternalStudy, settings: RunSettings, folder: RunFolder
) -> Served:
    """Encode the data, and make sure that every model takes and answers it.

    Which models they are is known by what they answer; the folder keeps that for a later resume.

    Raises:
        UsageError: a model that does not take the study's requests, or does not answer as its task
            asks; the server was not loaded yet.
    """
    opened_families = open_families(
        study, study.families, settings.progress, settings.warn, settings.inputs
    )
    external = _with_bodies(study, opened_families, external, settings)
    names = external.names
    families = tuple(
        _prepare(study, one, external, names, settings, folder) for one in opened_families
    )
    site = external.opened.site()
    by_model = {external.models[variant].name: one for variant, one in names.items()}
    client = NamingClient(site.client, by_model)
    site = dataclasses.replace(site, client=client, control=external.control)
    if external.control is not None:
        # As on our own server, only the model under test is loaded.
        for family in families:
            for variant in family.variants:
                external.control.unload(variant)
        return Served(families, site, names=names)
    served_as = {variant: model.serving for variant, model in external.models.items()}
    return Served(families, site, served_as, names)


def _with_bodies(
    study: Study, families: Sequence[OpenedFamily], external: ExternalStudy, settings: RunSettings
) -> ExternalStudy:
    """The server with the bodies that it takes, found out by one model where it does not tell."""
    family = families[0]
    first = family.teacher_first[0]
    name = variant_name(first.model, *first.model.artefacts[0])
    groups = external.names[name].groups([group.inputs for group in first.dataset.groups])
    workload = workloads(study, study.traffic_of(family.family))[0]
    model = external.models[name]
    opened = settled(external.opened, model, groups, workload, settings.grpc)
    return dataclasses.replace(external, opened=opened)


def described_fully(
    model: ExternalModel, dataset: EncodedDataset, task: Task, names: TensorNames
) -> ExternalModel:
    """What a model is where its server does not say: what the study takes it for."""
    inputs = tuple(
        TensorSpec(names.inputs.get(name, name), "INT64", (_DYNAMIC, _DYNAMIC))
        for name in dataset.groups[-1].inputs
    )
    family = family_of(task)
    outputs = tuple(
        TensorSpec(names.outputs[one.name], one.datatype, (_DYNAMIC, *one.shape))
        for one in family.outputs(dataset.width)
    )
    told = task_outputs(model, names, family, dataset.width)
    return dataclasses.replace(told, inputs=model.inputs or inputs, outputs=told.outputs or outputs)


def _prepare(
    study: Study,
    opened: OpenedFamily,
    external: ExternalStudy,
    names: Mapping[str, TensorNames],
    settings: RunSettings,
    folder: RunFolder,
) -> PreparedFamily:
    variants: list[ModelVariant] = []
    by_variant: dict[str, OpenedModel] = {}
    accelerated = external.control is not None and any(
        one is not Accelerator.NONE for one in study.serving_of(opened.family).accelerators
    )
    for one in opened.teacher_first:
        for precision, form in one.model.artefacts:
            name = variant_name(one.model, precision, form)
            groups = names[name].groups([group.inputs for group in one.dataset.groups])
            model = described_fully(
                external.models[name], one.dataset, opened.family.task, names[name]
            )
            if not external.models[name].outputs:
                answered = _answered(study, opened.family, model, groups, external, settings)
                model = dataclasses.replace(model, outputs=answered)
            outputs = _try(study, opened.family, model, groups, external, settings)
            by_variant[name] = one
            identity = external.opened.identities.establish(
                model,
                groups,
                precision,
                folders=(folder.path / FOLDER, cache_root() / FOLDER),
                accelerated=accelerated,
                warn=settings.warn,
            )
            found = dataclasses.replace(model, identity=identity)
            variant = _variant(name, one, opened.family, precision, found, outputs, names[name])
            variants.append(variant)
    return PreparedFamily(
        family=opened.family,
        variants=tuple(variants),
        datasets={name: one.dataset for name, one in by_variant.items()},
        baseline=baseline_of(opened),
        opened=by_variant,
        training_file=opened.training_file,
    )


def _answered(
    study: Study,
    family: Family,
    model: ExternalModel,
    groups: Sequence[Group],
    external: ExternalStudy,
    settings: RunSettings,
) -> tuple[TensorSpec, ...]:
    """The task's outputs in the datatypes in which a server that declares none answers them."""
    untold = dataclasses.replace(model, outputs=())
    there = {one.name: one for one in _try(study, family, untold, groups, external, settings)}
    missing = [one.name for one in model.outputs if one.name not in there]
    if missing:
        raise UsageError(
            f"the model '{model.name}' answers without '{missing[0]}': it has {', '.join(there)}",
            next_step="say in the study which it is, under its model: outputs: {OUR NAME: THEIRS}",
        )
    return tuple(
        dataclasses.replace(one, datatype=there[one.name].datatype) for one in model.outputs
    )


def _try(
    study: Study,
    family: Family,
    model: ExternalModel,
    groups: Sequence[Group],
    external: ExternalStudy,
    settings: RunSettings,
) -> tuple[TensorSpec, ...]:
    """Hold every kind of request against the model, and send the first of the smallest."""
    if (
        external.control is not None and model.serving.max_batch_size
    ):  # it will be served under the study's configurations
        checked = dataclasses.replace(model.serving, max_batch_size=_largest(study, family))
    else:
        checked = model.serving
    asked = workloads(study, study.traffic_of(family))
    for workload in asked:
        check_requests(dataclasses.replace(model, serving=checked), groups, workload)
    address = external.opened.address
    opener = transport_opener(
        address.protocol, address.target, timeout_s=REQUEST_TIMEOUT_S, grpc=settings.grpc
    )
    smallest = min(asked, key=lambda workload: workload.client_batch_size)
    following = [one.name for one in model.outputs]
    return try_one_request(model, groups, smallest, opener, following)


def _largest(study: Study, family: Family) -> int:
    return max(study.serving_of(family).max_batch_sizes)


def _variant(
    name: str,
    opened: OpenedModel,
    family: Family,
    precision: Precision,
    model: ExternalModel,
    outputs: tuple[TensorSpec, ...],
    names: TensorNames,
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
        inputs=tuple(_as_encoded(opened.dataset, model, names)),
        outputs=outputs,
        parameters=opened.checkpoint.parameters,
        size_bytes=None,
        batches=not (model.config is not None and model.serving.max_batch_size == 0),
        served_as=model.name,
    )


def _as_encoded(
    dataset: EncodedDataset, model: ExternalModel, names: TensorNames
) -> Iterator[TensorSpec]:
    """The inputs of one row by the data's names for them; payloads are sent under the model's."""
    declared = {one.name: one for one in model.inputs}
    for ours in dataset.groups[0].inputs:
        there = declared.get(names.inputs.get(ours, ours))
        if there is None:
            yield TensorSpec(ours, "INT64", (_DYNAMIC,))
        else:
            yield dataclasses.replace(there, name=ours, shape=there.shape[1:])


def _format(model: ExternalModel) -> ModelFormat:
    config = model.config or {}
    told = f"{config.get('platform', '')} {config.get('backend', '')}"
    return ModelFormat.TENSORRT if "tensorrt" in told else ModelFormat.ONNX
