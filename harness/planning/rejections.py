"""Why each candidate is not the recommended one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from harness.planning.assessment import (
    THROUGHPUT_TIE,
    Assessment,
    QualityJudgement,
    best,
    would_hold,
)
from harness.types import CONFIRM, Decision, Rejection, ServiceLevelObjective
from harness.words.labels import throughput_unit, throughput_words
from harness.words.numbers import latency, number

Configuration = tuple[str, str, str]


class Candidates:
    """The assessed trials of a family's models, sorted out by configuration.

    Args:
        slo: the objective.
        quality: what its quality clauses say of each model.
        assessments: all trials, in the order they were measured.
        yardsticks: models that are measured beside the candidates and never recommended: the
            teacher's, unless the study lets it count.
    """

    def __init__(
        self,
        slo: ServiceLevelObjective,
        quality: Mapping[str, QualityJudgement],
        assessments: Sequence[Assessment],
        yardsticks: Collection[str] = (),
    ) -> None:
        self.slo = slo
        self.quality = quality
        self.yardsticks = frozenset(yardsticks)
        self.swept: dict[Configuration, Assessment] = {}
        self.fresh: dict[Configuration, Assessment] = {}
        self.superseded: list[Assessment] = []
        """Measured again later, because they were invalid."""
        for one in assessments:
            judged = quality.get(one.trial.variant)
            if judged is not None and judged.decision is not Decision.FAIL:
                kind = self.fresh if one.trial.stage == CONFIRM else self.swept
                earlier = kind.get(one.trial.configuration)
                self.superseded += [earlier] if earlier is not None else []
                kind[one.trial.configuration] = one

    @property
    def asked(self) -> dict[str, QualityJudgement]:
        """The models that may be recommended, with what their quality says."""
        return {name: said for name, said in self.quality.items() if name not in self.yardsticks}

    @property
    def confirmed(self) -> list[Assessment]:
        """Fresh measurements that pass, of candidates whose quality passes."""
        return [
            one
            for one in self.fresh.values()
            if one.decision is Decision.PASS
            and one.trial.variant in self.asked
            and self.proven(one.trial.variant)
        ]

    @property
    def current(self) -> list[Assessment]:
        """One assessment a configuration of the candidates: the fresh one where it is valid."""
        return [one for one in self._current() if one.trial.variant in self.asked]

    def best_of(self, variants: Collection[str]) -> Assessment | None:
        """The best valid trial of some models; None where there is none."""
        return best(one for one in self._current() if one.trial.variant in variants)

    def spoiled_rival(self, variants: Collection[str], winner: Assessment) -> Assessment | None:
        """The invalid trial of some models that, as measured, would have come before the winner.

        None where one of their valid trials met the load clauses with as much: then what they give
        is known.
        """
        own = [one for one in self._current() if one.trial.variant in variants]
        top = best(one for one in own if one.promising)
        known_per_s = top.inferences_per_s if top else 0.0
        spoiled = [
            one
            for one in own
            if one.decision is Decision.INVALID
            and would_hold(self.slo, one.result)
            and one.inferences_per_s >= (1 - THROUGHPUT_TIE) * winner.inferences_per_s
            and one.inferences_per_s > known_per_s
        ]
        return max(spoiled, key=lambda one: one.inferences_per_s, default=None)

    def _current(self) -> list[Assessment]:
        valid = {key: one for key, one in self.fresh.items() if one.result.valid}
        return list({**self.swept, **valid}.values())

    @property
    def untried(self) -> list[str]:
        """Candidates that quality does not rule out and of which nothing was measured."""
        tried = {one.trial.variant for one in self.current}
        return [
            name
            for name, (decision, *_) in self.asked.items()
            if decision is not Decision.FAIL and name not in tried
        ]

    @property
    def hopeless(self) -> bool:
        """Whether every candidate fails on quality, or in every configuration that was tried."""
        failed = all(one.decision is Decision.FAIL for one in self.current)
        return failed and not self.untried

    def proven(self, variant: str) -> bool:
        """Whether a variant's quality passes."""
        return self.quality[variant].decision is Decision.PASS


def rejections(candidates: Candidates, winner: Assessment | None) -> Iterator[Rejection]:
    """Every variant that its quality rules out, then every other configuration, with its reason."""
    for variant, (decision, reason, _) in candidates.quality.items():
        if decision is Decision.FAIL:
            yield Rejection(variant, None, "quality", reason)
        elif decision is Decision.UNDECIDED:
            yield Rejection(variant, None, "undecided", reason)
    for one in candidates.superseded:
        yield Rejection(
            one.trial.variant,
            one.trial.trial_id,
            "invalid",
            f"{one.reason}; it was measured again",
        )
    chosen = winner.trial.configuration if winner else None
    for kind in (candidates.swept, candidates.fresh):
        for key, one in kind.items():
            if key != chosen:
                cause, reason = _why_not(candidates, one, winner)
                yield Rejection(one.trial.variant, one.trial.trial_id, cause, reason)


def _why_not(candidates: Candidates, one: Assessment, winner: Assessment | None) -> tuple[str, str]:
    """Cause and reason; a pass is rejected by what came after it."""
    if one.decision is not Decision.PASS:
        return one.cause, one.reason
    variant = one.trial.variant
    if variant in candidates.yardsticks:
        return "teacher", (
            f"meets the load clauses with {throughput_words(one.result)}, and is what a student "
            "is to replace"
        )
    if not candidates.proven(variant):
        return "undecided", f"meets the load clauses, but {candidates.quality[variant].reason}"
    fresh = candidates.fresh.get(one.trial.configuration)
    if fresh is not None and fresh.decision is not Decision.PASS:
        return _not_confirmed(fresh)
    if winner is None:
        return "undecided", "met the objective once, but was not measured again"
    return _behind(one, winner, candidates.swept.get(winner.trial.configuration, winner))


def _not_confirmed(fresh: Assessment) -> tuple[str, str]:
    """Why a trial that passed is not borne out by its fresh measurement."""
    if fresh.decision is Decision.INVALID:
        return "undecided", f"met the objective once, but measured afresh: invalid: {fresh.reason}"
    return fresh.cause, f"met the objective once, but measured afresh: {fresh.reason}"


def _behind(one: Assessment, winner: Assessment, winner_swept: Assessment) -> tuple[str, str]:
    """Why a passing configuration comes after the winner, whose two measurements are given."""
    rate, best_rate = one.inferences_per_s, winner.inferences_per_s
    meets = f"meets the objective with {number(rate)} {throughput_unit(one.trial.workload)}"
    if rate <= (1 - THROUGHPUT_TIE) * best_rate:
        return "slower", f"{meets}; the recommended one gives {number(best_rate)}"
    if one.latency_ms >= winner.latency_ms and rate * (1 - THROUGHPUT_TIE) <= best_rate:
        return "slower", (
            f"{meets}, as good as the {number(best_rate)} of the recommended one, but at "
            f"{latency(one.latency_ms)} instead of {latency(winner.latency_ms)}"
        )
    swept_rate = winner_swept.inferences_per_s
    return "slower", (
        f"{meets}; in the same stage the recommended one gave {number(swept_rate)}, and "
        f"{number(best_rate)} when measured again"
    )
