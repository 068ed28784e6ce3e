"""The options that run and sweep have in common, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from typing import Any

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
    Track,
    Transport,
    Url,
    Workers,
)
from harness.cli.remote import RemoteOptions
from harness.cli.session import CpuOptions, GeneratorOptions, RunOptions
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


def gather_run_options(
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
) -> RunOptions:
    """What was typed, sorted by subject."""
    return RunOptions(
        out,
        resume,
        repository,
        as_json,
        GeneratorOptions(workers, transport, records),
        CpuOptions(cpus_server, cpus_generator),
        TelemetryOptions(
            prometheus,
            prometheus_header or (),
            prometheus_match,
            prometheus_host,
            metrics_port,
            server_ports,
        ),
        trackers=tuple(track or ()),
        remote=RemoteOptions(
            url, header or (), ca_file, insecure, metrics_url, model_name or (), as_is
        ),
    )


def with_run_options(command: Callable[..., int]) -> Callable[..., int]:
    """The command as typer is to read it: its parameter `options` as the options one by one."""
    common = signature(gather_run_options, eval_str=True).parameters
    own = dict(signature(command, eval_str=True).parameters)
    del own["options"]

    @wraps(command)
    def called(**arguments: Any) -> int:
        options = gather_run_options(**{name: arguments.pop(name) for name in common})
        return command(**arguments, options=options)

    called.__signature__ = Signature([*own.values(), *common.values()])  # type: ignore[attr-defined]  # inspect looks for it
    return called
