"""A trial against a whole objective, and which of several trials is the best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.planning.clauses import (
    Finding,
    judge_default_error_rate,
    judge_load,
)
from harness.planning.objective import LATENCY_METRICS, load_clauses
from harness.types import Decision, ServiceLevelObjective, Trial, TrialResult

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
    """A rejection's cause; empty for a pass."""
    reason: str
    """Why the decision is not a pass; empty for a pass."""
    findings: tuple[Finding, ...]
    """A clause each; empty where the trial is invalid."""
    latency_ms: float
    """Of the objective's first latency clause, else p95; infinite where nothing was measured."""

    @property
    def trial(self) -> Trial:
        """What was measured."""
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
        """Promising but for throughput: what more load in flight cannot mend is in order."""
        return self._all_but("throughput") and self.decision is not Decision.INVALID

    @property
    def overloaded(self) -> bool:
        """Whether the measured latency is beyond the bound; more load cannot but add to it."""
        return any(f.cause == "latency" and not f.promising for f in self.findings)

    @property
    def strain(self) -> float:
        """The tightest clause's value in units of its bound."""
        return max((finding.strain for finding in self.findings), default=float("inf"))

    @property
    def latency_strain(self) -> float:
        """The tightest latency clause's value in units of its bound; zero where there is none."""
        return max((f.strain for f in self.findings if f.cause == "latency"), default=0.0)

    def _all_but(self, cause: str = "") -> bool:
        return all(finding.promising for finding in self.findings if finding.cause != cause)


def assess(slo: ServiceLevelObjective, result: TrialResult) -> Assessment:
    """Judge a trial by the load clauses of an objective."""
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


def would_hold(slo: ServiceLevelObjective, result: TrialResult) -> bool:
    """Whether a trial would meet the load clauses if its measured values were the truth.

    Of an invalid trial that says what may have been missed, and nothing more.
    """
    return result.latency is not None and all(f.promising for f in _findings(slo, result))


def best(assessments: Iterable[Assessment]) -> Assessment | None:
    """The one to recommend: most inferences a second, among equals the least latency.

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


def latency_metric(slo: ServiceLevelObjective) -> str:
    """The latency that an objective speaks of first; p95 where it speaks of none."""
    named = (clause.metric for clause in slo.constraints if clause.metric in LATENCY_METRICS)
    return next(named, "p95")


def _findings(slo: ServiceLevelObjective, result: TrialResult) -> list[Finding]:
    """A finding for each load clause, and for the errors where no clause names them."""
    clauses = load_clauses(slo)
    findings = [judge_load(clause, result) for clause in clauses]
    if all(clause.metric != "error_rate" for clause in clauses):
        findings.append(judge_default_error_rate(result))
    return findings


def _latency_ms(slo: ServiceLevelObjective, result: TrialResult) -> float:
    if result.latency is None:
        return float("inf")
    metric = latency_metric(slo)
    if metric == "mean":
        return result.latency.mean_ms
    return result.latency.percentiles[metric].value_ms
