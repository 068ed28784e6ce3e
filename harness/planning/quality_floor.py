"""A variant's quality scores against the quality clauses of an objective."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.planning.clauses import (
    FARTHEST_FACTOR,
    POWER,
    Finding,
    Interval,
    decide_interval,
    samples_needed,
    strain,
)
from harness.planning.objective import QUALITY_METRICS, SHARE_METRICS
from harness.planning.wording import bound, number, percent, relative
from harness.types import Constraint, Decision, QualityScore, ServiceLevelObjective


def quality_findings(
    slo: ServiceLevelObjective,
    scores: Sequence[QualityScore],
    teacher_scores: Sequence[QualityScore],
) -> list[Finding]:
    """A finding for each quality clause: relative ones by the paired interval, others by their own.

    The teacher itself meets every relative clause by definition.
    """
    teacher = teacher_scores[0].variant if teacher_scores else None
    by_metric = {score.metric: score for score in scores}
    return [
        _judge(clause, by_metric.get(clause.metric), teacher)
        for clause in slo.constraints
        if clause.metric in QUALITY_METRICS
    ]


def _judge(constraint: Constraint, score: QualityScore | None, teacher: str | None) -> Finding:
    if score is None:
        return _unknown(constraint, f"{constraint.metric} was not scored: score it first")
    if not constraint.relative_to_teacher:
        return _compared(constraint, score, _own_interval(score))
    if score.variant == teacher:
        return Finding(constraint, "quality", Decision.PASS, "is the teacher itself", strain=1.0)
    if score.relative_to_teacher is None:
        reason = f"{constraint.metric} was not compared with the teacher's: score the teacher first"
        return _unknown(constraint, reason)
    return _compared(constraint, score, _relative_interval(score))


def _compared(constraint: Constraint, score: QualityScore, measured: Interval | None) -> Finding:
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
    return Finding(constraint, "quality", decision, reason, stretch, factor)


def _statement(constraint: Constraint, measured: Interval) -> str:
    """`keeps 97.2% (95.4% to 99.0%) of the teacher's accuracy`, or the value itself."""
    metric = constraint.metric
    show = percent if metric in SHARE_METRICS else number
    if constraint.relative_to_teacher:
        values = [relative(metric, value) for value in _in_order(measured)]
        verb, rest = ("keeps", " of") if metric in SHARE_METRICS else ("has", "")
        return f"{verb} {values[0]} ({values[1]} to {values[2]}){rest} the teacher's {metric}"
    values = [show(value) for value in _in_order(measured)]
    return f"has {metric} {values[0]} ({values[1]} to {values[2]})"


def _without_interval(constraint: Constraint, score: QualityScore) -> str:
    """Why a value decides nothing, and what would help."""
    metric, value = constraint.metric, score.value
    shown = percent(value) if metric in SHARE_METRICS else number(value)
    if constraint.relative_to_teacher and score.relative_to_teacher is not None:
        shown = f"{relative(metric, score.relative_to_teacher)} of the teacher's"
    if score.units == 1:
        of = "a single sample" if score.samples == 1 else f"one text ({score.samples:,} samples)"
        return (
            f"has {metric} {shown}, of {of}: that has no interval, so it cannot be told from "
            f"{bound(constraint)}; more texts would tell"
        )
    return (
        f"has {metric} {shown}, alike in every sample: that has no interval, so it cannot be told "
        f"from {bound(constraint)}; other texts would tell"
    )


def _more(needed: float, score: QualityScore) -> str:
    """How many samples would decide, in words; rounded up, for it is an estimate."""
    now = score.samples
    if needed > FARTHEST_FACTOR * now:
        return f"it lies at the bound, which no number of samples (now {now:,}) will change"
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    rounded = max(now + 1, math.ceil(needed / step) * step)
    return (
        f"about {rounded:,} samples (now {now:,}) decide it with a chance of {percent(POWER)}, "
        "if what was measured is the truth"
    )


def _in_order(measured: Interval) -> tuple[float, float, float]:
    return measured.value, measured.low, measured.high


def _own_interval(score: QualityScore) -> Interval | None:
    if score.low is None or score.high is None:
        return None
    return Interval(score.value, score.low, score.high)


def _relative_interval(score: QualityScore) -> Interval | None:
    value, low, high = score.relative_to_teacher, score.relative_low, score.relative_high
    if value is None or low is None or high is None:
        return None
    return Interval(value, low, high)


def _unknown(constraint: Constraint, reason: str) -> Finding:
    return Finding(constraint, "quality", Decision.UNDECIDED, reason, strain=float("inf"))
