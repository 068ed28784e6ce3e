"""What searches share: the dialogue of ask and tell, the estimate, and the confirming stage."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence

from harness.planning.assessment import Assessment, assess, best
from harness.planning.rejections import CONFIRM
from harness.planning.space import SearchSpace
from harness.types import (
    Decision,
    Rejection,
    ServiceLevelObjective,
    ServingConfig,
    Trial,
    TrialResult,
    Workload,
)

CONFIRM_TRIES = 3
"""Each try is another chance for luck: after three the sweep was too noisy to choose by."""
CLEARLY_MORE = 1.10
"""What an unconfirmed candidate must promise over a confirmed one to be measured afresh too: the
sweep's numbers flatter those that come out on top, by about as much as windows differ."""

Measured = Generator[Trial, None, Assessment]
Stage = Generator[Trial, None, None]


class PlannedSearch(ABC):
    """A search whose plan is a generator of trials that reads what was measured so far.

    The plan falls into parts with an estimated number of trials each, for `remaining`.
    """

    def __init__(
        self,
        family: str,
        variants: Sequence[str],
        serving: Sequence[ServingConfig],
        workloads: Sequence[Workload],
        slo: ServiceLevelObjective,
        *,
        confirm_duration_s: float,
        unproven: Collection[str] = (),
    ) -> None:
        """Describe the space.

        Args:
            family: name that trials carry.
            variants: those that their quality does not rule out, in order.
            serving: configurations, the simplest first.
            workloads: every protocol, client batch size and concurrency.
            slo: the objective; its load clauses steer the search.
            confirm_duration_s: of the winner's fresh measurement.
            unproven: variants whose quality is undecided: they are confirmed only where no variant
                of proven quality meets the load clauses.
        """
        self._family = family
        self._space = SearchSpace(tuple(variants), tuple(serving), tuple(workloads))
        self._slo = slo
        self._confirm_duration_s = confirm_duration_s
        self._unproven = frozenset(unproven)
        self._assessed: dict[str, Assessment] = {}
        self._pruned: dict[str, Rejection] = {}
        self._pending: Trial | None = None
        self._part = 0
        self._later_parts = self._estimates()
        self._plan = self._stages()

    @property
    def remaining(self) -> int:
        """Estimate of the trials still to be told, the one that was asked for included."""
        return max(self._part, int(self._pending is not None)) + sum(self._later_parts)

    @property
    def pruned(self) -> Sequence[Rejection]:
        """Trials that were left out because a lighter one was already too slow."""
        return tuple(self._pruned.values())

    def ask(self) -> Trial | None:
        """The trial to measure, the same one until it is told; None at the end."""
        if self._pending is None:
            self._pending = next(self._plan, None)
        if self._pending is None:
            self._part, self._later_parts = 0, []
        return self._pending

    def tell(self, result: TrialResult) -> None:
        """The result of the trial that was asked for.

        Raises:
            ValueError: it is of another trial.
        """
        if self._pending is None or result.trial.trial_id != self._pending.trial_id:
            raise ValueError(f"{result.trial.trial_id} is not the trial that was asked for")
        self._assessed[result.trial.trial_id] = assess(self._slo, result)
        self._pending = None
        self._part = max(0, self._part - 1)

    @abstractmethod
    def _estimates(self) -> list[int]:
        """Trials of each part of the plan."""

    @abstractmethod
    def _stages(self) -> Stage:
        """The plan."""

    def _next_part(self) -> None:
        self._part = self._later_parts.pop(0)

    def _trial(self, variant: str, serving: ServingConfig, workload: Workload, stage: str) -> Trial:
        return Trial(variant, self._family, serving, workload, stage, int(stage == CONFIRM))

    def _measure(
        self, variant: str, serving: ServingConfig, workload: Workload, stage: str
    ) -> Measured:
        """A trial's assessment, measured unless it is known."""
        trial = self._trial(variant, serving, workload, stage)
        if trial.trial_id not in self._assessed:
            yield trial
        self._pruned.pop(trial.trial_id, None)
        return self._assessed[trial.trial_id]

    def _swept(self, variant: str | None = None) -> list[Assessment]:
        return [
            one
            for one in self._assessed.values()
            if one.trial.stage != CONFIRM and variant in {None, one.trial.variant}
        ]

    def _confirm(self) -> Stage:
        """Measure the winner afresh, until no other promises clearly more than what held up."""
        self._next_part()
        candidates = [one for one in self._swept() if one.promising]
        proven = [one for one in candidates if one.trial.variant not in self._unproven]
        candidates = proven or candidates
        confirmed_per_s = 0.0
        for tries_left in range(CONFIRM_TRIES, 0, -1):
            worth = [c for c in candidates if c.inferences_per_s > CLEARLY_MORE * confirmed_per_s]
            chosen = _next_to_confirm(worth, safe=tries_left == 1 and not confirmed_per_s)
            if chosen is None:
                return
            candidates.remove(chosen)
            fresh = yield from self._measure_afresh(chosen.trial)
            if fresh.decision is Decision.PASS:
                confirmed_per_s = max(confirmed_per_s, fresh.inferences_per_s)

    def _measure_afresh(self, trial: Trial) -> Measured:
        workload = dataclasses.replace(trial.workload, duration_s=self._confirm_duration_s)
        return (yield from self._measure(trial.variant, trial.serving, workload, CONFIRM))


def _next_to_confirm(candidates: list[Assessment], *, safe: bool) -> Assessment | None:
    """The best candidate; a last try goes to one that has passed already, if there is any."""
    passing = [one for one in candidates if one.decision is Decision.PASS]
    return best(passing if safe and passing else candidates)
