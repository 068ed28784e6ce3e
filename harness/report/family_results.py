"""All that a run holds of one family, as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.metrics import TASK_SEPARATOR, metric_named
from harness.runs.folder import StoredRun
from harness.runs.series import LoadSeries
from harness.study.clauses import judged_latencies, judged_latency
from harness.types import (
    ColdStart,
    Constraint,
    FailedVariant,
    ModelVariant,
    QualityScore,
    Role,
    ServiceLevelObjective,
    TaskEntry,
    TrialResult,
    Verdict,
)
from harness.types.losses import LossEntry, PairedMeasure, Relabelling
from harness.types.roles import StudentRoles

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
    server: Mapping[str, Any] = field(default_factory=dict)
    """The external server that was measured, as the manifest has it; empty: the harness's own."""
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

    def quality_floor(self, metric: str) -> tuple[float, Constraint] | None:
        """The objective's strictest bound on a metric, in the metric's own unit, and its clause."""
        teacher = reference_score(self, metric)
        bounds = [
            (one.value * (teacher.value if teacher and one.relative_to_teacher else 1.0), one)
            for one in self.constraints
            if one.metric == metric and (teacher or not one.relative_to_teacher)
        ]
        strictest = min if metric_named(metric).lower_is_better else max
        return strictest(bounds, key=lambda bound: bound[0], default=None)


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
        server=run.manifest.get("server") or {},
        saturation=_saturation(run, name),
        roles=next((one for one in run.roles if one.family == name), None),
        role_trials=tuple(one for one in run.role_trials if one.trial.family == name),
    )


def _saturation(run: StoredRun, name: str) -> tuple[TrialResult, ...]:
    own = [one for one in run.saturation if one.trial.family == name]
    last = {(one.trial.variant, one.trial.workload.rate_per_s or 0.0): one for one in own}
    order = list(dict.fromkeys(one.trial.variant for one in own))
    return tuple(last[key] for key in sorted(last, key=lambda key: (order.index(key[0]), key[1])))


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
