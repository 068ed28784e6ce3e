"""The chosen point of a router deployed: served as one model, scored, load-tested, judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import RunFolderError
from harness.flow.manifest import HERE, check_machine
from harness.flow.options import RunSettings
from harness.flow.routing import ROUTE, family_results, read_rows
from harness.flow.scoring import outcomes_path
from harness.flow.served_pair import PairAtWork, serve_pair, study_of
from harness.flow.serving import check_after_failure
from harness.flow.spaces import workloads
from harness.flow.trial import TrialRunner
from harness.load.generators.pool import LoadGenerators
from harness.load.requests.payloads import write_payloads
from harness.planning.assessment import QualityJudgement
from harness.planning.decision import judge_quality
from harness.planning.dialogue import after_longer_warm_up
from harness.planning.routing.curve import accuracy_of, kept_share
from harness.planning.routing.deployed import ROUTER_STAGE, judge_router, keeps_promise
from harness.planning.routing.rows import RoutedRows, split_places
from harness.quality.collection import collect_outcomes, read_outcomes, write_outcomes
from harness.quality.scores import score
from harness.report.family_results import FamilyResults
from harness.report.selection import best_of_variant
from harness.runs.documents import read_document
from harness.runs.folder import RunFolder, read_run
from harness.runs.journal import QualityEntry
from harness.serving.endpoint import TritonClient
from harness.serving.router import Router, load_router, make_router, unload_router, write_router
from harness.study import Study
from harness.tasks.classification.outcomes import NO_PREDICTION, ClassOutcomes
from harness.tasks.encoding import take_rows
from harness.tasks.rowwise import take
from harness.telemetry.triton import read_at_rest
from harness.types import (
    Decision,
    ModelVariant,
    Progress,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
)
from harness.types.estimates import Interval
from harness.types.routing import DeployedRouter, Route

MOST_TRIALS = 3
"""The student's own load, and then lower ones until one passes."""


def deploy_route(folder: Path, route: Route, settings: RunSettings) -> Route:
    """Serve a route's chosen point as one model, score it, load-test it, and judge it.

    Scores and trials go to the run's journal under the router's name; the search never reads them.

    Raises:
        RunFolderError: the run is of an external server, of another machine, in use, or its
            artefacts have changed.
        UsageError: the two models cannot stand behind one name.
        ServerError: the server died, or does not load the router.
    """
    run = read_run(folder)
    study = study_of(run, folder)
    results = family_results(run, route.family)
    with (
        _held(folder, study) as kept,
        serve_pair(folder, results, route.student, route.teacher, settings) as work,
        TritonClient(work.served.site.server.endpoint) as client,
    ):
        router = make_router(work.pair, route.chosen.threshold)
        write_router(router)
        kept.journal.add(router.variant)
        settings.progress(Progress("router", 0, 1 + MOST_TRIALS, "scored through the endpoint"))
        load_router(client, router)
        scored = _score(route, router, work, kept, client, settings)
        control = _RouterControl(client, router)
        with _trial_runner(work, router, kept, control, settings) as runner:
            trials, shares = _load_test(router, work, results, runner, kept, control, settings)
    slo = study.objective_of(work.family.family)
    decision, summary = judge_router(slo, scored.quality, trials)
    deployed = DeployedRouter(
        variant=router.variant.name,
        sha256=router.variant.sha256,
        student_serving=work.pair.student_serving,
        teacher_serving=work.pair.teacher_serving,
        rows=work.dataset.size,
        routed=scored.routed,
        accuracy=accuracy_of(scored.right),
        kept=scored.kept,
        otherwise=scored.otherwise,
        keeps=keeps_promise(scored.kept, route.chosen.keep),
        decision=decision,
        summary=summary,
        trials=tuple(one.trial.trial_id for one in trials),
        routed_under_load=shares[-1]
        if shares[-1] is not None
        else _routed_before(folder, trials[-1]),
    )
    return dataclasses.replace(route, deployed=deployed)


def _held(folder: Path, study: Study) -> RunFolder:
    """The run's folder, on the machine that it was measured on."""
    kept = RunFolder.resume(folder, study)
    check_machine(kept, HERE)
    return kept


@dataclass(frozen=True)
class _Scored:
    """What the endpoint answered to the scored rows."""

    right: NDArray[np.bool_]
    """Whether each row held out was answered right."""
    kept: Interval | None
    routed: float
    otherwise: int
    quality: QualityJudgement


class _RouterControl:
    """Loads the router for trials: each model in the configuration that the router has for it."""

    def __init__(self, client: TritonClient, router: Router) -> None:
        self._client = client
        self._router = router
        self._asked = (0, 0)

    def load(self, variant: ModelVariant, serving: ServingConfig) -> None:
        """Load both models, and the router before them, with their counters at zero."""
        del variant, serving  # there is one, and it has its own
        unload_router(self._client, self._router)
        load_router(self._client, self._router)
        self._asked = self._counts()

    def routed(self) -> float | None:
        """Share of the rows that the teacher was asked, since the load or the last call."""
        before, self._asked = self._asked, self._counts()
        student, teacher = (now - then for now, then in zip(self._asked, before, strict=True))
        return teacher / student if student else None

    def _counts(self) -> tuple[int, int]:
        student, teacher = self._router.variant.routes_to
        return _inferences(self._client, student), _inferences(self._client, teacher)

    def unload(self, variant: ModelVariant) -> None:
        """Unload the router and both of its models."""
        del variant
        unload_router(self._client, self._router)


def _score(
    route: Route,
    router: Router,
    work: PairAtWork,
    kept: RunFolder,
    client: TritonClient,
    settings: RunSettings,
) -> _Scored:
    """Put every row to the endpoint; judge those that the threshold was not chosen on."""
    dataset, variant = work.dataset, router.variant
    stored = read_rows(kept.path, route.student, route.teacher)
    if stored.size != dataset.size:
        raise RunFolderError(
            f"{kept.path} was scored on {stored.size} rows, and the data now has {dataset.size}",
            next_step="run the study again",
        )
    before = _inferences(client, route.teacher)
    outcomes = collect_outcomes(
        variant,
        dataset,
        client,
        batch_size=work.pair.student_serving.max_batch_size,
        progress=settings.progress,
    )
    check_after_failure(work.served.site.server)
    routed = (_inferences(client, route.teacher) - before) / dataset.size
    write_outcomes(outcomes_path(kept, variant.name), outcomes, dataset)
    _, held_out = split_places(dataset.size, seed=route.seed)
    reference = read_outcomes(outcomes_path(kept, work.family.teacher.name))
    scores = score(
        take(outcomes, held_out),
        take_rows(dataset, held_out),
        variant=variant,
        teacher=take(reference, held_out),
        seed=work.study.seed,
    )
    kept.journal.add(
        QualityEntry(
            variant.name, variant.sha256, tuple(scores), teacher_sha256=work.family.teacher.sha256
        )
    )
    slo = work.study.objective_of(work.family.family)
    teacher_scores = kept.journal.quality[work.family.teacher.name].scores
    right = outcomes.correct[held_out]
    return _Scored(
        right=right,
        kept=kept_share(right, stored.teacher_right[held_out], seed=route.seed),
        routed=routed,
        otherwise=int((_expected(route, stored, work, kept) != outcomes.predictions).sum()),
        quality=judge_quality(slo, scores, teacher_scores),
    )


def _expected(
    route: Route, rows: RoutedRows, work: PairAtWork, kept: RunFolder
) -> NDArray[np.int64]:
    """The classes that the stored answers say the router gives, in the student's order, (rows,)."""
    student: ClassOutcomes = read_outcomes(outcomes_path(kept, route.student))
    teacher: ClassOutcomes = read_outcomes(outcomes_path(kept, route.teacher))
    places = np.full(len(work.pair.columns) + 1, NO_PREDICTION)
    places[list(work.pair.columns)] = np.arange(len(work.pair.columns))
    return np.where(
        rows.deferred(route.chosen.threshold), places[teacher.predictions], student.predictions
    )


def _inferences(client: TritonClient, model: str) -> int:
    return int(read_at_rest(partial(client.statistics, model))["inference_count"])


@contextmanager
def _trial_runner(
    work: PairAtWork,
    router: Router,
    kept: RunFolder,
    control: _RouterControl,
    settings: RunSettings,
) -> Iterator[TrialRunner]:
    site = dataclasses.replace(work.served.site, control=control)
    dataset, name = work.dataset, router.variant.name
    payloads = kept.path / "payloads" / f"{dataset.digest[:16]}.npz"
    if not payloads.is_file():
        payloads.parent.mkdir(exist_ok=True)
        write_payloads(payloads, [group.inputs for group in dataset.groups])
    with LoadGenerators(
        http=site.targets[WireProtocol.HTTP],
        grpc=site.targets[WireProtocol.GRPC],
        workers=settings.workers or work.study.traffic_of(work.family.family).workers,
        log_dir=kept.path / "logs",
        cpus=settings.cpus_generator,
        implementation=settings.grpc,
    ) as generators:
        yield TrialRunner(
            site,
            generators,
            kept,
            variants={name: router.variant},
            payloads={name: payloads},
            settings=settings,
        )


def _load_test(
    router: Router,
    work: PairAtWork,
    results: FamilyResults,
    runner: TrialRunner,
    kept: RunFolder,
    control: _RouterControl,
    settings: RunSettings,
) -> tuple[list[TrialResult], list[float | None]]:
    """The student's load, then lower ones until one passes; and what the teacher was asked."""
    slo = work.study.objective_of(work.family.family)
    measured: list[TrialResult] = []
    shares: list[float | None] = []
    for number, trial in enumerate(trials_of(router, work, results), start=1):
        settings.progress(Progress("router", number, 1 + MOST_TRIALS, trial.trial_id))
        known = _known(kept, trial, router)
        if known is not None:
            measured.append(known)
            shares.append(None)
        else:
            measured.append(runner.settle(trial, slo))
            shares.append(control.routed())
        if measured[-1].decision is Decision.PASS:
            break
    settings.progress(Progress("router", 1 + MOST_TRIALS, 1 + MOST_TRIALS, "measured"))
    return measured, shares


def _known(kept: RunFolder, trial: Trial, router: Router) -> TrialResult | None:
    """The valid result of a trial, or of its repetition after a longer warm-up; None without."""
    found = kept.journal.trials.get(trial.trial_id)
    if found is not None and (steadier := after_longer_warm_up(found)) is not None:
        found = kept.journal.trials.get(steadier.trial_id)
    usable = found is not None and found.valid and found.sha256 == router.variant.sha256
    return found if usable else None


def _routed_before(folder: Path, trial: TrialResult) -> float | None:
    """What the newest router's document says was routed in a trial that is not measured again."""
    found = read_document(folder, ROUTE, Route)
    earlier = found.deployed if found is not None else None
    if earlier is None or earlier.sha256 != trial.sha256:
        return None
    return earlier.routed_under_load if earlier.trials[-1] == trial.trial.trial_id else None


def trials_of(router: Router, work: PairAtWork, results: FamilyResults) -> list[Trial]:
    """What is measured until one passes: the load of the student's best trial, then lower ones.

    Fixed beforehand, and from the highest down, so that no load is chosen by its luck.
    """
    study, family = work.study, work.family.family
    traffic = study.traffic_of(family)
    ladder = workloads(study, traffic)
    best = best_of_variant(results, work.pair.student.name)
    first = best.trial.workload if best is not None else ladder[-1]
    lower = [
        one
        for one in reversed(ladder)
        if (one.protocol, one.client_batch_size) == (first.protocol, first.client_batch_size)
        and (one.concurrency, one.rate_per_s or 0) < (first.concurrency, first.rate_per_s or 0)
    ]
    duration_s = traffic.confirm_duration_s or 2 * traffic.duration_s
    return [
        Trial(
            variant=router.variant.name,
            family=family.name,
            serving=work.pair.student_serving,
            workload=dataclasses.replace(one, duration_s=max(duration_s, one.duration_s)),
            stage=ROUTER_STAGE,
        )
        for one in [first, *lower][:MOST_TRIALS]
    ]
