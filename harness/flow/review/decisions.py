"""Stored runs made into decision matrices: one per family, its variants and routers side by side.

Runs share a matrix where family, rows and objective are the same; otherwise each has its own,
because a share of one teacher's accuracy on other rows is another number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.flow.review.contributions import Contributions, contributions_of
from harness.flow.review.figures import hard_limits, load_figures
from harness.flow.review.releases import check_measured, machine_of, rows_of
from harness.metrics import COST, metric_named
from harness.planning.review.comparison import first_answer_s
from harness.planning.review.front import SharedDraws, shared_share_draws
from harness.planning.review.matrix import FamilyEvidence, matrix_of
from harness.planning.review.ranking import checked_weights
from harness.quality.collection import read_outcomes
from harness.report.cautions import warnings_of
from harness.report.family_results import FamilyResults, families_of, reference_score
from harness.report.selection import best_of_variant
from harness.runs.folder import StoredRun, read_run, samples_file
from harness.study.clauses import AskedFor, asked_for
from harness.tasks.registry import family_of
from harness.types import CONFIRM, Decision, ModelVariant, QualityScore, Role, TrialResult
from harness.types.losses import Estimate
from harness.types.metrics import MetricKind
from harness.types.review import (
    DecisionCandidate,
    DecisionMatrix,
    DecisionReview,
    Figure,
    HardLimit,
    Risk,
)
from harness.words.labels import lost, unit_in_full
from harness.words.numbers import count, metric_title, percent

FEW_UNITS = 200
"""So few independent samples are worth a remark: an accuracy near 90% then has an interval of 4
points either way."""
WIDE = 0.05
"""Half an interval's width, of a share of the teacher's quality, that is worth a warning."""
MOST_SLICES = 3
ALPHA = 0.05


_Key = tuple[str, str, AskedFor | None]


@dataclass(frozen=True)
class _Part:
    """One family of one run."""

    run: StoredRun
    folder: Path
    family: FamilyResults
    added: Contributions

    @property
    def key(self) -> _Key:
        """What runs have to share to stand in one matrix."""
        asked = asked_for(self.family.objective) if self.family.objective else None
        return self.family.name, rows_of(self.run, self.family.name), asked


def review_runs(
    folders: Sequence[Path],
    *,
    weights: Mapping[str, float] | None = None,
    kpis: Collection[str] = (),
) -> DecisionReview:
    """Weigh the variants of one or more runs.

    Args:
        folders: run folders.
        weights: by metric; None for those of the study, if it names any.
        kpis: metrics that decide dominance; empty for all that are known.

    Raises:
        RunFolderError: one of them is no run folder, or holds nothing that was measured.
        UsageError: a folder is named twice, or weights or metrics make no sense.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice", next_step="name each run folder once")
    for name in kpis:
        metric_named(name)
    parts: dict[_Key, list[_Part]] = {}
    seed = 0
    for folder in folders:
        run = read_run(folder)
        check_measured(run, folder)
        seed = seed or int(run.manifest.get("seeds", {}).get("study", 0))
        added = contributions_of(folder)
        for family in families_of(run):
            part = _Part(run, folder, family, added)
            parts.setdefault(part.key, []).append(part)
    matrices = tuple(_matrix(group, weights, kpis, seed) for group in parts.values())
    return DecisionReview(matrices, seed)


def _matrix(
    parts: Sequence[_Part],
    weights: Mapping[str, float] | None,
    kpis: Collection[str],
    seed: int,
) -> DecisionMatrix:
    named = len(parts) > 1
    candidates = tuple(one for part in parts for one in _candidates(part, named=named))
    chosen = _chosen(parts)
    family = chosen.family
    recommended = None
    if family.recommended is not None:
        recommended = _name(chosen, family.recommended.trial.variant, named=named)
    teacher = _teacher(chosen)
    metrics = tuple(kpis) or _metrics(candidates, family)
    verdict = family.verdict
    evidence = FamilyEvidence(
        family=family.name,
        objective=family.objective.text if family.objective else "",
        runs=tuple(str(part.folder) for part in parts),
        candidates=candidates,
        metrics=metrics,
        decision=verdict.decision if verdict else Decision.UNDECIDED,
        recommended=recommended,
        reason=verdict.summary if verdict else "No verdict was reached: the run did not finish.",
        next_step=verdict.next_step if verdict else "finish the run with --resume",
        reference=_name(chosen, teacher, named=named) if teacher else "",
        risks=tuple(risk for part in parts for risk in _risks(part, recommended))
        + tuple(_between(parts, candidates)),
        facts=tuple(fact for part in parts for fact in part.added.facts(family.name)),
        shared=_shared_draws(parts[0], metrics, seed) if not named else {},
    )
    return matrix_of(evidence, weights=_weights(parts, weights), seed=seed)


def _weights(parts: Sequence[_Part], asked: Mapping[str, float] | None) -> dict[str, float] | None:
    """The weights of the command line, else the study's."""
    if asked is not None:
        return checked_weights(asked, "weights")
    for part in parts:
        own = part.run.manifest.get("study", {}).get("weights")
        if own:
            return checked_weights(own, f"the weights of study {part.folder}")
    return None


def _chosen(parts: Sequence[_Part]) -> _Part:
    """The run whose verdict speaks for the family: of those that recommend, the fastest."""

    def rate(part: _Part) -> float:
        found = part.family.recommended
        return found.throughput_inferences_per_s if found else -1.0

    return max(parts, key=rate)


def _name(part: _Part, variant: str, *, named: bool) -> str:
    return f"{variant} [{part.folder.name}]" if named else variant


def _teacher(part: _Part) -> str | None:
    """The teacher's variant that the others are related to."""
    for metric in part.family.metrics:
        if (score := reference_score(part.family, metric)) is not None:
            return score.variant
    roles = {variant.name: variant.role for variant in part.family.variants}
    return next((name for name, role in roles.items() if role is Role.TEACHER), None)


def _metrics(candidates: Sequence[DecisionCandidate], family: FamilyResults) -> tuple[str, ...]:
    """What is known of any candidate: quality first, then loads and costs, then artefacts."""
    known = dict.fromkeys(figure.metric for one in candidates for figure in one.figures)
    asked = [clause.metric for clause in family.constraints if clause.metric in known]
    ordered = [*asked, *known]

    def place(name: str) -> int:
        metric = metric_named(name)
        return 0 if metric.is_quality else 2 if metric.kind is MetricKind.ARTEFACT else 1

    return tuple(dict.fromkeys(sorted(ordered, key=place)))


def _candidates(part: _Part, *, named: bool) -> Iterator[DecisionCandidate]:
    """The variants that may be deployed; a control is made to judge the distillation alone."""
    for variant in part.family.variants:
        if variant.role in {Role.TEACHER, Role.STUDENT}:
            yield _candidate(part, variant, _name(part, variant.name, named=named))
    for one in part.added.candidates(part.family.name):
        yield replace(one, name=_name(part, one.name, named=named))


def _candidate(part: _Part, variant: ModelVariant, name: str) -> DecisionCandidate:
    family = part.family
    best = best_of_variant(family, variant.name)
    recommended = family.recommended
    return DecisionCandidate(
        name=name,
        variant=variant.name,
        run=str(part.folder),
        role=variant.role,
        figures=(
            *_quality(part, variant),
            *load_figures(part.family, best, str(part.folder)),
            *_added(part, variant),
            *_artefact(part, variant),
        ),
        limits=tuple(_limits(part, variant, best)),
        confirmed=best is not None and (best.trial.stage == CONFIRM or best is recommended),
    )


def _added(part: _Part, variant: ModelVariant) -> Iterator[Figure]:
    """What other documents say, but no second cost where the study prices its own trials."""
    priced = any(one.pricing is not None for one in part.family.trials)
    for figure in part.added.figures(variant.name):
        if not (priced and figure.metric == COST):
            yield figure


def _quality_metrics(family: FamilyResults) -> list[str]:
    """The quality metrics of the objective, else the first that was scored."""
    asked = [one.metric for one in family.constraints if metric_named(one.metric).is_quality]
    return list(dict.fromkeys(asked)) or list(family.metrics[:1])


def _quality(part: _Part, variant: ModelVariant) -> Iterator[Figure]:
    """Over the teacher's where that is known, else the value itself."""
    for metric in _quality_metrics(part.family):
        score, teacher = part.family.score(variant.name, metric), _teacher(part)
        if score is None:
            continue
        relative = part.family.score(teacher, metric) is not None if teacher else False
        if variant.name == teacher and relative:
            estimate = Estimate(1.0, 1.0, 1.0)
        elif relative and score.relative_to_teacher is not None:
            ends = (score.relative_low, score.relative_high)
            estimate = Estimate(score.relative_to_teacher, *ends)
        elif relative:
            continue  # not to be compared with the teacher's: another number than the others'
        else:
            estimate = Estimate(score.value, score.low, score.high)
        note = f"{count(score.samples)} samples"
        yield Figure(metric, estimate, str(part.folder), relative=relative, note=note)


def _artefact(part: _Part, variant: ModelVariant) -> Iterator[Figure]:
    if variant.size_bytes is not None:
        megabytes = variant.size_bytes / 1e6
        exact = Estimate(megabytes, megabytes, megabytes)
        yield Figure("size", exact, str(part.folder))
    for start in part.family.cold_starts:
        if start.variant == variant.name:
            value = Estimate(first_answer_s(start))
            yield Figure("cold_start", value, str(part.folder), note="measured once")


def _limits(part: _Part, variant: ModelVariant, best: TrialResult | None) -> Iterator[HardLimit]:
    """Every clause of the objective, judged for a variant."""
    teacher = _teacher(part)
    return hard_limits(
        part.family,
        _scores(part, variant.name),
        _scores(part, teacher) if teacher else (),
        best,
        measured=bool(part.family.trials_of(variant.name)),
    )


def _scores(part: _Part, variant: str) -> tuple[QualityScore, ...]:
    return tuple(score for score in part.family.scores if score.variant == variant)


def _shared_draws(part: _Part, metrics: Sequence[str], seed: int) -> SharedDraws:
    """Qualities of all candidates by one weighting of the rows, where the outcomes were kept.

    Of metrics that are shares of right rows, each row alone; of any other the intervals serve.
    """
    teacher = _teacher(part)
    found: dict[str, dict[str, object]] = {}
    for metric in (name for name in metrics if metric_named(name).right_or_wrong):
        right = {}
        for variant in part.family.variants:
            path = samples_file(part.folder, variant.name)
            if part.family.score(variant.name, metric) is None or not path.is_file():
                continue
            outcomes = read_outcomes(path)
            mask = family_of(outcomes.kind).right(metric, outcomes)
            if mask is not None and outcomes.groups is None:
                right[variant.name] = mask
        sizes = {len(mask) for mask in right.values()}
        if teacher in right and len(sizes) == 1 and right[teacher].any():
            found[metric] = dict(shared_share_draws(right, right[teacher], seed=seed))
    return found  # type: ignore[return-value]  # arrays, by `shared_share_draws`


def _risks(part: _Part, recommended: str | None) -> Iterator[Risk]:
    """What the run itself says, beside what follows from the matrix."""
    family, run = part.family, str(part.folder)
    if part.run.interrupted:
        yield Risk("undecided", f"the run did not finish: {run}", run)
    invalid = [one for one in family.trials if not one.valid]
    if invalid:
        are = "is" if len(invalid) == 1 else "are"
        text = f"{count(len(invalid))} of {count(len(family.trials))} trials {are} invalid: "
        text += invalid[0].invalid_reason
        yield Risk("invalid", text, run, invalid[0].trial.trial_id)
    own = family.recommended.trial.variant if family.recommended and recommended else None
    for variant in family.variants:
        if own in {None, variant.name} and variant.role is Role.STUDENT:
            yield from _small_samples(part, variant)
            yield from _slices(part, variant)
    yield from (Risk("other", text, run) for text in warnings_of(family))
    yield from part.added.risks(family.name)


def _small_samples(part: _Part, variant: ModelVariant) -> Iterator[Risk]:
    for metric in _quality_metrics(part.family):
        score = part.family.score(variant.name, metric)
        if score is None:
            continue
        units = score.units if score.units is not None else score.samples
        title, run = metric_title(metric), str(part.folder)
        if units < FEW_UNITS:
            text = f"{variant.name}: {title} rests on {count(units)} independent samples"
            yield Risk("small sample", text, run)
        low, high = score.relative_low, score.relative_high
        if low is not None and high is not None and high - low > 2 * WIDE:
            text = (
                f"{variant.name}: the interval of its share of the teacher's {title} is "
                f"{percent(high - low)} wide"
            )
            yield Risk("small sample", text, run)


def _slices(part: _Part, variant: ModelVariant) -> Iterator[Risk]:
    """Slices where the variant surely lost more quality than elsewhere, the worst first."""
    entry = next((one for one in part.family.losses if one.variant == variant.name), None)
    if entry is None:
        return
    metric = entry.metric or (entry.chain.metric if entry.chain else "")
    if not metric:
        return
    surely = [
        one
        for one in entry.slices
        if one.p_value is not None and one.p_value < ALPHA and (one.loss.low or 0.0) > 0
    ]
    for one in surely[:MOST_SLICES]:
        text = (
            f"{variant.name} loses more than elsewhere where {one.slicing} is {one.name}: "
            f"{lost(metric, one.loss.value)} {unit_in_full(metric)} on {count(one.samples)} samples"
        )
        yield Risk("slice", text, str(part.folder))


def _between(parts: Sequence[_Part], candidates: Sequence[DecisionCandidate]) -> Iterator[Risk]:
    """What differs between the runs of one matrix."""
    costs = [one.figure(COST) for one in candidates]
    priced_on = {one.note.partition(",")[0] for one in costs if one is not None}
    if len(parts) > 1 and len(priced_on) > 1:
        yield Risk("machine", f"costs are of different machines: {', '.join(sorted(priced_on))}")
    machines = {str(part.folder): machine_of(part.run.manifest) for part in parts}
    if len(set(machines.values())) > 1:
        told = "; ".join(f"{run}: {words or 'not known'}" for run, words in machines.items())
        yield Risk("machine", f"loads were measured on different machines: {told}")
    for part in parts:
        if not rows_of(part.run, part.family.name) and len(parts) > 1:
            yield Risk("other", f"{part.folder} does not say which rows it scored")
