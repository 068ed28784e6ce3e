"""One trial on a server that is already up, measured as it is: driven here, or only watched.

The artefact behind such a server is not known: its address, what its server says of the model and
what that answers stand in for the digest (`identity`), and no quality score is joined to the trial.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.validity import judge_validity
from harness.flow.external.identity import FOLDER
from harness.flow.external.server import OpenServer
from harness.flow.external.single import SingleLoad, drive_one
from harness.flow.options import RunSettings
from harness.flow.preflight import check_requests, try_one_request
from harness.flow.results import BegunTrial, ServerSide, assess_trial, client_side, generator_side
from harness.load.generators.pool import REQUEST_TIMEOUT_S
from harness.load.requests.fit import cast_payloads
from harness.load.requests.payloads import Group, write_payloads
from harness.load.transports.opening import transport_opener
from harness.planning.assessment import Assessment
from harness.runs.folder import RunFolder
from harness.serving.external.server import ExternalModel
from harness.study import ENSEMBLE_SUFFIX, Study, variant_name
from harness.study.clauses import request_bounds
from harness.system.storage import cache_root
from harness.types import (
    LoadResult,
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServiceLevelObjective,
    TensorSpec,
    Trial,
    TrialResult,
    Workload,
)


@dataclass(frozen=True)
class ExternalTrial:
    """A trial that passed every check before the load."""

    trial: Trial
    variant: ModelVariant
    groups: Sequence[Group]


def prepare_external(
    model: ExternalModel,
    opened: OpenServer,
    name: str,
    groups: Sequence[Group],
    workload: Workload,
    study: Study | None,
    settings: RunSettings,
) -> ExternalTrial:
    """Check that a model takes the workload's requests, and answers the first of them.

    Args:
        model: as its server describes it.
        opened: the server.
        name: of the variant that it is, or the model's own.
        groups: arrays (n, length) by input name.
        workload: what is to be sent.
        study: says what the model is.
        settings: which transport.

    Raises:
        UsageError: something does not fit; nothing was started.
    """
    groups = cast_payloads(groups, model.inputs)
    check_requests(model, groups, workload)
    address = opened.address
    opener = transport_opener(
        address.protocol, address.target, timeout_s=REQUEST_TIMEOUT_S, grpc=settings.grpc
    )
    outputs = try_one_request(model, groups, workload, opener)
    family = study.family_of(name).name if study else name
    trial = Trial(name, family, model.serving, workload, stage="load")
    variant = _variant(trial, model, outputs, study)
    identity = opened.identities.establish(
        model,
        groups,
        variant.precision,
        folders=(cache_root() / FOLDER,),
        warn=settings.warn,
    )
    return ExternalTrial(trial, dataclasses.replace(variant, sha256=identity), groups)


def measure_external(
    opened: OpenServer,
    prepared: ExternalTrial,
    slo: ServiceLevelObjective,
    folder: RunFolder,
    settings: RunSettings,
) -> TrialResult:
    """Drive the load and read what the server says of it."""
    payloads = folder.path / "payloads" / "remote.npz"
    write_payloads(payloads, prepared.groups)
    load = SingleLoad(opened.site(), opened.address, prepared.variant, payloads, prepared.trial)
    return drive_one(load, slo, folder, settings)


def _variant(
    trial: Trial,
    model: ExternalModel,
    outputs: tuple[TensorSpec, ...],
    study: Study | None,
) -> ModelVariant:
    """What is served, as far as it is known.

    Without a study its precision is not: known answers are then compared as loosely as for the
    coarsest.
    """
    role, task, precision = Role.STUDENT, "", Precision.INT8
    form = ModelFormat.ONNX
    if study:
        family = study.family_of(trial.variant)
        role, precision, form = next(
            (model.role, *artefact)
            for model in family.models
            for artefact in model.artefacts
            if variant_name(model, *artefact) == trial.variant.removesuffix(ENSEMBLE_SUFFIX)
        )
        task = family.task.kind
    return ModelVariant(
        name=trial.variant,
        family=trial.family,
        role=role,
        task=task,
        format=form,
        precision=precision,
        source="",
        sha256=model.identity,
        path=Path(),
        inputs=model.inputs,
        outputs=outputs,
        parameters=0,
        size_bytes=None,
        served_as=model.name,
    )


def assess_load(
    begun: BegunTrial,
    load: LoadResult,
    slo: ServiceLevelObjective,
    *,
    workload: Workload,
    served: ServerSide,
    confidence: float,
    spoilt: str = "",
) -> Assessment | None:
    """Join both sides of a load's window and judge it.

    Args:
        begun: which trial it is.
        load: what the clients saw.
        slo: the objective; without clauses only the measurement itself is judged.
        workload: that the load is compared with.
        served: what the server counted in about the same time, and its machine.
        confidence: of every interval.
        spoilt: what else the measurement suffered, such as a lost process; empty for nothing.

    Returns:
        The assessment, whose `result` carries the decision; None while the window is empty.
    """
    if not load.window:
        return None
    bounds = request_bounds(slo)
    _, reason = judge_validity(
        load, served.server, workload, server_alive=True, host=served.host, bounds=bounds
    )
    return assess_trial(
        begun,
        slo,
        client_side(load.window, load.slice_s, workload, confidence, bounds=bounds),
        generators=generator_side(load),
        served=served,
        invalid_reason="; ".join(filter(None, [spoilt, reason])),
    )
