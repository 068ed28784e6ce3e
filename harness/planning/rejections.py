"""Why each candidate is not the recommended one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.planning.assessment import THROUGHPUT_TIE, Assessment
from harness.planning.wording import number
from harness.types import Decision, Rejection, ServiceLevelObjective, Trial

CONFIRM = "confirm"
"""The stage whose trials may be recommended."""

Configuration = tuple[str, str, str]


def configuration(trial: Trial) -> Configuration:
    """What is served and driven, whichever time it is measured."""
    return trial.variant, trial.serving.label, trial.workload.label


class Candidates:
    """The assessed trials of the variants that may be recommended, sorted out by configuration."""

    def __init__(
        self,
        slo: ServiceLevelObjective,
        quality: Mapping[str, tuple[Decision, str]],
        assessments: Sequence[Assessment],
    ) -> None:
        self.slo = slo
        self.quality = quality
        self.swept: dict[Configuration, Assessment] = {}
        self.fresh: dict[Configuration, Assessment] = {}
        for one in assessments:
            decision, _ = quality.get(one.trial.variant, (Decision.FAIL, ""))
            if decision is not Decision.FAIL:
                kind = self.fresh if one.trial.stage == CONFIRM else self.swept
                kind[configuration(one.trial)] = one

    @property
    def confirmed(self) -> list[Assessment]:
        """Fresh measurements that pass, of variants whose quality passes."""
        return [
            one
            for one in self.fresh.values()
            if one.decision is Decision.PASS and self.proven(one.trial.variant)
        ]

    @property
    def current(self) -> list[Assessment]:
        """One assessment a configuration: the fresh one where it is valid."""
        valid = {key: one for key, one in self.fresh.items() if one.result.valid}
        return list({**self.swept, **valid}.values())

    @property
    def untried(self) -> list[str]:
        """Variants that quality does not rule out and of which nothing was measured."""
        tried = {one.trial.variant for one in self.current}
        return [
            name
            for name, (decision, _) in self.quality.items()
            if decision is not Decision.FAIL and name not in tried
        ]

    @property
    def hopeless(self) -> bool:
        """Whether every variant fails on quality, or in every configuration that was tried."""
        failed = all(one.decision is Decision.FAIL for one in self.current)
        return failed and not self.untried

    def proven(self, variant: str) -> bool:
        """Whether a variant's quality passes."""
        return self.quality[variant][0] is Decision.PASS


def rejections(candidates: Candidates, winner: Assessment | None) -> Iterator[Rejection]:
    """Every variant that its quality rules out, then every other configuration, with its reason."""
    for variant, (decision, reason) in candidates.quality.items():
        if decision is Decision.FAIL:
            yield Rejection(variant, None, "quality", reason)
        elif decision is Decision.UNDECIDED:
            yield Rejection(variant, None, "undecided", reason)
    chosen = configuration(winner.trial) if winner else None
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
    if not candidates.proven(variant):
        return "undecided", f"meets the load clauses, but {candidates.quality[variant][1]}"
    fresh = candidates.fresh.get(configuration(one.trial))
    if fresh is not None and fresh.decision is not Decision.PASS:
        return fresh.cause, f"met the objective once, but measured afresh: {fresh.reason}"
    if winner is None:
        return "undecided", "met the objective once, but was not measured afresh"
    return _behind(one, winner, candidates.swept.get(configuration(winner.trial), winner))


def _behind(one: Assessment, winner: Assessment, winner_swept: Assessment) -> tuple[str, str]:
    """Why a passing configuration comes after the winner, whose two measurements are given."""
    rate, best_rate = one.inferences_per_s, winner.inferences_per_s
    meets = f"meets the objective with {number(rate)} inferences/s"
    if rate <= (1 - THROUGHPUT_TIE) * best_rate:
        return "slower", f"{meets}; the recommended one gives {number(best_rate)}"
    if one.latency_ms >= winner.latency_ms and rate * (1 - THROUGHPUT_TIE) <= best_rate:
        return "slower", (
            f"{meets}, as good as the {number(best_rate)} of the recommended one, but at "
            f"{number(one.latency_ms)} ms instead of {number(winner.latency_ms)} ms"
        )
    swept_rate = winner_swept.inferences_per_s
    return "slower", (
        f"{meets}; in the same stage the recommended one gave {number(swept_rate)}, and "
        f"{number(best_rate)} when measured afresh"
    )
