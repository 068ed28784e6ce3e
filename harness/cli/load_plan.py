"""What one `harness load` comes to, once all its options agree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.cli.external import check_own_server_options
from harness.cli.source import ServingOptions, Source
from harness.cli.sweep import override
from harness.cli.traffic import TrafficOptions
from harness.errors import UsageError
from harness.flow.external.server import RemoteAddress
from harness.load.transports.opening import GrpcImplementation
from harness.study import Study
from harness.study.file import load_study
from harness.study.objective import load_clauses, parse_objective
from harness.types import ServiceLevelObjective, ServingConfig, WireProtocol, Workload

NO_OBJECTIVE = ServiceLevelObjective("", ())


@dataclass(frozen=True)
class LoadPlan:
    """What is measured, once all options agree."""

    source: Source
    study: Study | None
    address: RemoteAddress | None
    name: str
    """Name of the variant, or of the model on the external server."""
    name_there: str
    """The model's name on the server."""
    serving: ServingConfig
    workload: Workload
    slo: ServiceLevelObjective

    @property
    def judged(self) -> bool:
        """Whether there is an objective that a load decides."""
        return bool(load_clauses(self.slo))


def make_plan(
    source: Source, traffic: TrafficOptions, serving: ServingOptions, slo: str | None
) -> LoadPlan:
    """Read every option and hold them against each other; nothing is started.

    Args:
        source: what is measured.
        traffic: what it is sent.
        serving: how it is served, where the harness serves.
        slo: the objective in place of the study's.

    Raises:
        UsageError: options that contradict each other, or a study file that is wrong.
    """
    source.check()
    study, address = _study(source, slo), source.address()
    if address and serving.given:
        raise UsageError(
            "the server at --url is measured as it is: --max-batch-size, --queue-delay-us, "
            "--instances and --intra-op-threads are for one that the harness starts",
            next_step="leave them out",
        )
    protocol = address.protocol if address else source.protocol or WireProtocol.GRPC
    plan = LoadPlan(
        source,
        study,
        address,
        source.variant or source.model or "",
        source.model or source.variant or "",
        dataclasses.replace(serving.config(), response_cache=traffic.response_cache),
        traffic.workload(protocol, study.seed if study else 0),
        _objective(study, source.variant, slo),
    )
    if traffic.until_decided and not plan.judged:
        raise UsageError(
            "--until-decided, and no objective to decide",
            next_step="name one: --slo 'p95 < 50 ms'",
        )
    if slo is not None and not plan.judged:
        raise UsageError(
            f"--slo {slo!r}: a load test measures no quality, and nothing else is asked for",
            next_step="name a latency, a throughput or an error rate: --slo 'p95 < 50 ms'",
        )
    return plan


def _study(source: Source, slo: str | None) -> Study | None:
    if source.study_file is None:
        return None
    study = load_study(source.study_file)
    return study if slo is None else override(study, slo, None)


def _objective(study: Study | None, variant: str | None, slo: str | None) -> ServiceLevelObjective:
    if study is None or variant is None:
        return parse_objective(slo) if slo is not None else NO_OBJECTIVE
    return study.objective_of(study.family_of(variant))


def check_machinery(
    plan: LoadPlan,
    transport: GrpcImplementation,
    *,
    records: bool,
    cpus: str | None,
    ports: str | None,
) -> None:
    """Refuse options that would do nothing.

    Args:
        plan: what is measured.
        transport: what speaks gRPC.
        records: whether requests would be written into a folder that nobody keeps.
        cpus: cores for the server.
        ports: of the server.

    Raises:
        UsageError: there is one.
    """
    if records:
        raise UsageError(
            "--records without --out: they would be thrown away with the run folder",
            next_step="name where the run folder is kept: --out runs/mine",
        )
    check_own_server_options(remote=plan.address is not None, cpus_server=cpus, server_ports=ports)
    if transport is GrpcImplementation.GRPCIO and plan.workload.protocol is WireProtocol.HTTP:
        raise UsageError(
            "--transport grpcio speaks gRPC, and the load is HTTP",
            next_step="leave it out, or use --protocol grpc or a grpc:// address",
        )
