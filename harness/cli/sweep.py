"""harness sweep: the scripted sweep for CI, with the objective on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsIs,
    AsJson,
    CaFile,
    CpusGenerator,
    CpusServer,
    Header,
    Insecure,
    MetricsUrl,
    ModelNames,
    Out,
    Records,
    Repository,
    Resume,
    StudyFile,
    Track,
    Transport,
    Url,
    Workers,
)
from harness.cli.remote import RemoteOptions
from harness.cli.session import CpuOptions, GeneratorOptions, RunOptions, run_to_verdict
from harness.cli.telemetry import (
    MetricsPort,
    PrometheusHeader,
    PrometheusHost,
    PrometheusMatch,
    PrometheusUrl,
    ServerPorts,
    TelemetryOptions,
)
from harness.load.transports.opening import GrpcImplementation
from harness.planning.objective import parse_objective
from harness.study import Study
from harness.study_file import load_study, parse_study


def sweep(
    study_file: StudyFile,
    slo: Annotated[
        str | None, typer.Option(help="Objective, in place of the study's.", show_default=False)
    ] = None,
    search: Annotated[
        Literal["bisect", "grid"] | None,
        typer.Option(help="Search, in place of the study's.", show_default=False),
    ] = None,
    url: Url = None,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    metrics_url: MetricsUrl = None,
    model_name: ModelNames = None,
    as_is: AsIs = False,
    out: Out = None,
    resume: Resume = False,
    repository: Repository = DEFAULT_REPOSITORY,
    cpus_server: CpusServer = None,
    cpus_generator: CpusGenerator = None,
    workers: Workers = None,
    transport: Transport = GrpcImplementation.NATIVE,
    records: Records = False,
    prometheus: PrometheusUrl = None,
    prometheus_header: PrometheusHeader = None,
    prometheus_match: PrometheusMatch = None,
    prometheus_host: PrometheusHost = None,
    metrics_port: MetricsPort = None,
    server_ports: ServerPorts = None,
    track: Track = None,
    as_json: AsJson = False,
) -> int:
    """Run a study with another objective or search; the exit code is the verdict."""
    study = override(load_study(study_file), slo, search)
    generators = GeneratorOptions(workers, transport, records)
    cpus = CpuOptions(cpus_server, cpus_generator)
    telemetry = TelemetryOptions(
        prometheus,
        prometheus_header or (),
        prometheus_match,
        prometheus_host,
        metrics_port,
        server_ports,
    )
    trackers = tuple(track or ())
    remote = RemoteOptions(
        url, header or (), ca_file, insecure, metrics_url, model_name or (), as_is
    )
    options = RunOptions(
        out,
        resume,
        repository,
        as_json,
        generators,
        cpus,
        telemetry,
        trackers=trackers,
        remote=remote,
    )
    return run_to_verdict(study, options)


def override(study: Study, slo: str | None, search: str | None) -> Study:
    """The study with the objective of every family, and the search, replaced.

    Raises:
        ObjectiveError: the objective does not parse.
        StudyError: it names a metric that a family's task does not have.
    """
    document = study.model_dump(mode="json")
    if slo is not None:
        parse_objective(slo)
        document["objective"] = slo
        for family in document["families"]:
            family["objective"] = None
    if search is not None:
        document["search"] = search
    return parse_study(document, source="--slo")
