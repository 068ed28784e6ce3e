"""Figures of a trial and judged clauses, for variants and routers alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.metrics import COST, metric_named
from harness.planning.assessment import assess, quality_findings
from harness.planning.clauses import Judgement, measure
from harness.report.family_results import FamilyResults
from harness.types import Decision, QualityScore, TrialResult
from harness.types.latency import UNBOUNDED_MS
from harness.types.losses import Estimate
from harness.types.review import Figure, FigureBasis, HardLimit


def load_figures(family: FamilyResults, best: TrialResult | None, run: str) -> Iterator[Figure]:
    """Latency, throughput and cost at a trial; none without one.

    Args:
        family: whose judged latencies they are.
        best: what it would be deployed as.
        run: folder of the run.
    """
    if best is None:
        return
    pricing = best.pricing
    for name in dict.fromkeys([*family.judged_latencies, "throughput", COST]):
        found = measure(metric_named(name), best)
        if found is None or found.value >= UNBOUNDED_MS:
            continue
        known = found.interval
        high = known.high if known and known.high < UNBOUNDED_MS else None
        estimate = Estimate(found.value, known.low if known else None, high)
        elsewhere = name == COST and pricing is not None and pricing.is_estimate
        yield Figure(
            name,
            estimate,
            run,
            best.trial.trial_id,
            basis=FigureBasis.ESTIMATE if elsewhere else FigureBasis.MEASURED,
            note=f"on {pricing.instance}" if name == COST and pricing is not None else "",
        )


def hard_limits(
    family: FamilyResults,
    scores: Sequence[QualityScore],
    teacher_scores: Sequence[QualityScore],
    best: TrialResult | None,
    *,
    measured: bool,
) -> Iterator[HardLimit]:
    """Every clause of the family's objective, by the house's rule, on intervals.

    Args:
        family: whose objective it is.
        scores: of the candidate.
        teacher_scores: of the model that relative clauses refer to.
        best: the trial that load clauses are judged by; None where none is valid.
        measured: whether there are trials, valid or not.
    """
    slo = family.objective
    if slo is None:
        return
    for finding in quality_findings(slo, scores, teacher_scores):
        yield _limit(finding)
    if best is None:
        decision = Decision.INVALID if measured else Decision.UNDECIDED
        reason = "no valid trial" if measured else "not load-tested"
        for clause in slo.constraints:
            if not metric_named(clause.metric).is_quality:
                yield HardLimit(clause.text, clause.metric, decision, reason)
        return
    for finding in assess(slo, best).findings:
        yield _limit(finding, best.trial.trial_id)


def _limit(finding: Judgement, trial_id: str = "") -> HardLimit:
    clause = finding.constraint
    return HardLimit(clause.text, clause.metric, finding.decision, finding.reason, trial_id)
