"""Which trial to measure next: ask and tell, pure and deterministic.

The same results give the same questions, so a resumed run answers from its journal until it comes
to a trial that it has not measured.

StagedSearch, for each family:

1. *workload*: each variant on the first serving configuration and protocol. In a closed loop more
   load in flight means more throughput and more latency, so at each client batch size the search
   comes down from the highest concurrency until the latency is met; what is heavier than a load
   that was too slow is left out. Then the other concurrencies at the variant's best batch size.
2. *protocol*: the best point of the two best variants on the other protocols.
3. *serving*: the best point of the two best variants on the other serving configurations; then, on
   the best of these, one step of concurrency more and one less.
4. *confirm*: the winner afresh and for longer; if it does not hold up, the next.

GridSearch measures every combination, then confirms.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from harness.planning.assessment import Assessment, best
from harness.planning.dialogue import PlannedSearch, Stage
from harness.types import Rejection, Trial, TrialResult, Workload

LEADERS = 2
"""Variants that are followed beyond the workload stage."""


class Search(Protocol):
    """Ask for a trial, measure it, tell its result."""

    @property
    def remaining(self) -> int:
        """Estimate of the trials still to be told, the one that was asked for included."""
        ...

    @property
    def pruned(self) -> Sequence[Rejection]:
        """Trials that were left out because a lighter one was already too slow."""
        ...

    def ask(self) -> Trial | None:
        """The trial to measure, the same one until it is told; None at the end."""
        ...

    def tell(self, result: TrialResult) -> None:
        """The result of the trial that was asked for."""
        ...


class GridSearch(PlannedSearch):
    """Every variant on every serving configuration under every workload, then confirm."""

    def _estimates(self) -> list[int]:
        return [len(self._space.combinations()), 1]

    def _stages(self) -> Stage:
        self._next_part()
        for variant, serving, workload in self._space.combinations():
            yield from self._measure(variant, serving, workload, "grid")
        yield from self._confirm()


class StagedSearch(PlannedSearch):
    """The stages that stand at the top of this module."""

    def _estimates(self) -> list[int]:
        space = self._space
        leaders = min(LEADERS, len(space.variants))
        others = max(0, len(space.serving) - 1)
        # One trial a batch size, and a curve: some batches take more, some variants' curves less.
        workload = max(0, len(space.batches) + len(space.concurrencies) - 1)
        return [
            *[workload] * len(space.variants),
            leaders * max(0, len(space.protocols) - 1),
            leaders * others + min(1, others),
            1,
        ]

    def _stages(self) -> Stage:
        for variant in self._space.variants:
            yield from self._explore_workloads(variant)
        yield from self._explore_protocols()
        yield from self._explore_serving()
        yield from self._confirm()

    def _explore_workloads(self, variant: str) -> Stage:
        """Per client batch size the heaviest load that meets the latency; then a curve."""
        self._next_part()
        for batch in self._space.batches:
            yield from self._descend(variant, batch)
        top = best(self._swept(variant))
        if top is None:
            return
        for workload in reversed(self._space.loads(top.trial.workload.client_batch_size)):
            yield from self._unless_dominated(variant, workload)

    def _descend(self, variant: str, batch: int) -> Stage:
        """Come down from the highest concurrency until a load is not too slow."""
        for workload in reversed(self._space.loads(batch)):
            known = yield from self._unless_dominated(variant, workload)
            if known is not None and known.feasible:
                return

    def _unless_dominated(
        self, variant: str, workload: Workload
    ) -> Generator[Trial, None, Assessment | None]:
        """Measure a load, unless a lighter one was too slow."""
        serving = next(iter(self._space.fitting(workload)), None)
        if serving is None:
            return None
        lighter = self._lighter_but_too_slow(variant, workload)
        if lighter is None or self._is_first_sight(workload):
            return (yield from self._measure(variant, serving, workload, "workload"))
        trial = self._trial(variant, serving, workload, "workload")
        reason = (
            f"not measured: client batch {lighter.trial.workload.client_batch_size} with "
            f"{lighter.trial.workload.concurrency} in flight is a lighter load and was too slow "
            f"({lighter.reason})"
        )
        self._pruned[trial.trial_id] = Rejection(variant, trial.trial_id, "dominated", reason)
        return None

    def _is_first_sight(self, workload: Workload) -> bool:
        """Whether this is the last chance to show a batch size that no variant has shown yet."""
        shown = {one.trial.workload.client_batch_size for one in self._swept()}
        lightest = workload.concurrency == self._space.concurrencies[0]
        return lightest and workload.client_batch_size not in shown

    def _lighter_but_too_slow(self, variant: str, workload: Workload) -> Assessment | None:
        lighter = (
            one
            for one in self._swept(variant)
            if one.trial.workload.client_batch_size <= workload.client_batch_size
            and one.trial.workload.concurrency <= workload.concurrency
            and one.trial.workload != workload
        )
        return next((one for one in lighter if one.overloaded), None)

    def _explore_protocols(self) -> Stage:
        self._next_part()
        for top in self._leaders():
            for workload in self._space.over_protocols(top.trial.workload):
                yield from self._measure(top.trial.variant, top.trial.serving, workload, "protocol")

    def _explore_serving(self) -> Stage:
        self._next_part()
        for top in self._leaders():
            workload = top.trial.workload
            for serving in self._space.fitting(workload):
                yield from self._measure(top.trial.variant, serving, workload, "serving")
        for top in self._leaders()[:1]:
            workload = top.trial.workload
            if top.trial.serving == self._space.fitting(workload)[0]:
                return  # its neighbours were measured in the workload stage
            for neighbour in self._space.neighbours(workload):
                yield from self._measure(top.trial.variant, top.trial.serving, neighbour, "serving")

    def _leaders(self) -> list[Assessment]:
        """The best points of the best variants, those of proven quality first."""
        tops = [top for top in (best(self._swept(name)) for name in self._space.variants) if top]
        leaders: list[Assessment] = []
        while tops and len(leaders) < LEADERS:
            proven = [top for top in tops if top.trial.variant not in self._unproven]
            leader = best(proven or tops)
            if leader is None:
                break
            leaders.append(leader)
            tops.remove(leader)
        return leaders
