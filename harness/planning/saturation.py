"""Which open loops follow a verdict: latency over rate, for planning.

A verdict comes from closed loops at the loads that the search visited. Capacity needs latency over
rates, so what was chosen, and the teacher, are measured once more with Poisson arrivals, at shares
of the highest throughput that any valid trial of the same configuration had.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from harness.planning.assessment import borne_out
from harness.types import (
    SATURATION,
    ArrivalProcess,
    LoadMode,
    Trial,
    TrialResult,
    Verdict,
)


@dataclass(frozen=True)
class SaturationTerms:
    """What a study says of the open loops that follow its verdicts."""

    shares: Sequence[float]
    """Rates as shares of the highest throughput found; each above 0."""
    duration_s: float
    max_in_flight: int
    """Requests that fall due beyond this many in flight are dropped, and counted."""


def saturation_trials(
    verdict: Verdict,
    results: Sequence[TrialResult],
    teachers: Collection[str],
    terms: SaturationTerms,
) -> list[Trial]:
    """The open loops of a family: the winner's at rising rates, then the teacher's.

    The winner is what the verdict recommends; where it recommends nothing, the student that met
    the objective's load clauses with the highest throughput, if any did. The teacher is measured
    as it was best, in whichever of its precisions. What a fresh measurement did not bear out did
    not meet them.

    Args:
        verdict: of the family.
        results: all trials of the family's search.
        teachers: names of the teacher's variants.
        terms: shares, and how long.
    """
    valid = [one for one in results if one.valid and one.throughput_requests_per_s > 0]
    recommended = next((r for r in valid if r.trial.trial_id == verdict.recommended), None)
    passing = [one for one in borne_out(results) if one.throughput_requests_per_s > 0]
    winner = recommended or _most(one for one in passing if one.trial.variant not in teachers)
    teacher = _most(one for one in passing if one.trial.variant in teachers) or _most(
        one for one in valid if one.trial.variant in teachers
    )
    chosen = [one for one in (winner, teacher) if one is not None]
    if winner is not None and winner.trial.variant in teachers:
        chosen = [winner]
    return [
        trial for one in chosen for trial in _at_shares(one.trial, _found_per_s(one, valid), terms)
    ]


def _at_shares(trial: Trial, highest_per_s: float, terms: SaturationTerms) -> list[Trial]:
    """The configuration of a trial in open loops; each rate draws arrivals of its own."""
    return [
        replace(
            trial,
            stage=SATURATION,
            repeat=0,
            workload=replace(
                trial.workload,
                load_mode=LoadMode.OPEN,
                arrivals=ArrivalProcess(),
                rate_per_s=_readable(share * highest_per_s),
                concurrency=terms.max_in_flight,
                duration_s=terms.duration_s,
                min_duration_s=None,
                seed=trial.workload.seed + place,
            ),
        )
        for place, share in enumerate(sorted(terms.shares), start=1)
    ]


def _found_per_s(one: TrialResult, results: Iterable[TrialResult]) -> float:
    """The highest requests/s of a configuration and its requests' sizes, at any load."""
    asked = _cell(one.trial)
    return max(r.throughput_requests_per_s for r in results if _cell(r.trial) == asked)


def _cell(trial: Trial) -> tuple[object, ...]:
    workload = trial.workload
    sizes = (workload.client_batch_size, workload.batch_mix, workload.length_mix)
    return (trial.variant, trial.serving, workload.protocol, *sizes)


def _most(results: Iterable[TrialResult]) -> TrialResult | None:
    return max(results, key=lambda one: one.throughput_inferences_per_s, default=None)


def _readable(rate_per_s: float) -> float:
    """Three significant digits: the rate is part of the trial's name."""
    return float(f"{rate_per_s:.3g}")
