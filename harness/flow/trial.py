"""One trial: the variant loaded as asked, its load driven, both sides read, the result judged.

Before the load a served variant is asked the first requests row by row, by another client than the
one under load: an answer that the load's transport misreads, or that batching gives to the wrong
row, is found while the load runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from harness.analysis.validity import judge_validity
from harness.errors import DataError, GeneratorError, ServerError
from harness.flow.cold_start import measure_cold_start
from harness.flow.options import RunSettings, shown_to
from harness.flow.results import (
    BegunTrial,
    ServerSide,
    allowing_for_lateness,
    assess_trial,
    client_side,
    completing_records,
    generator_side,
    reading_lateness_s,
    records_folder,
    without_durations,
    without_measurement,
    write_load,
)
from harness.flow.serving import ModelClient, Site, check_after_failure
from harness.flow.trial_watch import TrialWatch
from harness.flow.work_watch import LONGEST_WORK_S, WorkWatch
from harness.load.generators.driver import SLICE_S
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.answers import TOLERANCE, make_known_answers, write_known_answers
from harness.load.requests.payloads import draw_workload, read_payloads
from harness.planning.dialogue import after_longer_warm_up
from harness.runs.folder import RunFolder
from harness.study.clauses import request_bounds
from harness.system.storage import utc_now
from harness.telemetry.prometheus.readings import ScrapedReadings
from harness.telemetry.readings import DirectReadings, ServerReadings
from harness.types import (
    Decision,
    LoadResult,
    ModelVariant,
    ServerMetrics,
    ServiceLevelObjective,
    ServingConfig,
    TimeSlice,
    Trial,
    TrialResult,
    Workload,
)
from harness.words.numbers import asked, seconds

T = TypeVar("T")
KNOWN_REQUESTS = 4
"""Requests with known answers in a pool of 256: every 64th answer is decoded and compared, which
costs under a microsecond per request."""


def known_answers_file(
    client: ModelClient, variant: ModelVariant, workload: Workload, payloads: Path
) -> Path:
    """The file of known answers beside the payloads, made unless it is there.

    The variant has to be loaded. Serving configurations share the file: they do not change what a
    model says.

    Raises:
        ServerError: the server does not answer.
        DataError: it answers with NaN or infinity.
    """
    path = payloads.with_name(answers_name(payloads, variant, workload))
    if not path.is_file():
        drawn = draw_workload(read_payloads(payloads), workload)
        answers = make_known_answers(
            drawn[:KNOWN_REQUESTS],
            lambda inputs: client.infer(variant.served_name, inputs),
            variant.outputs,
        )
        write_known_answers(path, answers, TOLERANCE[variant.precision])
    return path


def answers_name(payloads: Path, variant: ModelVariant, workload: Workload) -> str:
    """Name of the file of known answers: `POOL-ARTEFACT-DRAW.answers.npz`."""
    drawn_by = (workload.seed, workload.client_batch_size, workload.batch_mix, workload.length_mix)
    draw = hashlib.sha256(repr(drawn_by).encode()).hexdigest()[:8]
    return f"{payloads.stem}-{variant.hex_digest[:12]}-{draw}.answers.npz"


LATE_READING_S = 1.0
"""Off the window's edges: from here on whoever reads the figures has to know."""


class TrialRunner:
    """Measures trials on one running server with one set of load generators."""

    def __init__(
        self,
        site: Site,
        generators: LoadGenerators,
        folder: RunFolder,
        *,
        variants: Mapping[str, ModelVariant],
        payloads: Mapping[str, Path],
        settings: RunSettings,
        parts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`payloads` names the payload file of each variant, `parts` the models of an ensemble."""
        self._site = site
        self._server = site.server
        self._generators = generators
        self._folder = folder
        self._variants = variants
        self._payloads = payloads
        self._settings = settings
        self._parts = parts or {}
        self._loaded: tuple[ModelVariant, ServingConfig] | None = None

    def while_loaded(self, trial: Trial, work: Callable[[], T]) -> tuple[T, float]:
        """Do something while a trial's load runs: from when it is steady until the work is done.

        Returns:
            What the work gives, and the requests per second that the load completed meanwhile.

        Raises:
            GeneratorError: a load generator failed, or the load ended before the work was done.
            ServerError: the server does not serve the trial; or what the work raises.
        """
        variant = self._variants[trial.variant]
        self._configure(variant, trial)
        self._site.check_model(variant)
        endless = dataclasses.replace(
            trial.workload, duration_s=LONGEST_WORK_S, min_duration_s=SLICE_S
        )
        nothing_judged = ServiceLevelObjective("", ())
        job = self._job(dataclasses.replace(trial, workload=endless), variant, nothing_judged)
        with WorkWatch(work) as watch:
            load = self._generators.run(
                dataclasses.replace(job, records=None), watch, check=self._server.check
            )
            done = watch.result(asked(LONGEST_WORK_S))
        return done, load.completed / load.duration_s

    def sha256(self, trial: Trial) -> str:
        """Digest of the artefact that a trial would load."""
        return self._variants[trial.variant].sha256

    def measure(self, trial: Trial, slo: ServiceLevelObjective) -> TrialResult:
        """Measure a trial and judge it against the objective.

        Raises:
            ServerError: the server died.
        """
        result = self._measured(trial, slo)
        if self._settings.monitor is not None:
            self._settings.monitor.add_result(result)
        return result

    def settle(self, trial: Trial, slo: ServiceLevelObjective) -> TrialResult:
        """A trial that no search asks for: measured and journalled, unless the journal has it.

        Where its load was not steady yet it is measured once more, after a longer warm-up: the
        journal keeps both, and the second counts.

        Raises:
            ServerError: the server died.
        """
        result = self._journalled(trial, slo)
        steadier = after_longer_warm_up(result)
        if steadier is None:
            return result
        if steadier.trial_id not in self._folder.journal.trials:
            self._settings.warn(
                f"{trial.trial_id}: the load was not steady yet when the window opened; it is "
                f"measured again after {seconds(steadier.workload.min_warmup_s)} s of warm-up"
            )
        return self._journalled(steadier, slo)

    def _journalled(self, trial: Trial, slo: ServiceLevelObjective) -> TrialResult:
        known = self._folder.journal.trials.get(trial.trial_id)
        if known is not None and known.sha256 == self.sha256(trial):
            return known
        result = self.measure(trial, slo)
        self._folder.journal.add(result)
        return result

    def _measured(self, trial: Trial, slo: ServiceLevelObjective) -> TrialResult:
        variant = self._variants[trial.variant]
        begun = BegunTrial(trial, variant.sha256, utc_now())
        try:
            self._configure(variant, trial)
        except ServerError as error:
            # A configuration that is refused is this trial's alone; a dead server ends the run.
            check_after_failure(self._server)
            return without_measurement(begun, slo, f"it could not be served like this: {error}")
        self._site.check_model(variant)
        telemetry = self._window(variant)
        watch = TrialWatch(begun, slo, telemetry, SLICE_S)
        try:
            job = self._job(trial, variant, slo)
        except (DataError, ServerError) as error:
            # No answer, or none that is a number, to the first requests asked one by one.
            check_after_failure(self._server)
            return without_measurement(begun, slo, f"it does not answer known requests: {error}")
        try:
            with (
                completing_records(job.records),
                shown_to(self._settings.monitor, trial, slo) as listen,
            ):
                load = self._generators.run(job, watch, check=self._server.check, listen=listen)
        except GeneratorError as error:
            # A generator's failure spoils this trial only; a dead server ends the run.
            check_after_failure(self._server)
            return without_measurement(begun, slo, str(error))
        check_after_failure(self._server)
        server, host = telemetry.figures()
        self._site.check_model(variant)
        late_s = reading_lateness_s(load, telemetry.edges_ns)
        server = allowing_for_lateness(server, load, late_s)
        if trial.workload.generation is not None:
            server = without_durations(server)
        self._warn_of_telemetry(trial, server, late_s)
        return self._result(begun, slo, load, watch, ServerSide(server, host))

    def _result(
        self,
        begun: BegunTrial,
        slo: ServiceLevelObjective,
        load: LoadResult,
        watch: TrialWatch,
        served: ServerSide,
    ) -> TrialResult:
        """Store the load, and judge the window; that of the look which ended it, where one did."""
        trial = begun.trial
        _, invalid_reason = judge_validity(
            load,
            served.server,
            trial.workload,
            server_alive=True,
            host=served.host,
            bounds=request_bounds(slo),
        )

        def judged(window: Sequence[TimeSlice]) -> TrialResult:
            return assess_trial(
                begun,
                slo,
                client_side(
                    window,
                    load.slice_s,
                    trial.workload,
                    watch.confidence,
                    bounds=request_bounds(slo),
                ),
                generators=generator_side(load),
                served=served,
                invalid_reason=invalid_reason,
                histogram_file=write_load(self._folder, trial, load, window),
            ).result

        result = judged(load.window)
        if watch.shown and result.valid and result.decision is Decision.UNDECIDED:
            # Decided at a look, and blurred by the little that was still sent after it: a
            # sequential test ends with what it was shown.
            result = judged(watch.shown)
        return result

    def _warn_of_telemetry(self, trial: Trial, server: ServerMetrics, late_s: float) -> None:
        if server.problem:
            self._settings.warn(f"{trial.trial_id}: no server-side figures: {server.problem}")
        elif server.requests is not None and late_s > LATE_READING_S:
            self._settings.warn(
                f"{trial.trial_id}: the server's counters were read {seconds(late_s)} s off the "
                "window's edges: its figures are of another stretch of the load, and its count of "
                "requests is compared with the clients' only roughly"
            )

    def _window(self, variant: ModelVariant) -> ServerReadings:
        """The reader of the server's figures: itself, or the Prometheus that scrapes it."""
        metrics_url, pid = self._server.endpoint.metrics, self._server.pid
        model = variant.served_name
        if self._settings.prometheus is not None:
            return ScrapedReadings(
                self._settings.prometheus,
                metrics_url=metrics_url,
                server_pid=pid,
                model=model,
                clients=lambda: self._generators.pids,
            )
        return DirectReadings(
            self._site.client,
            metrics_url=metrics_url,
            server_pid=pid,
            model=model,
            parts=self._parts.get(variant.name, ()),
            read_page=self._site.read_page,
            clients=lambda: self._generators.pids,
        )

    def _job(self, trial: Trial, variant: ModelVariant, slo: ServiceLevelObjective) -> LoadJob:
        payloads = self._payloads[variant.name]
        generates = trial.workload.generation is not None
        return LoadJob(
            variant.served_name,
            payloads,
            variant.outputs,
            trial.workload,
            known_answers=None
            if generates
            else known_answers_file(self._site.client, variant, trial.workload, payloads),
            # Streams are few, and the report draws single ones.
            records=records_folder(self._folder, trial)
            if self._settings.keep_records or generates
            else None,
            bounds=request_bounds(slo),
        )

    def _configure(self, variant: ModelVariant, trial: Trial) -> None:
        """Load the variant as asked; only the model under test stays loaded."""
        control = self._site.control
        if control is None or self._loaded == (variant, trial.serving):
            return
        if self._loaded and (self._loaded[0] != variant or variant.is_composed):
            control.unload(self._loaded[0])
            self._loaded = None
        known = self._folder.journal.cold_starts.get(variant.name)
        first = known is None or known.sha256 != variant.sha256
        answers_once = not variant.is_composed and trial.workload.generation is None
        if self._loaded is None and first and answers_once:
            computing = dataclasses.replace(trial.serving, response_cache=False)
            self._folder.journal.add(
                measure_cold_start(
                    control,
                    self._site.targets,
                    variant,
                    computing,
                    self._payloads[variant.name],
                    seed=trial.workload.seed,
                )
            )
            if computing != trial.serving:
                control.load(variant, trial.serving)
        else:
            self._loaded = None
            control.load(variant, trial.serving)
        self._loaded = (variant, trial.serving)
