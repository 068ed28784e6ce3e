"""harness run: the whole job on the user's study."""

from __future__ import annotations

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
from harness.study_file import load_study


def run(
    study_file: StudyFile,
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
    """Export, serve, score, sweep, decide, report."""
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
    return run_to_verdict(load_study(study_file), options)
