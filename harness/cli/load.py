"""harness load: one trial of one variant, by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, output, print_json
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    CpusGenerator,
    CpusServer,
    Repository,
    StudyFile,
    parse_cpus,
)
from harness.errors import EXIT_ENVIRONMENT, EXIT_OK
from harness.pipeline.inputs import check_inputs
from harness.pipeline.machinery import Machinery
from harness.pipeline.manifest import new_manifest
from harness.pipeline.run import measure_once
from harness.report.terminal import trial_table
from harness.runs import RunFolder
from harness.study_file import load_study
from harness.types import ServingConfig, Trial, WireProtocol, Workload


def load(
    study_file: StudyFile,
    variant: Annotated[str, typer.Option(help="Variant of the study.", show_default=False)],
    protocol: Annotated[WireProtocol, typer.Option(help="http or grpc.")] = WireProtocol.GRPC,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 4,
    client_batch_size: Annotated[int, typer.Option(min=1, help="Samples a request.")] = 1,
    duration: Annotated[float, typer.Option(min=0.1, help="Measured seconds.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds cut before.")] = 1.0,
    max_batch_size: Annotated[int, typer.Option(min=1, help="Triton's max_batch_size.")] = 16,
    queue_delay_us: Annotated[int, typer.Option(min=0, help="Dynamic batcher's delay.")] = 0,
    instances: Annotated[int, typer.Option(min=1, help="Model instances.")] = 1,
    intra_op_threads: Annotated[
        int, typer.Option(min=1, help="ONNX Runtime's threads an instance.")
    ] = 1,
    out: Annotated[Path | None, typer.Option(help="Keep the run folder here.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    cpus_server: CpusServer = None,
    cpus_generator: CpusGenerator = None,
    as_json: AsJson = False,
) -> int:
    """Serve one variant and drive it once; prints what both sides saw."""
    study = load_study(study_file)
    family = study.family_of(variant)
    trial = Trial(
        variant=variant,
        family=family.name,
        serving=ServingConfig(
            max_batch_size, queue_delay_us, instances, intra_op_threads=intra_op_threads
        ),
        workload=Workload(
            protocol, client_batch_size, concurrency, duration, warmup, seed=study.seed
        ),
        stage="load",
    )
    check_inputs(study)
    with tempfile.TemporaryDirectory(prefix="harness-load-") as scratch, ProgressDisplay() as shown:
        machinery = Machinery(
            repository, parse_cpus(cpus_server), parse_cpus(cpus_generator), shown
        )
        folder = RunFolder.create(out or Path(scratch) / "run", new_manifest(study))
        with folder:
            result = measure_once(study, trial, folder, machinery)
    if as_json:
        print_json(result)
    else:
        output.print(trial_table(result))
    return EXIT_OK if result.valid else EXIT_ENVIRONMENT
