"""One family's decision matrix: hard limits, dominance, weights where somebody named them.

The recommendation is the verdict's: what a page for a review adds is how sure it is, what else
could be had, and what whoever signs has to know. A weighting never overrules a hard limit, nor
the house's rule that only a trial measured afresh is recommended; where it prefers another
candidate, that is said, with what would be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.planning.review.front import (
    SharedDraws,
    direction,
    draws_of,
    places,
    values_of,
)
from harness.planning.review.ranking import check_weighed, rank
from harness.types import Decision, Role
from harness.types.review import (
    DecisionCandidate,
    DecisionMatrix,
    Figure,
    FigureBasis,
    FrontPlace,
    PlannedFact,
    Ranking,
    Risk,
)
from harness.words.numbers import metric_title, percent

SURE = 0.95
"""Probability of lying on the front from which on nothing more is said of it."""
NOTABLE_FIRST = 0.5


@dataclass(frozen=True)
class FamilyEvidence:
    """What a matrix is made of."""

    family: str
    objective: str
    runs: tuple[str, ...]
    candidates: tuple[DecisionCandidate, ...]
    metrics: tuple[str, ...]
    """Metrics that may decide dominance, in the order of the columns."""
    decision: Decision
    recommended: str | None
    """Name of the candidate that the verdict recommends."""
    reason: str
    """The verdict in a sentence."""
    next_step: str = ""
    reference: str = ""
    """The teacher's candidate, whose score is 1 where weights rank."""
    risks: tuple[Risk, ...] = ()
    facts: tuple[PlannedFact, ...] = ()
    shared: SharedDraws = field(default_factory=dict)


def matrix_of(
    evidence: FamilyEvidence, *, weights: Mapping[str, float] | None, seed: int
) -> DecisionMatrix:
    """Weigh a family's candidates.

    Args:
        evidence: all that is known of them.
        weights: by metric; None for no ranking.
        seed: of all draws.

    Raises:
        UsageError: a weighted metric is known of no candidate.
    """
    candidates, asked = evidence.candidates, dict(weights or {})
    metrics = tuple(dict.fromkeys([*evidence.metrics, *asked]))
    drawn = draws_of(candidates, metrics, seed=seed, shared=evidence.shared)
    deciding = [place for place, name in enumerate(metrics) if name in evidence.metrics]
    found = places(candidates, evidence.metrics, drawn[:, :, deciding])
    ranking = None
    if asked:
        check_weighed(candidates, asked)
        ranking = _ranking(evidence, asked, dict(zip(metrics, np.moveaxis(drawn, -1, 0),
                                                     strict=True)), seed)  # fmt: skip
    used = np.isfinite(values_of(candidates, evidence.metrics)).any(axis=0)
    return DecisionMatrix(
        family=evidence.family,
        objective=evidence.objective,
        runs=evidence.runs,
        decision=evidence.decision,
        recommended=evidence.recommended,
        sentence=_sentence(evidence, found, ranking),
        next_step=evidence.next_step,
        metrics=tuple(np.array(evidence.metrics, dtype=object)[used]),
        candidates=candidates,
        places=found,
        ranking=ranking,
        risks=(*_risks(evidence, found, ranking), *evidence.risks),
        facts=evidence.facts,
    )


def _ranking(
    evidence: FamilyEvidence,
    weights: Mapping[str, float],
    drawn: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]],
    seed: int,
) -> Ranking:
    """Rank the candidates that no hard limit rules out, and the teacher as the yardstick."""
    kept = [
        place
        for place, one in enumerate(evidence.candidates)
        if one.name == evidence.reference or one.decision not in {Decision.FAIL, Decision.INVALID}
    ]
    figures = {name: direction(name) * table[:, kept] for name, table in drawn.items()}
    return rank(
        [evidence.candidates[place] for place in kept],
        weights,
        figures,
        reference=evidence.reference,
        seed=seed,
    )


def _sentence(
    evidence: FamilyEvidence, found: Sequence[FrontPlace], ranking: Ranking | None
) -> str:
    """The recommendation; how sure its place is; what the weights say."""
    parts = [evidence.reason]
    place = next((one for one in found if one.candidate == evidence.recommended), None)
    if place is not None and place.probability is not None:
        parts.append(
            f"It lies on the Pareto front with a probability of {percent(place.probability)}."
        )
    if ranking is not None and ranking.ranked:
        first = ranking.ranked[0]
        same = first.candidate == evidence.recommended
        who = "it" if same else first.candidate
        parts.append(
            f"By the weights {who} ranks first (first in {percent(first.first_probability)} of "
            f"the draws, and by {percent(first.first_share)} of all weightings)."
        )
    return " ".join(part for part in parts if part)


def _risks(
    evidence: FamilyEvidence, found: Sequence[FrontPlace], ranking: Ranking | None
) -> Iterator[Risk]:
    """What follows from the matrix itself, the recommended candidate first."""
    ordered = sorted(evidence.candidates, key=lambda one: one.name != evidence.recommended)
    for place in found:
        if place.candidate == evidence.recommended:
            yield from _recommended_place(place)
    if ranking is not None and ranking.ranked:
        yield from _by_weights(evidence, ranking)
    for candidate in ordered:
        for limit in candidate.limits:
            if limit.decision in {Decision.UNDECIDED, Decision.INVALID}:
                text = f"{candidate.name}, {limit.text}: {limit.reason}"
                yield Risk(limit.decision.value, text, candidate.run, limit.trial_id)
    for candidate in ordered:
        for figure in candidate.figures:
            if figure.basis is not FigureBasis.MEASURED:
                yield Risk("extrapolated", _extrapolated(candidate, figure), figure.run,
                           figure.trial_id)  # fmt: skip


def _recommended_place(place: FrontPlace) -> Iterator[Risk]:
    if place.dominated_by:
        others = ", ".join(place.dominated_by)
        yield Risk("other", f"{place.candidate} is surely dominated by {others}")
    elif place.probability is not None and place.probability < SURE:
        yield Risk(
            "undecided",
            f"{place.candidate} lies on the Pareto front in only {percent(place.probability)} of "
            "the draws: another candidate may be as good in everything",
        )


def _by_weights(evidence: FamilyEvidence, ranking: Ranking) -> Iterator[Risk]:
    first = ranking.ranked[0]
    candidate = next(one for one in evidence.candidates if one.name == first.candidate)
    if first.candidate != evidence.recommended and evidence.recommended is not None:
        missing = []
        if candidate.role is Role.TEACHER:
            missing.append("it is the teacher itself")
        elif candidate.decision is not Decision.PASS:
            missing.append(f"its hard limits are {candidate.decision.value}")
        elif not candidate.confirmed:
            missing.append("its trial was not measured afresh")
        why = f": {', '.join(missing)}" if missing else ""
        yield Risk(
            "unconfirmed",
            f"the weights prefer {first.candidate} to the recommended {evidence.recommended}{why}",
            candidate.run,
        )
    if first.first_probability < NOTABLE_FIRST:
        yield Risk(
            "undecided",
            f"{first.candidate} ranks first by the values, but in only "
            f"{percent(first.first_probability)} of the draws from the intervals",
            candidate.run,
        )


def _extrapolated(candidate: DecisionCandidate, figure: Figure) -> str:
    note = f" ({figure.note})" if figure.note else ""
    kind = "an estimate" if figure.basis is FigureBasis.ESTIMATE else "predicted, not measured"
    return f"{candidate.name}: {metric_title(figure.metric)} is {kind}{note}"
