"""The one trial of a run on a server that is up: its load, its judgement, the run's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.flow.external.server import ExternalAddress
from harness.flow.options import RunSettings
from harness.flow.serving import Site
from harness.flow.trial import TrialRunner
from harness.load.generators.pool import REQUEST_TIMEOUT_S, LoadGenerators
from harness.runs.folder import RunFolder, read_run
from harness.types import ModelVariant, ServiceLevelObjective, Trial, TrialResult


@dataclass(frozen=True)
class SingleLoad:
    """What is sent to a server that is up."""

    site: Site
    address: ExternalAddress
    variant: ModelVariant
    payloads: Path
    """File of what is sent."""
    trial: Trial
    request_timeout_s: float = REQUEST_TIMEOUT_S
    """The longest wait for an answer, or for each gap of a stream."""


def drive_one(
    load: SingleLoad, slo: ServiceLevelObjective, folder: RunFolder, settings: RunSettings
) -> TrialResult:
    """Measure a run's one trial and judge it; the run folder gets its tables."""
    name, target = load.variant.name, load.address.target
    with LoadGenerators(
        http=target,
        grpc=target,
        workers=settings.workers or 1,
        log_dir=folder.path / "logs",
        cpus=settings.cpus_generator,
        implementation=settings.grpc,
        request_timeout_s=load.request_timeout_s,
    ) as generators:
        runner = TrialRunner(
            load.site,
            generators,
            folder,
            variants={name: load.variant},
            payloads={name: load.payloads},
            settings=settings,
        )
        result = runner.settle(load.trial, slo)
    from harness.runs.tables import write_tables  # pandas: nothing else of a trial needs it

    write_tables(read_run(folder.path), folder.path)
    return result
