"""One trial: configure the server, drive the load, read both sides over one window, join them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from harness.analysis.latency import merge, summarise
from harness.analysis.validity import judge_validity
from harness.errors import GeneratorError
from harness.load.generators import LoadGenerators, LoadJob
from harness.planning.decision import judge_trial
from harness.runs import RunFolder
from harness.serving.embedded import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.repository import config_override
from harness.storage import utc_now
from harness.telemetry.window import TelemetryWindow
from harness.types import (
    Decision,
    HostMetrics,
    LoadResult,
    ModelVariant,
    ServerMetrics,
    ServiceLevelObjective,
    ServingConfig,
    Trial,
    TrialResult,
)


class TrialRunner:
    """Measures trials on one running server with one set of load generators."""

    def __init__(
        self,
        server: EmbeddedTriton,
        client: TritonClient,
        generators: LoadGenerators,
        folder: RunFolder,
        *,
        variants: Mapping[str, ModelVariant],
        payloads: Mapping[str, Path],
    ) -> None:
        """`payloads` names the payload file of each variant."""
        self._server = server
        self._client = client
        self._generators = generators
        self._folder = folder
        self._variants = variants
        self._payloads = payloads
        self._loaded: tuple[str, ServingConfig] | None = None

    def sha256(self, trial: Trial) -> str:
        """Digest of the artefact that a trial would load."""
        return self._variants[trial.variant].sha256

    def measure(self, trial: Trial, slo: ServiceLevelObjective) -> TrialResult:
        """Measure a trial and judge it against the objective.

        Raises:
            ServerError: the server died, or refused the serving configuration.
        """
        variant = self._variants[trial.variant]
        self._configure(variant, trial.serving)
        started_utc = utc_now()
        window = TelemetryWindow(
            self._client,
            metrics_url=self._server.endpoint.metrics,
            server_pid=self._server.pid,
            model=variant.name,
        )
        sides: list[tuple[ServerMetrics, HostMetrics]] = []
        job = LoadJob(variant.name, self._payloads[variant.name], variant.outputs, trial.workload)
        try:
            load = self._generators.run(
                job,
                on_window_start=window.open,
                on_window_end=lambda: sides.append(window.close()),
                check=self._server.check,
            )
        except GeneratorError as error:
            # A generator's failure spoils this trial only; a dead server ends the run.
            self._server.check()
            return _unmeasured(trial, variant, started_utc, str(error))
        self._server.check()
        server, host = sides[0]
        return self._judged(_joined(trial, variant, started_utc, load, server, host), load, slo)

    def _configure(self, variant: ModelVariant, serving: ServingConfig) -> None:
        """Load the variant as asked; only the model under test stays loaded."""
        if self._loaded == (variant.name, serving):
            return
        if self._loaded and self._loaded[0] != variant.name:
            self._client.unload(self._loaded[0])
        self._loaded = None
        self._client.load(variant.name, config_override(variant, serving))
        self._loaded = (variant.name, serving)

    def _judged(
        self, result: TrialResult, load: LoadResult, slo: ServiceLevelObjective
    ) -> TrialResult:
        valid, invalid_reason = judge_validity(
            load, result.server, result.trial.workload, server_alive=True
        )
        histogram = self._folder.write_histogram(result.trial.trial_id, merge(load.histograms))
        result = dataclasses.replace(
            result, valid=valid, invalid_reason=invalid_reason, histogram_file=histogram
        )
        decision, reason = judge_trial(slo, result)
        return dataclasses.replace(result, decision=decision, reason=reason)


def _joined(
    trial: Trial,
    variant: ModelVariant,
    started_utc: str,
    load: LoadResult,
    server: ServerMetrics,
    host: HostMetrics,
) -> TrialResult:
    latency = summarise(load.histograms)
    delay = summarise([load.schedule_delay])
    requests_per_s = load.completed / load.duration_s
    return TrialResult(
        trial=trial,
        sha256=variant.sha256,
        started_utc=started_utc,
        duration_s=load.duration_s,
        requests=latency.count if latency else 0,
        failures=sum(load.failures.values()),
        failures_by_kind=load.failures,
        throughput_requests_per_s=requests_per_s,
        throughput_inferences_per_s=requests_per_s * trial.workload.client_batch_size,
        latency=latency,
        schedule_delay_p99_ms=delay.percentiles["p99"].value_ms if delay else None,
        generator_cpu=load.generator_cpu,
        server=server,
        host=host,
        valid=False,
    )


def _unmeasured(trial: Trial, variant: ModelVariant, started_utc: str, reason: str) -> TrialResult:
    return TrialResult(
        trial=trial,
        sha256=variant.sha256,
        started_utc=started_utc,
        duration_s=0.0,
        requests=0,
        failures=0,
        failures_by_kind={},
        throughput_requests_per_s=0.0,
        throughput_inferences_per_s=0.0,
        latency=None,
        schedule_delay_p99_ms=None,
        generator_cpu=0.0,
        server=ServerMetrics(),
        host=HostMetrics(),
        valid=False,
        invalid_reason=reason,
        decision=Decision.INVALID,
        reason=reason,
    )
