"""A deployed router as a candidate of the decision, by what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.flow.review.figures import hard_limits, load_figures
from harness.metrics import metric_named
from harness.report.family_results import FamilyResults, families_of, reference_score
from harness.runs.folder import StoredRun, read_run
from harness.types import QualityScore, TrialResult
from harness.types.losses import Estimate
from harness.types.review import DecisionCandidate, Figure
from harness.types.routing import DeployedRouter, Route
from harness.words.numbers import count


def router_candidates(route: Route, folder: str) -> Iterator[DecisionCandidate]:
    """The router, if it was deployed and its measurements are still those of this artefact.

    Raises:
        RunFolderError: the folder's run cannot be read.
    """
    found = route.deployed
    if found is None:
        return
    run = read_run(Path(folder))
    family = next((one for one in families_of(run) if one.name == route.family), None)
    if family is None:
        return
    scores = tuple(
        score
        for score in run.scores
        if score.variant == found.variant and score.sha256 == found.sha256
    )
    trial = _last_trial(run, found)
    references = (reference_score(family, one) for one in family.metrics)
    teachers = tuple(one for one in references if one is not None)
    yield DecisionCandidate(
        name=found.variant,
        variant=found.variant,
        run=folder,
        role=None,
        figures=(*_quality(family, scores, folder), *load_figures(family, trial, folder)),
        limits=tuple(hard_limits(family, scores, teachers, trial, measured=bool(found.trials))),
        confirmed=trial is not None,
    )


def _last_trial(run: StoredRun, found: DeployedRouter) -> TrialResult | None:
    """The trial that the router's verdict rests on; None where it is invalid or gone."""
    wanted = found.trials[-1] if found.trials else ""
    return next(
        (
            one
            for one in run.trials
            if one.trial.trial_id == wanted and one.sha256 == found.sha256 and one.valid
        ),
        None,
    )


def _quality(
    family: FamilyResults, scores: tuple[QualityScore, ...], folder: str
) -> Iterator[Figure]:
    """The router's quality, relative to the teacher's where that is known."""
    asked = [one.metric for one in family.constraints if metric_named(one.metric).is_quality]
    for metric in dict.fromkeys(asked or family.metrics[:1]):
        score = next((one for one in scores if one.metric == metric), None)
        if score is None:
            continue
        relative = reference_score(family, metric) is not None
        ends = (score.relative_low, score.relative_high)
        note = f"{count(score.samples)} samples that the threshold was not chosen on"
        if not relative:
            yield Figure(metric, Estimate(score.value, score.low, score.high), folder, note=note)
        elif score.relative_to_teacher is not None:
            estimate = Estimate(score.relative_to_teacher, *ends)
            yield Figure(metric, estimate, folder, relative=True, note=note)
