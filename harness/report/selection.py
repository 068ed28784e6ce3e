"""Which of a run's results a report shows where: pure functions over stored results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.metrics import latency_of, metric_named
from harness.report.family_results import FamilyResults
from harness.types import (
    CONFIRM,
    SERVICE,
    SPANS,
    Decision,
    LatencySpan,
    LatencySummary,
    Percentile,
    Role,
    TrialResult,
)
from harness.types.metrics import PERCENTILES

_STILL_PASSES = frozenset({"", "slower", "teacher"})
"""Causes recorded against a trial that meets the objective all the same."""
_NOTABLE_SHARE = 0.10
"""Latency from the send is shown where it differs from latency from the schedule by this share."""


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
    return _best_afresh(family.trials_of(name), family.percentile)


def _best_afresh(results: Sequence[TrialResult], percentile: str) -> TrialResult | None:
    """The best trial, or the fresh measurement of its configuration that stands for it."""
    best = best_trial(results, percentile)
    if best is None:
        return None
    fresh = [
        one
        for one in measured(results)
        if one.trial.stage == CONFIRM and one.trial.configuration == best.trial.configuration
    ]
    return fresh[-1] if fresh else best


def standing(family: FamilyResults, result: TrialResult) -> tuple[Decision, str]:
    """What the verdict makes of a variant's best trial, and the cause it recorded against it.

    A trial that met the objective once is not a pass where its fresh measurement did not, or where
    the variant's quality is not decided: one row says one thing. Nor is one of a variant that its
    quality rules out, as beside a teacher that was exchanged after the trial.
    """
    rejected = family.verdict.rejected if family.verdict else ()
    variant, trial_id = result.trial.variant, result.trial.trial_id
    if any((one.variant, one.cause) == (variant, "quality") for one in rejected):
        return Decision.FAIL, "quality"
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
            chosen = _best_afresh(of_size, family.percentile)
            best += [chosen] if chosen else []
    return best


def strongest_teacher(family: FamilyResults) -> TrialResult | None:
    """What a student has to beat: the recommended teacher, or the best of its precisions."""
    teachers = [v.name for v in family.variants if v.role is Role.TEACHER]
    recommended = family.recommended
    if recommended and recommended.trial.variant in teachers:
        return recommended
    own = [result for result in family.trials if result.trial.variant in teachers]
    return _best_afresh(own, family.percentile)


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
