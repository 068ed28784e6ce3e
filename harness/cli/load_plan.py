"""What `harness load` sends and measures, and what it comes to once all its options agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.external import ExternalServerOptions, check_own_server_options
from harness.cli.generation_options import GenerationOptions
from harness.cli.options import read_study, variant_missing
from harness.cli.run import override
from harness.cli.traffic_options import TrafficOptions
from harness.errors import UsageError
from harness.types import (
    GrpcImplementation,
    ServiceLevelObjective,
    ServingConfig,
    WireProtocol,
    Workload,
)

if TYPE_CHECKING:
    from harness.flow.external.server import ExternalAddress
    from harness.study import Study

NO_OBJECTIVE = ServiceLevelObjective("", ())


@dataclass(frozen=True)
class LoadPlan:
    """What is measured, once all options agree."""

    source: Source
    study: Study | None
    address: ExternalAddress | None
    name: str
    """Name of the variant, or of the model on the external server."""
    name_there: str
    """The model's name on the server."""
    serving: ServingConfig
    workload: Workload
    slo: ServiceLevelObjective
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    @property
    def judged(self) -> bool:
        """Whether there is an objective that a load decides."""
        from harness.study.clauses import load_clauses

        return bool(load_clauses(self.slo))


def make_plan(
    source: Source,
    traffic: TrafficOptions,
    serving: ServingOptions,
    slo: str | None,
    generation: GenerationOptions,
) -> LoadPlan:
    """Read every option and hold them against each other; nothing is started.

    Args:
        source: what is measured.
        traffic: what it is sent.
        serving: how it is served, where the harness serves.
        slo: the objective instead of the study's.
        generation: how a model that generates is asked.

    Raises:
        UsageError: options that contradict each other, or a study file that is wrong.
    """
    generation.check()
    source.check(generates=generation.generate is not None)
    study, address = _study(source, slo), source.address()
    if address and serving.given:
        raise UsageError(
            "--max-batch-size, --queue-delay-us, --instances and --intra-op-threads apply only "
            "to a server that the harness starts, not to --url",
            next_step="leave them out",
        )
    protocol = address.protocol if address else source.protocol or WireProtocol.GRPC
    plan = LoadPlan(
        source,
        study,
        address,
        source.variant or source.model or "",
        source.model or source.variant or "",
        _serving(serving, traffic, study, source.variant),
        traffic.workload(protocol, study.seed if study else 0, generation.generation(protocol)),
        _objective(study, source.variant, slo, streams=generation.generate is not None),
        generation,
    )
    if traffic.until_decided and not plan.judged:
        raise UsageError(
            "--until-decided needs an objective",
            next_step="name one: --slo 'p95 < 50 ms'",
        )
    if slo is not None and not plan.judged:
        raise UsageError(
            f"--slo {slo!r}: a load test does not measure quality",
            next_step="name a latency, a throughput or an error rate: --slo 'p95 < 50 ms'",
        )
    return plan


def _serving(
    serving: ServingOptions, traffic: TrafficOptions, study: Study | None, variant: str | None
) -> ServingConfig:
    """What was given, on instances of the kind that the study's variant is served on."""
    found = dataclasses.replace(serving.config(), response_cache=traffic.response_cache)
    if study is None or variant is None:
        return found
    kind = study.serving_of(study.family_of(variant)).instance_kind
    return dataclasses.replace(found, instance_kind=kind)


def _study(source: Source, slo: str | None) -> Study | None:
    if source.study_file is None:
        return None
    study = read_study(source.study_file)
    from harness.flow.pricing import priced_study

    asked = study if slo is None else override(study, slo, only=source.variant)
    return priced_study(asked, external=source.url is not None)


def _objective(
    study: Study | None, variant: str | None, slo: str | None, *, streams: bool
) -> ServiceLevelObjective:
    from harness.study.clauses import check_counted, check_priced, check_streamed
    from harness.study.objective import parse_objective

    if study is None or variant is None:
        alone = parse_objective(slo) if slo is not None else NO_OBJECTIVE
        check_priced(alone)
        check_counted(alone)
        if not streams:
            check_streamed(alone)
        return alone
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
            "--records needs --out: without it the run folder is deleted",
            next_step="say where to keep the run folder: --out runs/mine",
        )
    check_own_server_options(remote=plan.address is not None, cpus_server=cpus, server_ports=ports)
    if transport is GrpcImplementation.GRPCIO and plan.workload.generation is not None:
        raise UsageError(
            "--transport grpcio reads no streams: it cannot tell when a token came",
            next_step="leave it out",
        )
    if transport is GrpcImplementation.GRPCIO and plan.workload.protocol is WireProtocol.HTTP:
        raise UsageError(
            "--transport grpcio is for gRPC, but the load is HTTP",
            next_step="leave it out, or use --protocol grpc or a grpc:// address",
        )


NOTHING_NAMED = (
    "nothing to measure: give a study file and --variant, or --url, --model and --payloads, or "
    "--generate in place of --payloads for a model that writes"
)
NOTHING_TO_SEND = (
    "nothing to send: give --payloads, or --generate for a model that writes, for which prompts "
    "are made up"
)


@dataclass(frozen=True)
class ServingOptions:
    """Triton's side; None was not given."""

    max_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Triton's max_batch_size; default: 16.")
    ] = None
    queue_delay_us: Annotated[
        int | None, typer.Option(min=0, help="Dynamic batcher's queue delay; default: 0.")
    ] = None
    instances: Annotated[int | None, typer.Option(min=1, help="Model instances; default: 1.")] = (
        None
    )
    intra_op_threads: Annotated[
        int | None, typer.Option(min=1, help="ONNX Runtime's threads per instance; default: 1.")
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of them was."""
        return any(one is not None for one in astuple(self))

    def config(self) -> ServingConfig:
        """What was given, and ServingConfig's own defaults."""
        plain = ServingConfig()
        return ServingConfig(
            max_batch_size=self.max_batch_size or plain.max_batch_size,
            queue_delay_us=self.queue_delay_us or plain.queue_delay_us,
            instance_count=self.instances or plain.instance_count,
            intra_op_threads=self.intra_op_threads or plain.intra_op_threads,
        )


@dataclass(frozen=True)
class Source:
    """What to measure, as given on the command line."""

    study_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY",
            exists=True,
            dir_okay=False,
            show_default=False,
            help="The study file; without one, --url, --model and --payloads are required, or "
            "--generate in place of --payloads for a model that writes.",
        ),
    ] = None
    variant: Annotated[
        str | None, typer.Option(help="Variant of the study.", show_default=False)
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help="With --url: the name of the model on the server.",
            show_default=False,
        ),
    ] = None
    payloads: Annotated[
        Path | None,
        typer.Option(
            help="With --model: an .npz file with one array (rows, ...) per input.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None
    remote: ExternalServerOptions = field(default_factory=ExternalServerOptions)
    protocol: Annotated[
        WireProtocol | None,
        typer.Option(
            help="http or grpc (default); with --url, the address decides.", show_default=False
        ),
    ] = None

    @property
    def url(self) -> str | None:
        """Options that concern an external server."""
        return self.remote.url

    def address(self) -> ExternalAddress | None:
        """Where the server that is up is; None where the harness serves.

        Raises:
            UsageError: an address that cannot be, or of another protocol than was named.
        """
        address = self.remote.address()
        if address is not None and self.protocol not in {None, address.protocol}:
            raise UsageError(
                f"--protocol {self.protocol} and --url {self.url} contradict each other",
                next_step="leave --protocol out: the address names it",
            )
        return address

    def check(self, *, generates: bool = False) -> None:
        """Make sure that it says what to measure, and only that.

        Args:
            generates: whether the model is asked for streams: it takes prompts then.

        Raises:
            UsageError: the first thing that is missing, or that has no meaning here.
        """
        problems = self._problems_of_streams() if generates else self._problems()
        for problem, next_step in problems:
            raise UsageError(problem, next_step=next_step)

    def _problems_of_streams(self) -> Iterator[tuple[str, str]]:
        whole = "harness load --url http://HOST:PORT --model NAME --generate chat"
        if self.url is None or self.model is None:
            yield "--generate needs --url and --model: the server, and its model", whole
        if self.study_file is not None or self.variant is not None:
            yield "--generate measures a server's model by its name, not a study's variant", whole
        if self.payloads is not None:
            yield (
                "--payloads holds tensors, and --generate sends prompts",
                "name them with --prompts",
            )

    def _problems(self) -> Iterator[tuple[str, str]]:
        there = "harness load --url http://HOST:PORT --model NAME"
        whole = f"{there} --payloads FILE.npz, or {there} --generate chat"
        if self.study_file is None:
            if self.variant is not None:
                yield "--variant is given without a study file", whole
            if self.url is None or self.model is None:
                yield NOTHING_NAMED, whole
            if self.payloads is None:
                yield NOTHING_TO_SEND, whole
        elif self.variant is None:
            study = read_study(self.study_file)
            from harness.study import served_names

            yield variant_missing(served_names(study))
        elif self.payloads is not None or (self.model is not None and self.url is None):
            yield (
                "with a study file, --payloads is not used, and --model only with --url",
                "leave them out, or leave the study file out",
            )
