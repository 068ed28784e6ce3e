"""One trial on a server that is already up: found by its address, measured as it is.

Nothing is exported, loaded or configured. The artefact behind such a server is not known, so its
digest stays empty and no quality score is ever joined to the trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.load.generators import REQUEST_TIMEOUT_S, LoadGenerators
from harness.load.payloads import Group, write_payloads
from harness.load.transports.address import Target, parse_target
from harness.load.transports.opening import transport_opener
from harness.pipeline.machinery import Machinery
from harness.pipeline.preflight import check_live, check_requests, try_one_request
from harness.pipeline.serving import Site
from harness.pipeline.trial import TrialRunner
from harness.runs import RunFolder, read_run
from harness.serving.remote import RemoteModel, RemoteServer
from harness.serving.remote_grpc import GrpcServer
from harness.serving.remote_http import HttpServer
from harness.study import PIPELINE_SUFFIX, Study, variant_name
from harness.tables import write_tables
from harness.types import (
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServiceLevelObjective,
    TaskKind,
    TensorSpec,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)

PROTOCOLS = {
    "http": WireProtocol.HTTP,
    "https": WireProtocol.HTTP,
    "grpc": WireProtocol.GRPC,
    "grpcs": WireProtocol.GRPC,
}


@dataclass(frozen=True)
class RemoteAddress:
    """Where a server is, and what it is asked in."""

    url: str
    target: Target
    protocol: WireProtocol


@dataclass(frozen=True)
class RemoteTrial:
    """A trial that passed every check before the load."""

    trial: Trial
    variant: ModelVariant
    groups: Sequence[Group]


def parse_url(
    url: str, headers: Sequence[str], *, ca_file: Path | None, verify: bool
) -> RemoteAddress:
    """Read `grpcs://host:8001` with headers such as `Authorization: Bearer ...`.

    Raises:
        UsageError: no protocol, no address, or a header that cannot be sent.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in PROTOCOLS:
        raise UsageError(
            f"'{url}' names no protocol that is known here",
            next_step="write it as http://HOST:PORT, https://, grpc:// or grpcs://",
        )
    pairs = tuple((name.strip(), value.strip()) for name, value in map(_header, headers))
    target = parse_target(url, headers=pairs, ca_file=ca_file, verify=verify)
    return RemoteAddress(url, target, PROTOCOLS[scheme])


@contextmanager
def open_remote(address: RemoteAddress) -> Iterator[RemoteServer]:
    """A server that answers and takes requests.

    Raises:
        UsageError: it does not.
    """
    is_http = address.protocol is WireProtocol.HTTP
    server: RemoteServer = HttpServer(address.target) if is_http else GrpcServer(address.target)
    try:
        check_live(server, address.url)
        yield server
    finally:
        server.close()


def prepare_remote(
    model: RemoteModel,
    address: RemoteAddress,
    groups: Sequence[Group],
    workload: Workload,
    study: Study | None,
    machinery: Machinery,
) -> RemoteTrial:
    """Check that a model takes the workload's requests, and answers the first of them.

    Args:
        model: as its server describes it; a variant's of the study, where there is one.
        address: the server's.
        groups: arrays (n, length) by input name.
        workload: what is to be sent.
        study: says what the model is.
        machinery: which transport.

    Raises:
        UsageError: something does not fit; nothing was started.
    """
    check_requests(model, groups, workload)
    opener = transport_opener(
        address.protocol, address.target, timeout_s=REQUEST_TIMEOUT_S, grpc=machinery.grpc
    )
    outputs = try_one_request(model, groups, workload, opener)
    family = study.family_of(model.name).name if study else model.name
    trial = Trial(model.name, family, model.serving, workload, stage="load")
    return RemoteTrial(trial, _variant(trial, model.inputs, outputs, study), groups)


def measure_remote(
    server: RemoteServer,
    address: RemoteAddress,
    prepared: RemoteTrial,
    slo: ServiceLevelObjective,
    folder: RunFolder,
    machinery: Machinery,
) -> TrialResult:
    """Drive the load and read what the server says of it."""
    name = prepared.variant.name
    payloads = folder.path / "payloads" / "remote.npz"
    write_payloads(payloads, prepared.groups)
    with LoadGenerators(
        http=address.target,
        grpc=address.target,
        workers=machinery.workers or 1,
        log_dir=folder.path / "logs",
        cpus=machinery.cpus_generator,
        implementation=machinery.grpc,
    ) as generators:
        runner = TrialRunner(
            Site(server, server, control=None),
            generators,
            folder,
            variants={name: prepared.variant},
            payloads={name: payloads},
            machinery=machinery,
        )
        result = runner.measure(prepared.trial, slo)
    folder.journal.add_trial(result)
    write_tables(read_run(folder.path), folder.path)
    return result


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError("a header without a colon", next_step="write it as 'NAME: VALUE'")
    return name, value


def _variant(
    trial: Trial,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    study: Study | None,
) -> ModelVariant:
    """What is served, as far as it is known.

    Without a study its precision is not: known answers are then compared as loosely as for the
    coarsest.
    """
    role, task, precision = Role.STUDENT, TaskKind.SEQUENCE_CLASSIFICATION, Precision.INT8
    if study:
        family = study.family_of(trial.variant)
        role, precision = next(
            (model.role, one)
            for model in family.models
            for one in model.precisions
            if variant_name(model, one) == trial.variant.removesuffix(PIPELINE_SUFFIX)
        )
        task = family.task.kind
    return ModelVariant(
        name=trial.variant,
        family=trial.family,
        role=role,
        task=task,
        format=ModelFormat.ONNX,
        precision=precision,
        source="",
        sha256="",
        path=Path(),
        inputs=inputs,
        outputs=outputs,
        parameters=0,
        size_bytes=0,
    )
