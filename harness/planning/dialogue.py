"""What searches share: the dialogue of ask and tell, the estimate, repeats and confirmations."""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from harness.planning.assessment import (
    THROUGHPUT_TIE,
    Assessment,
    assess,
    best,
    would_hold,
)
from harness.planning.rejections import Configuration
from harness.planning.space import SearchSpace
from harness.types import (
    CONFIRM,
    STEADIER_REPEAT,
    Decision,
    Rejection,
    ServiceLevelObjective,
    ServingConfig,
    Trial,
    TrialResult,
    Workload,
)


def after_longer_warm_up(result: TrialResult) -> Trial | None:
    """The same trial with the longer warm-up that its result proposes.

    Once: a load that is not steady after that either is a matter for the person who reads it.

    Returns:
        None where the load was steady, or the trial is the second already.
    """
    trial, longer_s = result.trial, result.steadier_warmup_s
    if longer_s is None or trial.after_longer_warm_up:
        return None
    workload = dataclasses.replace(
        trial.workload,
        min_warmup_s=longer_s,
        warmup_s=max(longer_s, trial.workload.warmup_s),
    )
    return dataclasses.replace(trial, workload=workload, repeat=trial.repeat + STEADIER_REPEAT)


CONFIRM_TRIES = 3
"""Each try is another chance for luck: after three the sweep was too noisy to choose by."""
AGAIN_TRIES = 3
"""Invalid trials that are measured again: after three something is wrong that stays."""
CONFIRM_REPEAT = 1
"""Repeat number of the confirming trial."""
AGAIN_REPEAT = 2
"""Repeat number of a trial that is measured again because it was invalid."""
CONFIRM_AGAIN_REPEAT = 2 * STEADIER_REPEAT + CONFIRM_REPEAT
"""Repeat number of a confirming trial that is measured again because it was invalid."""
CLEARLY_MORE = 1.10
"""What an unconfirmed candidate must promise over a confirmed one to be measured again too: the
sweep's numbers flatter those that come out on top, by about as much as windows differ."""

Measured = Generator[Trial, None, Assessment]
Stage = Generator[Trial, None, None]


@dataclass(frozen=True)
class Reserved:
    """Variants that are measured, but not recommended like the others."""

    unproven: frozenset[str] = frozenset()
    """Variants whose quality is undecided: confirmed only where no variant of proven quality meets
    the load clauses."""
    yardsticks: frozenset[str] = frozenset()
    """Measured beside the candidates (the teacher's, where only a student may be recommended):
    never confirmed, and they rule no candidate out."""


class PlannedSearch(ABC):
    """A search whose plan is a generator of trials that reads what was measured so far.

    It explores, measures an invalid trial again that would have been the best, then measures the
    winner again, and once more where that is invalid. What does not hold up is taken for a load
    that does not hold; with that in mind it explores on, for the next candidate.
    """

    def __init__(
        self,
        family: str,
        variants: Sequence[str],
        serving: Sequence[ServingConfig] | Mapping[str, Sequence[ServingConfig]],
        workloads: Sequence[Workload],
        slo: ServiceLevelObjective,
        *,
        confirm_duration_s: float,
        reserved: Reserved = Reserved(),
    ) -> None:
        """Describe the space.

        Args:
            family: name that trials carry.
            variants: those that their quality does not rule out, the likely fastest first: what
                comes after a good one is sooner seen to be worse.
            serving: configurations, the simplest first; or those of each variant.
            workloads: every protocol, client batch size and load (requests in flight, or rate).
            slo: the objective; its load clauses steer the search.
            confirm_duration_s: longest of the winner's fresh measurement.
            reserved: variants that are not recommended like the others.
        """
        self._family = family
        own = serving if isinstance(serving, Mapping) else {}
        every = [*itertools.chain(*own.values())] if isinstance(serving, Mapping) else serving
        self._space = SearchSpace(
            tuple(variants),
            tuple(dict.fromkeys(every)),
            tuple(workloads),
            {variant: tuple(offered) for variant, offered in own.items()},
        )
        self._slo = slo
        self._confirm_duration_s = confirm_duration_s
        self._unproven = reserved.unproven
        self._yardsticks = reserved.yardsticks
        self._again: list[Configuration] = []
        """Measured again because the first time was invalid; two times where that happened both
        when it was found and when it was confirmed."""
        self._swept: dict[Configuration, Assessment] = {}
        self._fresh: dict[Configuration, Assessment] = {}
        self._pruned: dict[str, Rejection] = {}
        self._pending: Trial | None = None
        self._ended = False
        self._plan = self._stages()

    @property
    def remaining(self) -> int:
        """Estimate of the trials still to be told, the one that was asked for included."""
        if self._ended:
            return 0
        estimate = math.ceil(self._exploring_left()) + int(not self._fresh)
        return max(estimate, int(self._pending is not None))

    @property
    def pruned(self) -> Sequence[Rejection]:
        """Trials that were left out because they could not win any more."""
        return tuple(self._pruned.values())

    def ask(self) -> Trial | None:
        """The trial to measure, the same one until it is told; None at the end."""
        if self._pending is None:
            self._pending = next(self._plan, None)
        self._ended = self._pending is None
        return self._pending

    def tell(self, result: TrialResult) -> None:
        """The result of the trial that was asked for.

        Raises:
            ValueError: it is of another trial.
        """
        if self._pending is None or result.trial.trial_id != self._pending.trial_id:
            raise ValueError(f"{result.trial.trial_id} is not the trial that was asked for")
        self._known(result.trial)[result.trial.configuration] = assess(self._slo, result)
        self._pending = None

    @abstractmethod
    def _exploring_left(self) -> float:
        """Estimate of the trials that exploring still takes."""

    @abstractmethod
    def _explore(self) -> Stage:
        """All trials but the confirming ones; what is known already is not asked for again."""

    def _stages(self) -> Stage:
        yield from self._explore()
        while (spoiled := self._spoiled()) is not None:
            yield self._once_more(spoiled.trial, AGAIN_REPEAT)
            yield from self._explore()  # it may hold, and then a heavier load may too
        for _ in range(CONFIRM_TRIES):
            chosen = self._next_to_confirm()
            if chosen is None:
                return
            fresh = yield from self._confirm(chosen.trial)
            if fresh.decision is not Decision.PASS:
                yield from self._explore()  # what did not hold up may have ruled others out

    def _confirm(self, trial: Trial) -> Measured:
        """A trial's fresh measurement; where it is invalid, the one after it."""
        fresh = yield from self._measure(self._afresh(trial))
        if fresh.decision is Decision.INVALID and len(self._again) < AGAIN_TRIES:
            yield self._once_more(fresh.trial, CONFIRM_AGAIN_REPEAT)
        return self._fresh[trial.configuration]

    def _once_more(self, trial: Trial, repeat: int) -> Trial:
        """An invalid trial, to be measured again; it is noted that it was."""
        self._again.append(trial.configuration)
        return dataclasses.replace(trial, repeat=repeat)

    def _trial(self, variant: str, serving: ServingConfig, workload: Workload, stage: str) -> Trial:
        return Trial(variant, self._family, serving, workload, stage)

    def _measure(self, trial: Trial) -> Measured:
        """A trial's assessment, measured unless it is known.

        Where the load was not steady yet it is measured once more, and that is what counts.
        """
        known, key = self._known(trial), trial.configuration
        if key not in known:
            yield trial
            steadier = after_longer_warm_up(known[key].result)
            if steadier is not None:
                yield steadier
        return known[key]

    def _known(self, trial: Trial) -> dict[Configuration, Assessment]:
        return self._fresh if trial.stage == CONFIRM else self._swept

    def _swept_of(self, variant: str) -> list[Assessment]:
        """What exploring measured of a variant, in order."""
        return [one for one in self._swept.values() if one.trial.variant == variant]

    def _standing(self, variant: str | None = None) -> list[Assessment]:
        """What exploring measured and no fresh measurement has undone."""
        own = self._swept.values() if variant is None else self._swept_of(variant)
        return [one for one in own if self._undoing(one) is None]

    def _beside(self, variant: str) -> list[Assessment]:
        """What stands of the variants that may be preferred to this one, its own included.

        Yardsticks are set against yardsticks only, and undecided quality against its like.
        """
        return [
            one
            for one in self._standing()
            if (one.trial.variant not in self._yardsticks or variant in self._yardsticks)
            and (one.trial.variant not in self._unproven or variant in self._unproven)
        ]

    def _leader(self) -> Assessment | None:
        """The best of the candidates."""
        return best(one for one in self._standing() if one.trial.variant not in self._yardsticks)

    def _spoiled(self) -> Assessment | None:
        """The invalid trial to measure again: as measured, it would be the best.

        Of all that may be preferred to it, that is. What may be recommended comes first.
        """
        if len(self._again) >= AGAIN_TRIES:
            return None
        worth = (
            one
            for one in self._swept.values()
            if one.decision is Decision.INVALID
            and one.inferences_per_s >= self._least_to_win(one.trial.variant)
            and would_hold(self._slo, one.result)
            and one.trial.configuration not in self._again
        )
        reserved = self._unproven | self._yardsticks
        return max(
            worth,
            key=lambda one: (one.trial.variant not in reserved, one.inferences_per_s),
            default=None,
        )

    def _least_to_win(self, variant: str) -> float:
        """Throughput with which a variant's trial would be as good as the best of its rivals."""
        known = (one.inferences_per_s for one in self._beside(variant) if one.promising)
        return (1 - THROUGHPUT_TIE) * max(known, default=0.0)

    def _undoing(self, one: Assessment) -> Assessment | None:
        """The fresh measurement that does not bear out what exploring measured, if there is one."""
        fresh = self._fresh.get(one.trial.configuration)
        if fresh is None or fresh.decision in {Decision.PASS, Decision.INVALID}:
            return None
        return fresh

    def _afresh(self, trial: Trial) -> Trial:
        """The trial once more, and longer: at least as long as the search's trials may be."""
        workload = trial.workload
        shortest_s = workload.min_duration_s
        if shortest_s is not None:
            shortest_s = min(workload.duration_s, self._confirm_duration_s)
        longer = dataclasses.replace(
            workload, duration_s=self._confirm_duration_s, min_duration_s=shortest_s
        )
        return dataclasses.replace(trial, workload=longer, stage=CONFIRM, repeat=CONFIRM_REPEAT)

    def _next_to_confirm(self) -> Assessment | None:
        """The best that passed, else the best that is promising; proven quality comes first.

        Beside a confirmed one, only what promises clearly more.
        """
        confirmed = (one for one in self._fresh.values() if one.decision is Decision.PASS)
        confirmed_per_s = max((one.inferences_per_s for one in confirmed), default=0.0)
        candidates = [
            one
            for one in self._swept.values()
            if one.promising and one.trial.variant not in self._yardsticks
        ]
        proven = [one for one in candidates if one.trial.variant not in self._unproven]
        worth = [
            one
            for one in proven or candidates
            if one.inferences_per_s > CLEARLY_MORE * confirmed_per_s
            and one.trial.configuration not in self._fresh
        ]
        passing = [one for one in worth if one.decision is Decision.PASS]
        return best(passing or worth)
