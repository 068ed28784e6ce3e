"""harness load: one trial by hand, of a study's variant or of any server that is up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, output, print_json, print_line, say
from harness.cli.load_plan import NO_OBJECTIVE, LoadPlan, check_machinery, make_plan
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    CaFile,
    CpusGenerator,
    CpusServer,
    Header,
    Insecure,
    MetricsUrl,
    Records,
    Repository,
    Transport,
    Url,
    Workers,
)
from harness.cli.remote import RemoteOptions
from harness.cli.session import EXIT_CODES, CpuOptions, GeneratorOptions, make_machinery
from harness.cli.source import ServingOptions, Source
from harness.cli.telemetry import (
    MetricsPort,
    PrometheusHeader,
    PrometheusHost,
    PrometheusMatch,
    PrometheusUrl,
    ServerPorts,
    TelemetryOptions,
    watched,
)
from harness.cli.traffic import TrafficOptions
from harness.errors import EXIT_ENVIRONMENT, EXIT_OK, UsageError
from harness.load.payloads import Group, read_payloads
from harness.load.transports.opening import GrpcImplementation
from harness.pipeline.inputs import check_embedded, check_inputs
from harness.pipeline.machinery import Machinery
from harness.pipeline.manifest import bare_manifest, new_manifest
from harness.pipeline.preflight import check_served, find_model
from harness.pipeline.preparation import payloads_for
from harness.pipeline.remote import RemoteAddress, open_remote
from harness.pipeline.remote_trial import measure_remote, prepare_remote
from harness.pipeline.run import measure_once
from harness.report.one_trial import trial_table
from harness.runs import RunFolder
from harness.types import (
    ServiceLevelObjective,
    Trial,
    TrialResult,
    WireProtocol,
)


def load(
    study_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY",
            exists=True,
            dir_okay=False,
            show_default=False,
            help="The study file; without one, --url, --model and --payloads say what to send.",
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Variant of the study.", show_default=False)
    ] = None,
    url: Url = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="With --url: a model there, or what the variant is called there.",
            show_default=False,
        ),
    ] = None,
    payloads: Annotated[
        Path | None,
        typer.Option(
            help="With --model: an .npz of arrays GROUP/INPUT, each (rows, ...).",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    metrics_url: MetricsUrl = None,
    protocol: Annotated[
        WireProtocol | None,
        typer.Option(help="http or grpc (default; --url says its own).", show_default=False),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Requests in flight: a closed loop. [default: 4]")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second: an open loop.", show_default=False)
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(help="Open loop: poisson (default), constant, gamma:CV or trace:FILE."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Open loop: ramp, step, spike or sine, as in ramp:0.2..1/60s."),
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Open loop: more are dropped and counted. [default: 512]")
    ] = None,
    client_batch_size: Annotated[
        int | None, typer.Option(help="Samples a request. [default: 1]")
    ] = None,
    batch_mix: Annotated[
        str | None, typer.Option(help="Or sizes by weight: 1:0.7,8:0.3.", show_default=False)
    ] = None,
    length_mix: Annotated[
        str | None,
        typer.Option(help="Padded lengths by weight: 16:1,32:2; default: the data's own."),
    ] = None,
    duration: Annotated[float, typer.Option(help="Measured seconds.")] = 10.0,
    warmup: Annotated[float, typer.Option(help="Longest warm-up, in seconds, cut before.")] = 2.0,
    slo: Annotated[
        str | None,
        typer.Option(
            help="Objective to judge by, in place of the study's; the exit code is then its.",
            show_default=False,
        ),
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="End once the objective is decided; then as --slo."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Draws requests and arrivals; default: the study's, or 0.")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Triton's max_batch_size. [default: 16]")
    ] = None,
    queue_delay_us: Annotated[
        int | None, typer.Option(min=0, help="Dynamic batcher's delay. [default: 0]")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Model instances. [default: 1]")
    ] = None,
    intra_op_threads: Annotated[
        int | None, typer.Option(min=1, help="ONNX Runtime's threads an instance. [default: 1]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep the run folder here.", show_default=False)
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    transport: Transport = GrpcImplementation.NATIVE,
    workers: Workers = None,
    records: Records = False,
    cpus_server: CpusServer = None,
    cpus_generator: CpusGenerator = None,
    prometheus: PrometheusUrl = None,
    prometheus_header: PrometheusHeader = None,
    prometheus_match: PrometheusMatch = None,
    prometheus_host: PrometheusHost = None,
    metrics_port: MetricsPort = None,
    server_ports: ServerPorts = None,
    as_json: AsJson = False,
) -> int:
    """Drive one model once; prints what both sides saw.

    Without --url a variant of the study is exported and served first.
    """
    remote = RemoteOptions(url, header or (), ca_file, insecure, metrics_url)
    source = Source(study_file, variant, model, payloads, remote, protocol)
    traffic = TrafficOptions(
        concurrency,
        rate,
        arrivals,
        shape,
        max_in_flight,
        client_batch_size,
        batch_mix,
        length_mix,
        duration,
        warmup,
        until_decided,
    )
    serving = ServingOptions(max_batch_size, queue_delay_us, instances, intra_op_threads)
    plan = make_plan(source, traffic, serving, slo, seed)
    check_machinery(
        plan,
        transport,
        records=records and out is None,
        cpus=cpus_server,
        ports=server_ports,
    )
    telemetry = TelemetryOptions(
        prometheus,
        prometheus_header or (),
        prometheus_match,
        prometheus_host,
        metrics_port,
        server_ports,
    )
    judged = plan.slo if slo is not None or until_decided else NO_OBJECTIVE
    with _run_folder_path(out) as path, ProgressDisplay() as progress:
        machinery = make_machinery(
            repository,
            GeneratorOptions(workers, transport, records),
            CpuOptions(cpus_server, cpus_generator),
            progress=progress,
        )
        with watched(machinery, telemetry) as machinery:
            result = _measure(plan, path, machinery)
            _show_verdict(machinery, result, judged)
    if as_json:
        print_json(result)
    else:
        output.print(trial_table(result, plan.slo))
        if out is not None:
            print_line(f"run: {out}")
    return _exit_code(result, judged)


def _show_verdict(machinery: Machinery, result: TrialResult, judged: ServiceLevelObjective) -> None:
    """To whoever scrapes this, before the page goes."""
    if machinery.monitor is not None and judged.constraints:
        machinery.monitor.decide(result.trial.family, result.decision)


def _measure(plan: LoadPlan, path: Path, machinery: Machinery) -> TrialResult:
    if plan.address is not None:
        return _measure_there(plan, plan.address, path, machinery)
    if plan.study is None:
        raise UsageError("neither a study nor --url")
    family = plan.study.family_of(plan.name)
    check_served(plan.workload, plan.serving, family)
    check_embedded(plan.study)
    check_inputs(plan.study)
    trial = Trial(plan.name, family.name, plan.serving, plan.workload, stage="load")
    with RunFolder.create(path, new_manifest(plan.study)) as folder:
        return measure_once(plan.study, trial, folder, machinery)


def _measure_there(
    plan: LoadPlan, address: RemoteAddress, path: Path, machinery: Machinery
) -> TrialResult:
    study, workload, name = plan.study, plan.workload, plan.name_there
    with open_remote(address) as opened:
        found = find_model(opened.server, address.url, name)
        if lacks := opened.lacking(name):
            say(f"{address.url} is {opened.facts.words}; it does not offer: {', '.join(lacks)}")
        groups = _groups(plan, machinery)
        prepared = prepare_remote(found, opened, plan.name, groups, workload, study, machinery)
        manifest = new_manifest(study) if study else bare_manifest(plan.name, workload.seed)
        with RunFolder.create(path, manifest) as folder:
            return measure_remote(opened, prepared, plan.slo, folder, machinery)


def _groups(plan: LoadPlan, machinery: Machinery) -> Sequence[Group]:
    if plan.source.payloads is not None:
        return read_payloads(plan.source.payloads)
    if plan.study is None:
        raise UsageError("neither a study nor --payloads")
    check_inputs(plan.study)
    return payloads_for(plan.study, plan.name, machinery.progress)


@contextmanager
def _run_folder_path(out: Path | None) -> Iterator[Path]:
    """Where it is kept, or a place that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="harness-load-") as scratch:
        yield Path(scratch) / "run"


def _exit_code(result: TrialResult, judged: ServiceLevelObjective) -> int:
    """The decision's, where an objective was asked for here; else whether it was measured well."""
    if not result.valid:
        return EXIT_ENVIRONMENT
    return EXIT_CODES[result.decision] if judged.constraints else EXIT_OK
