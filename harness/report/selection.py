"""Which of a run's results a report shows where: pure functions over stored results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.metrics import TASK_SEPARATOR, latency_of, metric_named
from harness.runs.folder import StoredRun
from harness.runs.series import LoadSeries
from harness.study.objective import judged_latencies, judged_latency
from harness.types import (
    CONFIRM,
    SERVICE,
    SPANS,
    ColdStart,
    Constraint,
    Decision,
    FailedVariant,
    LatencySpan,
    LatencySummary,
    ModelVariant,
    Percentile,
    QualityScore,
    Role,
    ServiceLevelObjective,
    TaskEntry,
    TrialResult,
    Verdict,
)
from harness.types.losses import LossEntry, PairedMeasure, Relabelling
from harness.types.metrics import PERCENTILES
from harness.types.roles import StudentRoles

_STILL_PASSES = frozenset({"", "slower", "teacher"})
"""Causes recorded against a trial that meets the objective all the same."""
_NOTABLE_SHARE = 0.10
"""Latency from the send is shown where it differs from latency from the schedule by this share."""
_ROLE_ORDER = {Role.TEACHER: 0, Role.STUDENT: 1, Role.CONTROL: 2, Role.BASELINE: 3}


@dataclass(frozen=True)
class FamilyResults:
    """All that a run holds of one family."""

    name: str
    variants: tuple[ModelVariant, ...]
    """Teacher first, then students, then controls."""
    scores: tuple[QualityScore, ...]
    trials: tuple[TrialResult, ...]
    verdict: Verdict | None
    objective: ServiceLevelObjective | None
    cold_starts: tuple[ColdStart, ...] = ()
    """Cold starts that were measured, in the order of `variants`."""
    series: Mapping[str, LoadSeries] = field(default_factory=dict)
    """Loads over time, by trial; those of other families too."""
    ensembles: tuple[ModelVariant, ...] = ()
    """Ensembles around the variants: never candidates, so apart from them."""
    ensemble_scores: tuple[QualityScore, ...] = ()
    ensemble_trials: tuple[TrialResult, ...] = ()
    pairs: tuple[PairedMeasure, ...] = ()
    losses: tuple[LossEntry, ...] = ()
    """Where each variant lost quality, in the order of `variants`."""
    failed: tuple[FailedVariant, ...] = ()
    """Left out, because they could not be made or served."""
    relabellings: tuple[Relabelling, ...] = ()
    tasks: tuple[TaskEntry, ...] = ()
    """lm-eval's, as each variant answered them."""
    roles: StudentRoles | None = None
    """What a student is worth as a draft and as a first stage; None where none was asked for."""
    role_trials: tuple[TrialResult, ...] = ()
    """Closed loops of teacher, student and the teacher with its draft, in turn."""
    saturation: tuple[TrialResult, ...] = ()
    """Open loops after the verdict by variant and rising rate; where one was measured again after
    a longer warm-up, that one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Served variants, then baselines that only have scores."""
        served = [variant.name for variant in self.variants]
        return tuple(dict.fromkeys([*served, *(score.variant for score in self.scores)]))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Quality metrics of the study's own data, the objective's first."""
        scored = dict.fromkeys(score.metric for score in self.scores if not _of_task(score))
        asked = [c.metric for c in self.constraints if c.metric in scored]
        return tuple(dict.fromkeys([*asked, *scored]))

    @property
    def task_metrics(self) -> tuple[str, ...]:
        """Metrics of lm-eval's tasks, in the order they were asked."""
        return tuple(dict.fromkeys(s.metric for s in self.scores if _of_task(s)))

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The objective's clauses; none where no objective is known."""
        return self.objective.constraints if self.objective else ()

    @property
    def latency_constraint(self) -> Constraint | None:
        """The clause on the latency that this family is judged on, if there is one."""
        return next((c for c in self.constraints if c.metric == self.percentile), None)

    @property
    def percentile(self) -> str:
        """The latency that this family is judged on, by its metric's name: p95, mean."""
        return judged_latency(self.objective).name

    @property
    def latency_title(self) -> str:
        """What that latency is called: p95, TTFT p95."""
        return metric_named(self.percentile).title

    @property
    def judged_latencies(self) -> tuple[str, ...]:
        """Every latency that the objective bounds, by its metric's name; p95 where it has none."""
        if self.objective is None:
            return (self.percentile,)
        return tuple(metric.name for metric in judged_latencies(self.objective))

    @property
    def is_streaming(self) -> bool:
        """Whether its answers came token by token."""
        return any(one.streams for one in (*self.trials, *self.saturation))

    @property
    def throughput_unit(self) -> str:
        """What its throughput counts: inferences, of streams requests."""
        return "requests/s" if self.is_streaming else "inferences/s"

    @property
    def recommended(self) -> TrialResult | None:
        """The trial that the verdict recommends."""
        wanted = self.verdict.recommended if self.verdict else None
        return next((r for r in self.trials if r.trial.trial_id == wanted), None)

    def variant(self, name: str) -> ModelVariant | None:
        """A served variant; None for a baseline."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def role(self, name: str) -> Role:
        """The role of a variant or of a baseline."""
        variant = self.variant(name)
        if variant:
            return variant.role
        return next((s.role for s in self.scores if s.variant == name), Role.BASELINE)

    def score(self, name: str, metric: str) -> QualityScore | None:
        """One metric of one variant."""
        return next((s for s in self.scores if (s.variant, s.metric) == (name, metric)), None)

    def trials_of(self, name: str) -> tuple[TrialResult, ...]:
        """A variant's trials, in the order they were measured."""
        return tuple(result for result in self.trials if result.trial.variant == name)

    def quality_floor(self, metric: str) -> float | None:
        """The objective's bound on a metric, in the metric's own unit."""
        clause = next((c for c in self.constraints if c.metric == metric), None)
        if clause is None or not clause.relative_to_teacher:
            return clause.value if clause else None
        teacher = reference_score(self, metric)
        return clause.value * teacher.value if teacher else None


def _of_task(score: QualityScore) -> bool:
    return TASK_SEPARATOR in score.metric


def families_of(run: StoredRun) -> tuple[FamilyResults, ...]:
    """A run's families in the study's order, whatever of them was reached."""
    names = [family["name"] for family in run.manifest.get("study", {}).get("families", ())]
    names += [verdict.family for verdict in run.verdicts]
    names += [variant.family for variant in run.variants]
    names += [variant.family for variant in run.failed]
    return tuple(_family(run, name) for name in dict.fromkeys(names))


def _family(run: StoredRun, name: str) -> FamilyResults:
    own = [variant for variant in run.variants if variant.family == name]
    ordered = sorted(own, key=lambda variant: _ROLE_ORDER[variant.role])
    variants = tuple(variant for variant in ordered if not variant.is_composed)
    ensembles = tuple(variant for variant in ordered if variant.ensemble_of)
    around = {variant.name for variant in ensembles}
    composed = {variant.name for variant in ordered if variant.is_composed}
    scores = [score for score in run.scores if score.family == name]
    trials = [result for result in run.trials if result.trial.family == name]
    cold_starts = {one.variant: one for one in run.cold_starts}
    losses = {entry.variant: entry for entry in run.losses}
    return FamilyResults(
        name=name,
        variants=variants,
        scores=tuple(score for score in scores if score.variant not in composed),
        trials=tuple(result for result in trials if result.trial.variant not in composed),
        verdict=next((v for v in run.verdicts if v.family == name), None),
        objective=run.objectives.get(name),
        cold_starts=tuple(cold_starts[v.name] for v in variants if v.name in cold_starts),
        series=run.series,
        ensembles=ensembles,
        ensemble_scores=tuple(score for score in scores if score.variant in around),
        ensemble_trials=tuple(result for result in trials if result.trial.variant in around),
        pairs=tuple(one for one in run.pairs if one.family == name),
        losses=tuple(losses[v.name] for v in variants if v.name in losses),
        failed=tuple(one for one in run.failed if one.family == name),
        relabellings=tuple(one for one in run.relabellings if one.family == name),
        tasks=tuple(one for one in run.tasks if one.variant in {v.name for v in variants}),
        saturation=_saturation(run, name),
        roles=next((one for one in run.roles if one.family == name), None),
        role_trials=tuple(one for one in run.role_trials if one.trial.family == name),
    )


def _saturation(run: StoredRun, name: str) -> tuple[TrialResult, ...]:
    own = [one for one in run.saturation if one.trial.family == name]
    last = {(one.trial.variant, one.trial.workload.rate_per_s or 0.0): one for one in own}
    order = list(dict.fromkeys(one.trial.variant for one in own))
    return tuple(last[key] for key in sorted(last, key=lambda key: (order.index(key[0]), key[1])))


def alone_of(family: FamilyResults, ensemble: TrialResult) -> TrialResult | None:
    """The model alone under the load that its ensemble was measured at: the last such trial."""
    names = {one.name: one.ensemble_of for one in family.ensembles}
    model, trial = names.get(ensemble.trial.variant), ensemble.trial
    alike = [
        result
        for result in measured(family.trials)
        if result.trial.variant == model
        and result.trial.serving == trial.serving
        and result.trial.workload.label == trial.workload.label
    ]
    return alike[-1] if alike else None


def reference_score(family: FamilyResults, metric: str) -> QualityScore | None:
    """The score that the others are related to: the teacher's that has no relation itself."""
    own = [s for s in family.scores if s.metric == metric and s.role is Role.TEACHER]
    unrelated = [score for score in own if score.relative_to_teacher in {None, 1.0}]
    return next(iter(unrelated or own), None)


def loss_metric(family: FamilyResults, entry: LossEntry) -> str:
    """The metric that a variant's losses are counted in."""
    if entry.metric:
        return entry.metric
    if entry.chain:
        return entry.chain.metric
    shares = [metric for metric in family.metrics if metric_named(metric).unit.is_share]
    return "accuracy" if shares else "bits_per_byte"


def percentile_of(result: TrialResult, name: str) -> Percentile | None:
    """A latency by its metric's name, with its bounds; None where no request succeeded."""
    return latency_of(metric_named(name), result)


def measured(results: Iterable[TrialResult]) -> list[TrialResult]:
    """The results that are valid and have latencies."""
    return [result for result in results if result.valid and result.latency]


def best_trial(results: Sequence[TrialResult], percentile: str) -> TrialResult | None:
    """The highest throughput that passes; where none passes, the lowest latency.

    Invalid trials decide nothing and are never the best.
    """
    usable = measured(results)
    passing = [result for result in usable if result.decision is Decision.PASS]
    if passing:
        return max(passing, key=lambda result: result.throughput_inferences_per_s)
    known = [(p.value_ms, r) for r in usable if (p := percentile_of(r, percentile))]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def best_of_variant(family: FamilyResults, name: str) -> TrialResult | None:
    """A variant's best trial; the recommended one where it is the variant's.

    Where its configuration was measured again before it would have been recommended, that fresh
    measurement stands for it: the search's own is the luckiest of many.
    """
    recommended = family.recommended
    if recommended and recommended.trial.variant == name:
        return recommended
    best = best_trial(family.trials_of(name), family.percentile)
    if best is None:
        return None
    fresh = [
        one
        for one in measured(family.trials_of(name))
        if one.trial.stage == CONFIRM and one.trial.configuration == best.trial.configuration
    ]
    return fresh[-1] if fresh else best


def standing(family: FamilyResults, result: TrialResult) -> tuple[Decision, str]:
    """What the verdict makes of a variant's best trial, and the cause it recorded against it.

    A trial that met the objective once is not a pass where its fresh measurement did not, or where
    the variant's quality is not decided: one row says one thing.
    """
    rejected = family.verdict.rejected if family.verdict else ()
    trial_id = result.trial.trial_id
    cause = next((one.cause for one in rejected if one.trial_id == trial_id), "")
    if result.decision is not Decision.PASS or cause in _STILL_PASSES:
        return result.decision, cause
    undecided = cause in {"undecided", "invalid"}
    return (Decision.UNDECIDED if undecided else Decision.FAIL), cause


def lost_its_students(family: FamilyResults) -> bool:
    """Whether students were left out, and none is there to be judged."""
    failed = {one.name for one in family.failed}
    there = [v for v in family.variants if v.role is Role.STUDENT and v.name not in failed]
    return not there and any(one.role is Role.STUDENT for one in family.failed)


def leading_trials(family: FamilyResults) -> list[TrialResult]:
    """The best trial of each variant: first the recommended one, or the best of all."""
    known = [best for v in family.variants if (best := best_of_variant(family, v.name))]
    first = family.recommended or best_trial(known, family.percentile)
    return sorted(known, key=lambda result: result is not first)


def best_by_batch(family: FamilyResults) -> list[TrialResult]:
    """The best trial of each variant and client batch size, in that order."""
    best = []
    for variant in family.variants:
        own = family.trials_of(variant.name)
        for size in sorted({result.trial.workload.client_batch_size for result in own}):
            of_size = [r for r in own if r.trial.workload.client_batch_size == size]
            chosen = best_trial(of_size, family.percentile)
            best += [chosen] if chosen else []
    return best


def strongest_teacher(family: FamilyResults) -> TrialResult | None:
    """What a student has to beat: the recommended teacher, or the best of its precisions."""
    teachers = [v.name for v in family.variants if v.role is Role.TEACHER]
    recommended = family.recommended
    if recommended and recommended.trial.variant in teachers:
        return recommended
    own = [result for result in family.trials if result.trial.variant in teachers]
    return best_trial(own, family.percentile)


def spans_of(result: TrialResult) -> list[LatencySpan]:
    """The spans that something is known of, in the order in which they are shown."""
    known = {*result.latencies, *result.values_ms}
    return [span for span in SPANS.values() if span.name in known or span.is_between_moments]


def bounds_ms(summary: LatencySummary | None, statistic: str) -> tuple[float, float] | None:
    """The interval of a span's mean or percentile; None where it has none."""
    if summary is None:
        return None
    if statistic == "mean":
        low_ms, high_ms = summary.mean_low_ms, summary.mean_high_ms
        return None if low_ms is None or high_ms is None else (low_ms, high_ms)
    found = summary.percentiles.get(statistic)
    return (found.low_ms, found.high_ms) if found else None


def service_differs(result: TrialResult) -> bool:
    """Whether some percentile reads more than a tenth lower when it is timed from the send."""
    return any(service_ms(result, name) is not None for name in PERCENTILES)


def service_ms(result: TrialResult, name: str) -> float | None:
    """A percentile timed from the send, where that reads more than a tenth lower."""
    found = percentile_of(result, name)
    from_sent = result.latency_ms(SERVICE, name)
    if found is None or from_sent is None:
        return None
    return from_sent if from_sent < (1 - _NOTABLE_SHARE) * found.value_ms else None


@dataclass(frozen=True)
class LatencySplit:
    """Mean milliseconds per request in each part; the three add up to the client's mean."""

    client_ms: float
    queue_ms: float
    compute_ms: float
    """Includes the response cache's time; less than a computed request's where it answered some."""


def latency_split(result: TrialResult) -> LatencySplit | None:
    """Client and network, queue, compute; None where the server's side is not known."""
    client, queue, whole = result.client_ms, result.server.queue_ms, result.server.accounted_ms
    if client is None or queue is None or whole is None:
        return None
    return LatencySplit(client_ms=client, queue_ms=queue, compute_ms=max(0.0, whole - queue))


def pareto_front(
    points: Iterable[tuple[float, float]], *, lower_is_better: bool
) -> list[tuple[float, float]]:
    """The (latency, quality) points that no other beats in both, by ascending latency."""
    sign = -1.0 if lower_is_better else 1.0
    front: list[tuple[float, float]] = []
    best = float("-inf")
    for latency, quality in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if sign * quality > best:
            best = sign * quality
            front.append((latency, quality))
    return front
