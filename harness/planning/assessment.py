"""A variant's quality, and a trial, against a whole objective; which of several is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

from harness.metrics import latency_of, metric_named
from harness.planning.clauses import (
    AT_THE_BOUND,
    FARTHEST_FACTOR,
    POWER,
    Judgement,
    decide_interval,
    judge_default_error_rate,
    judge_load,
    samples_needed,
    strain,
)
from harness.study.clauses import judged_latency, load_clauses, quality_clauses, request_bounds
from harness.types import (
    CONFIRM,
    RESPONSE,
    Constraint,
    Decision,
    QualityScore,
    ServiceLevelObjective,
    Trial,
    TrialResult,
)
from harness.types.estimates import Interval
from harness.types.metrics import MetricKind
from harness.words.numbers import (
    asked_percent,
    bound,
    count,
    metric_span,
    metric_title,
    metric_value,
    relative_span,
    relative_value,
)


class QualityJudgement(NamedTuple):
    """What a variant's scores say of an objective's clauses on quality."""

    decision: Decision
    reason: str
    """What it rests on, whatever it is: `keeps 97.2% (95.4% to 99.0%) of the teacher's
    accuracy`."""
    at_the_bound: bool = False
    """Undecided, and no number of samples would change that."""


def quality_findings(
    slo: ServiceLevelObjective,
    scores: Sequence[QualityScore],
    teacher_scores: Sequence[QualityScore],
) -> list[Judgement]:
    """A finding for each quality clause: relative ones by the paired interval, others by their own.

    The teacher itself meets every relative clause by definition.
    """
    teacher = teacher_scores[0].variant if teacher_scores else None
    by_metric = {score.metric: score for score in scores}
    return [
        _judge(clause, by_metric.get(clause.metric), teacher) for clause in quality_clauses(slo)
    ]


_NO_TEACHER = "score the teacher first"
_OTHER_TOKENS = "the two make other tokens of the text; put bits_per_byte into the objective"


def _judge(constraint: Constraint, score: QualityScore | None, teacher: str | None) -> Judgement:
    if score is None:
        reason = f"{metric_title(constraint.metric)} was not scored: score it first"
        return _unknown(constraint, reason)
    if not constraint.relative_to_teacher:
        return _compared(constraint, score, _own_interval(score))
    if score.variant == teacher:
        return Judgement(constraint, "quality", Decision.PASS, "is the teacher itself", strain=1.0)
    if score.relative_to_teacher is None:
        reason = f"{metric_title(constraint.metric)} was not compared with the teacher's: "
        by_token = constraint.metric == "perplexity" and teacher is not None
        return _unknown(constraint, reason + (_OTHER_TOKENS if by_token else _NO_TEACHER))
    return _compared(constraint, score, _relative_interval(score))


def _compared(constraint: Constraint, score: QualityScore, measured: Interval | None) -> Judgement:
    if measured is None:
        return _unknown(constraint, _without_interval(constraint, score))
    decision = decide_interval(constraint, measured)
    reason = _statement(constraint, measured)
    factor = None
    if decision is Decision.FAIL:
        reason += f", where {bound(constraint)} is asked for"
    elif decision is Decision.UNDECIDED:
        own, beside = score.standard_error, score.relative_standard_error
        error = beside if constraint.relative_to_teacher else own
        needed = samples_needed(constraint, measured, score.samples, error)
        factor = needed / score.samples
        reason += f", which cannot yet be told from {bound(constraint)}: {_more(needed, score)}"
    stretch = strain(constraint, measured.value)
    return Judgement(constraint, "quality", decision, reason, stretch, factor)


def _statement(constraint: Constraint, measured: Interval) -> str:
    """What a variant keeps of the teacher's metric, or what it has, each with its interval."""
    metric, title = constraint.metric, metric_title(constraint.metric)
    value, low, high = measured.value, measured.low, measured.high
    if not constraint.relative_to_teacher:
        return f"has {title} {metric_value(metric, value)} ({metric_span(metric, low, high)})"
    interval = relative_span(metric, low, high)
    verb, rest = ("has", "") if metric_named(metric).lower_is_better else ("keeps", " of")
    return f"{verb} {relative_value(metric, value)} ({interval}){rest} the teacher's {title}"


def _without_interval(constraint: Constraint, score: QualityScore) -> str:
    """Why a value decides nothing, and what would help."""
    metric = constraint.metric
    shown = metric_value(metric, score.value)
    if constraint.relative_to_teacher and score.relative_to_teacher is not None:
        shown = f"{relative_value(metric, score.relative_to_teacher)} of the teacher's"
    has = f"has {metric_title(metric)} {shown}"
    if score.units == 1:
        of = (
            "a single sample"
            if score.samples == 1
            else f"one text ({count(score.samples)} samples)"
        )
        return (
            f"{has}, of {of}: that has no interval, so it cannot be told from "
            f"{bound(constraint)}; more texts would tell"
        )
    return (
        f"{has}, alike in every sample: that has no interval, so it cannot be told "
        f"from {bound(constraint)}; other texts would tell"
    )


def _more(needed: float, score: QualityScore) -> str:
    """How many samples would decide, in words; rounded up, for it is an estimate."""
    now = score.samples
    if needed > FARTHEST_FACTOR * now:
        return f"{AT_THE_BOUND}, which no number of samples (now {count(now)}) will change"
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    rounded = max(now + 1, math.ceil(needed / step) * step)
    return (
        f"about {count(rounded)} samples (now {count(now)}) decide it with a chance of "
        f"{asked_percent(POWER)}, if what was measured is the truth"
    )


def _own_interval(score: QualityScore) -> Interval | None:
    if score.low is None or score.high is None:
        return None
    return Interval(score.value, score.low, score.high)


def _relative_interval(score: QualityScore) -> Interval | None:
    value, low, high = score.relative_to_teacher, score.relative_low, score.relative_high
    if value is None or low is None or high is None:
        return None
    return Interval(value, low, high)


def _unknown(constraint: Constraint, reason: str) -> Judgement:
    return Judgement(constraint, "quality", Decision.UNDECIDED, reason, strain=float("inf"))


THROUGHPUT_TIE = 0.03
"""Throughputs this close are one: windows of seconds differ by as much, and nobody would pay four
times the latency for it."""
LATENCY_TIE = 0.05
"""Latencies this close are one, likewise."""


@dataclass(frozen=True)
class Assessment:
    """What an objective's load clauses say of a trial."""

    result: TrialResult
    decision: Decision
    cause: str
    """Cause of the rejection; empty for a pass."""
    reason: str
    """Why the decision is not a pass; empty for a pass."""
    findings: tuple[Judgement, ...]
    """One judgement per clause; empty where the trial is invalid."""
    latency_ms: float
    """Value of the objective's first latency clause, else p95; infinite where nothing was
    measured."""

    @property
    def trial(self) -> Trial:
        """The trial that was measured."""
        return self.result.trial

    @property
    def inferences_per_s(self) -> float:
        """Throughput in samples."""
        return self.result.throughput_inferences_per_s

    @property
    def promising(self) -> bool:
        """Whether every clause holds, or would if the measured values were the truth."""
        return self._all_but() and self.decision is not Decision.INVALID

    @property
    def feasible(self) -> bool:
        """Promising but for rates and costs: what more load in flight cannot fix is in order."""
        return (
            self._all_but(MetricKind.RATE, MetricKind.COST)
            and self.decision is not Decision.INVALID
        )

    @property
    def overloaded(self) -> bool:
        """Whether the measured latency is beyond the bound; more load cannot but add to it."""
        return any(f.cause == "latency" and not f.promising for f in self.findings)

    @property
    def strain(self) -> float:
        """The tightest clause's value in units of its bound."""
        return max((finding.strain for finding in self.findings), default=float("inf"))

    @property
    def response_strain(self) -> float:
        """The tightest response latency in units of its bound; zero where no clause bounds one."""
        return max(
            (
                finding.strain
                for finding in self.findings
                if metric_named(finding.constraint.metric).span == RESPONSE
            ),
            default=0.0,
        )

    def _all_but(self, *kinds: MetricKind) -> bool:
        """Whether every clause is promising, but for those on metrics of some kinds."""
        return all(
            finding.promising
            for finding in self.findings
            if metric_named(finding.constraint.metric).kind not in kinds
        )


def assess(slo: ServiceLevelObjective, result: TrialResult) -> Assessment:
    """Judge a trial by the load clauses of an objective.

    Latency is judged by its confidence interval, a named error_rate by Clopper and Pearson's
    interval, throughput by the value achieved. Where the objective names no error_rate, more than
    1% of failed requests fails the trial all the same.
    """
    latency_ms = _latency_ms(slo, result)
    if not result.valid:
        return Assessment(
            result, Decision.INVALID, "invalid", result.invalid_reason, (), latency_ms
        )
    findings = _findings(slo, result)
    for decision in (Decision.FAIL, Decision.UNDECIDED):
        against = [finding for finding in findings if finding.decision is decision]
        if against:
            cause = against[0].cause if decision is Decision.FAIL else "undecided"
            reason = "; ".join(finding.reason for finding in against)
            return Assessment(result, decision, cause, reason, tuple(findings), latency_ms)
    return Assessment(result, Decision.PASS, "", "", tuple(findings), latency_ms)


class JudgedTrial(Protocol):
    """A trial that was judged: an `Assessment`, or a result with its decision."""

    @property
    def trial(self) -> Trial: ...  # noqa: D102
    @property
    def decision(self) -> Decision: ...  # noqa: D102


T = TypeVar("T", bound=JudgedTrial)


def borne_out(judged: Iterable[T]) -> list[T]:
    """What passes, but for configurations whose fresh measurement is valid and does not pass.

    Args:
        judged: trials in the order they were measured; of fresh measurements the last valid one
            counts.
    """
    every = list(judged)
    fresh = {
        one.trial.configuration: one.decision
        for one in every
        if one.trial.stage == CONFIRM and one.decision is not Decision.INVALID
    }
    return [
        one
        for one in every
        if one.decision is Decision.PASS
        and fresh.get(one.trial.configuration, Decision.PASS) is Decision.PASS
    ]


def would_hold(slo: ServiceLevelObjective, result: TrialResult) -> bool:
    """Whether a trial would meet the load clauses if its measured values were the truth.

    Of an invalid trial that says what may have been missed, and nothing more.
    """
    return result.latency is not None and all(f.promising for f in _findings(slo, result))


def best(assessments: Iterable[Assessment]) -> Assessment | None:
    """The one to recommend: most inferences per second, among equals the least latency.

    Among equals in both it is the first that was measured: searches begin with the simplest.
    Trials that are promising come before those that only lack throughput, and these before all
    others, which are ranked by how near the bound they came. Invalid trials never count.
    """
    known = [one for one in assessments if one.decision is not Decision.INVALID]
    contenders = [one for one in known if one.promising] or [one for one in known if one.feasible]
    if not contenders:
        return min(known, key=lambda one: one.strain, default=None)
    most = max(one.inferences_per_s for one in contenders)
    equals = [one for one in contenders if one.inferences_per_s >= (1 - THROUGHPUT_TIE) * most]
    least_ms = min(one.latency_ms for one in equals)
    return next(one for one in equals if one.latency_ms <= (1 + LATENCY_TIE) * least_ms)


def _findings(slo: ServiceLevelObjective, result: TrialResult) -> list[Judgement]:
    """A finding for each load clause, and for the errors where no clause names them."""
    clauses = load_clauses(slo)
    if result.goodput is not None and {*result.goodput.clauses} != {*request_bounds(slo)}:
        # Counted request by request by another objective's clauses: it says nothing of these.
        result = replace(result, goodput=None)
    findings = [judge_load(clause, result) for clause in clauses]
    if all(clause.metric != "error_rate" for clause in clauses):
        findings.append(judge_default_error_rate(result))
    return findings


def _latency_ms(slo: ServiceLevelObjective, result: TrialResult) -> float:
    found = latency_of(judged_latency(slo), result)
    return math.inf if found is None else found.value_ms
