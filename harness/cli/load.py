"""harness load: one trial by hand, of a study's variant or of any server that is up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import ProgressDisplay, output, print_json, print_line, say
from harness.cli.generation_options import GenerationOptions
from harness.cli.load_plan import (
    LoadPlan,
    ServingOptions,
    Source,
    check_machinery,
    make_plan,
)
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    CpuOptions,
    GeneratorOptions,
    Repository,
    make_settings,
    with_option_groups,
)
from harness.cli.session import EXIT_CODES
from harness.cli.telemetry import TelemetryOptions, watched
from harness.cli.traffic_options import TrafficOptions
from harness.errors import EXIT_ENVIRONMENT, EXIT_OK, UsageError
from harness.types import Trial, TrialResult

if TYPE_CHECKING:
    from harness.flow.external.server import ExternalAddress
    from harness.flow.options import RunSettings
    from harness.load.requests.payloads import Group


@with_option_groups
def load(
    *,
    source: Source,
    traffic: TrafficOptions,
    generation: GenerationOptions,
    slo: Annotated[
        str | None,
        typer.Option(
            help="Objective to judge by; default: the study's.",
            show_default=False,
        ),
    ] = None,
    serving: ServingOptions,
    out: Annotated[
        Path | None, typer.Option(help="Keep the run folder at this path.", show_default=False)
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    generators: GeneratorOptions,
    cpus: CpuOptions,
    telemetry: TelemetryOptions,
    as_json: AsJson = False,
) -> int:
    """Run one trial on one model; the exit code is the verdict on the objective.

    With --generate, the model's answers are read token by token: time to first token, every gap
    between tokens, tokens per second and goodput.
    Without --url, a variant of the study is exported and served first. Quality clauses are not
    judged: use harness run for those. Without an objective, the exit code is 0, or 5 if the
    measurement was not valid.
    """
    plan = make_plan(source, traffic, serving, slo, generation)
    check_machinery(
        plan,
        generators.transport,
        records=generators.records and out is None,
        cpus=cpus.cpus_server,
        ports=telemetry.server_ports,
    )
    from harness.report.terminal.trial import trial_table

    with _run_folder_path(out) as path, ProgressDisplay() as progress:
        settings = make_settings(repository, generators, cpus, progress=progress)
        with watched(settings, telemetry) as settings:
            result = _measure(plan, path, settings)
            _show_verdict(settings, result, plan)
    if as_json:
        print_json(result)
    else:
        output.print(trial_table(result, plan.slo))
        if out is not None:
            print_line(f"run: {out}")
    return _exit_code(result, plan)


def _show_verdict(settings: RunSettings, result: TrialResult, plan: LoadPlan) -> None:
    """Export the verdict to scrapers before the metrics page closes."""
    if settings.monitor is not None and plan.judged:
        settings.monitor.decide(result.trial.family, result.decision)


def _measure(plan: LoadPlan, path: Path, settings: RunSettings) -> TrialResult:
    from harness.flow.input_checks import check_embedded, check_inputs
    from harness.flow.manifest import new_manifest
    from harness.flow.preflight import check_served
    from harness.flow.run import measure_once
    from harness.flow.spaces import streamed
    from harness.runs.folder import RunFolder

    if plan.address is not None:
        return _measure_there(plan, plan.address, path, settings)
    if plan.study is None:
        raise UsageError("neither a study nor --url")
    family = plan.study.family_of(plan.name)
    workload = streamed(plan.workload, family)
    check_served(workload, plan.serving, family)
    check_embedded(plan.study.alone(plan.name))
    check_inputs(plan.study, settings.inputs, only=plan.name)
    trial = Trial(plan.name, family.name, plan.serving, workload, stage="load")
    with RunFolder.create(path, new_manifest(plan.study)) as folder:
        return measure_once(plan.study, trial, folder, settings)


def _measure_there(
    plan: LoadPlan, address: ExternalAddress, path: Path, settings: RunSettings
) -> TrialResult:
    from harness.flow.external.server import open_external, settled
    from harness.flow.external.trial import measure_external, prepare_external
    from harness.flow.manifest import bare_manifest, new_manifest
    from harness.flow.preflight import find_model
    from harness.runs.folder import RunFolder

    study, workload, name = plan.study, plan.workload, plan.name_there
    if workload.generation is not None:
        return _measure_streams(plan, address, path, settings)
    with open_external(address) as found_server:
        found = find_model(found_server.server, address.url, name)
        groups = _groups(plan, settings)
        opened = settled(found_server, found, groups, workload, settings.grpc)
        if lacks := opened.lacking(name):
            say(f"{address.url} is {opened.facts.words}; it does not offer: {', '.join(lacks)}")
        prepared = prepare_external(found, opened, plan.name, groups, workload, study, settings)
        manifest = new_manifest(study) if study else bare_manifest(plan.name, workload.seed)
        with RunFolder.create(path, manifest) as folder:
            return measure_external(opened, prepared, plan.slo, folder, settings)


def _measure_streams(
    plan: LoadPlan, address: ExternalAddress, path: Path, settings: RunSettings
) -> TrialResult:
    from harness.flow.external.generation import measure_generation, prepared_generation
    from harness.flow.manifest import bare_manifest
    from harness.runs.folder import RunFolder

    workload, name = plan.workload, plan.name_there
    requests = plan.generation.requests(workload.seed)
    timeout_s = plan.generation.stall_timeout_s
    with prepared_generation(address, name, workload, requests, timeout_s=timeout_s) as prepared:
        manifest = bare_manifest(plan.name, workload.seed)
        with RunFolder.create(path, manifest) as folder:
            return measure_generation(prepared, plan.slo, folder, settings)


def _groups(plan: LoadPlan, settings: RunSettings) -> Sequence[Group]:
    from harness.flow.input_checks import check_driven, check_inputs
    from harness.flow.opening import payloads_for
    from harness.load.requests.payloads import read_payloads

    if plan.source.payloads is not None:
        return read_payloads(plan.source.payloads)
    if plan.study is None:
        raise UsageError("neither a study nor --payloads")
    check_driven(plan.study.alone(plan.name))
    check_inputs(plan.study, settings.inputs, only=plan.name)
    return payloads_for(plan.study, plan.name, settings.progress, settings.inputs)


@contextmanager
def _run_folder_path(out: Path | None) -> Iterator[Path]:
    """The folder that keeps the trial, or a temporary one that is removed afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="harness-load-") as scratch:
        yield Path(scratch) / "run"


def _exit_code(result: TrialResult, plan: LoadPlan) -> int:
    """The decision's, where there is an objective; else whether it was measured well."""
    if not result.valid:
        return EXIT_ENVIRONMENT
    return EXIT_CODES[result.decision] if plan.judged else EXIT_OK
