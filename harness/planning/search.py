"""Which trial to measure next: ask and tell, pure and deterministic.

The same results give the same questions, so a resumed run answers from its journal until it comes
to a trial that it has not measured.

BisectionSearch looks, in *cells* (variant, serving configuration, protocol, client batch size),
for the highest load that meets the objective (`bracketing.py`):

1. *workload*: each variant with each client batch size, on the first serving configuration.
2. *protocol*: each variant's best batch size on the other protocols.
3. *serving*: each variant's best protocol and batch size on the other serving configurations.
4. *refine*: the leader's other protocols and batch sizes, if another serving configuration leads:
   what limited all of them alike may not do so any more. Then the leader at half its load, as
   often as that costs no throughput: among equals the lower latency wins.
5. *confirm*: the winner again and for longer. If it does not hold up, the search goes on.

A cell begins at the load that has served best so far, and is left as soon as it cannot win: no
load that meets the objective there can reach the throughput of one that passed elsewhere. So most
cells cost one trial. A variant's first cell is followed until some load holds, so that each variant
shows what it gives. Trials that share a variant and a serving configuration follow each other,
because another one has to be loaded first.

One thing is varied at a time, so two changes that pay only together can be missed.

GridSearch measures every combination, then confirms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from harness.planning.assessment import THROUGHPUT_TIE, Assessment, best
from harness.planning.dialogue import CLEARLY_MORE, PlannedSearch, Stage
from harness.planning.space import (
    Ladder,
    SearchCell,
    TriedLoad,
    calmer_load,
    load_of,
    next_load,
    potential,
    resource_ratio,
)
from harness.types import Decision, LoadMode, Rejection, Trial, TrialResult
from harness.words.labels import throughput_unit, trial_words
from harness.words.numbers import number

PROBES_PER_CELL = 1.5
"""What the estimate begins with; it learns from the cells that are done."""
STAGES = ("workload", "protocol", "serving")
IN_FLIGHT_PER_INSTANCE = 2
SERVING_SLACK = 2.0
"""What another configuration may bring beyond its share of resources, by fuller batches say."""


class Search(Protocol):
    """Ask for a trial, measure it, tell its result."""

    @property
    def remaining(self) -> int:
        """Estimate of the trials still to be told, the one that was asked for included."""
        ...

    @property
    def pruned(self) -> Sequence[Rejection]:
        """Trials that were left out because they could not win any more."""
        ...

    def ask(self) -> Trial | None:
        """The trial to measure, the same one until it is told; None at the end."""
        ...

    def tell(self, result: TrialResult) -> None:
        """The result of the trial that was asked for."""
        ...


class GridSearch(PlannedSearch):
    """Every variant on every serving configuration under every workload, then confirm."""

    def _exploring_left(self) -> float:
        return len(self._space.combinations()) - len(self._swept)

    def _explore(self) -> Stage:
        for variant, serving, workload in self._space.combinations():
            yield from self._measure(self._trial(variant, serving, workload, "grid"))


class BisectionSearch(PlannedSearch):
    """The stages that stand at the top of this module."""

    _explored = False
    _settled: frozenset[SearchCell] = frozenset()
    """Cells that were begun or left out."""

    def _exploring_left(self) -> float:
        if self._explored:
            return 0.0
        begun = {SearchCell.of(one.trial) for one in self._swept.values()}
        trials_a_cell = (PROBES_PER_CELL + len(self._swept)) / (1 + len(begun))
        return max(0, self._planned_cells() - len(self._settled)) * trials_a_cell

    def _planned_cells(self) -> int:
        cells = 0
        for variant in self._space.variants:
            batches = self._space.over_batches(variant)
            cells += len(batches)
            if batches:
                cells += len(self._space.over_protocols(batches[0])) - 1
                cells += len(self._space.over_serving(batches[0])) - 1
        return cells

    def _explore(self) -> Stage:
        self._pruned.clear()
        for variant in self._space.variants:
            for cell in self._space.over_batches(variant):
                yield from self._climb(cell, "workload")
            yield from self._vary(variant, self._space.over_protocols, "protocol")
        for variant in self._fastest_first():
            yield from self._vary(variant, self._space.over_serving, "serving")
        yield from self._refine()
        self._explored = True

    def _refine(self) -> Stage:
        """What may be gained around the leader, and whether half its load gives as much."""
        leader = self._leader()
        if leader is not None and leader.trial.stage == "serving":
            for cell in self._space.around(SearchCell.of(leader.trial)):
                yield from self._climb(cell, "refine")
        leader = self._leader()
        if leader is not None:
            yield from self._calm(SearchCell.of(leader.trial))

    def _calm(self, cell: SearchCell) -> Stage:
        """Halve the load for as long as that costs no throughput."""
        ladder = self._space.ladder(cell)
        while (load := calmer_load(ladder, self._probes(cell))) is not None:
            yield from self._measure(self._at(cell, load, "refine"))

    def _vary(
        self, variant: str, alternatives: Callable[[SearchCell], list[SearchCell]], stage: str
    ) -> Stage:
        """Change one thing about the best cell of a variant's earlier stages."""
        earlier = STAGES[: STAGES.index(stage)]
        known = [one for one in self._standing(variant) if one.trial.stage in earlier]
        base = self._with_room(known) if stage == "serving" else best(known)
        if base is None:
            return
        for cell in alternatives(SearchCell.of(base.trial)):
            self._settled |= {cell}
            if not self._left_out_of_reach(
                self._at(cell, load_of(base.trial.workload), stage), base
            ):
                yield from self._climb(cell, stage)

    def _with_room(self, known: Sequence[Assessment]) -> Assessment | None:
        """The best that has a request in service and one waiting for every instance there may be.

        A few large requests in flight would not show what more instances can do. Where none that
        is nearly as good has this many, the best all the same.
        """
        top = best(known)
        if top is None or not top.promising:
            return top
        enough = IN_FLIGHT_PER_INSTANCE * self._space.most_instances
        roomy = (
            one
            for one in known
            if one.promising
            and one.trial.workload.concurrency >= enough
            and one.inferences_per_s * CLEARLY_MORE >= top.inferences_per_s
        )
        return best(roomy) or top

    def _fastest_first(self) -> list[str]:
        """Variants by the best throughput that promises to meet the objective."""

        def throughput(variant: str) -> float:
            top = best(self._standing(variant))
            return top.inferences_per_s if top and top.promising else 0.0

        return sorted(self._space.variants, key=throughput, reverse=True)

    def _climb(self, cell: SearchCell, stage: str) -> Stage:
        """Find the highest load of a cell that holds, as long as the cell may win."""
        self._settled |= {cell}
        while (load := self._next_load(cell)) is not None:
            trial = self._at(cell, load, stage)
            if self._left_beaten(trial):
                return
            yield from self._measure(trial)

    def _next_load(self, cell: SearchCell) -> float | None:
        ladder, probes = self._space.ladder(cell), self._probes(cell)
        if probes:
            return next_load(ladder, probes)
        known = best(self._standing())
        if known is None:
            return ladder.middle
        samples = load_of(known.trial.workload) * known.trial.workload.client_batch_size
        return ladder.at_most(samples / cell.client_batch_size)

    def _at(self, cell: SearchCell, load: float, stage: str) -> Trial:
        workload = self._space.workload(cell, load)
        return self._trial(cell.variant, cell.serving, workload, stage)

    def _probes(self, cell: SearchCell) -> list[TriedLoad]:
        ladder = self._space.ladder(cell)
        own = [one for one in self._swept_of(cell.variant) if SearchCell.of(one.trial) == cell]
        return [
            TriedLoad(load_of(one.trial.workload), True, one.inferences_per_s)
            if one.feasible and self._undoing(one) is None
            else _failed(ladder, self._undoing(one) or one)
            for one in own
        ]

    def _left_beaten(self, trial: Trial) -> bool:
        """Whether a cell cannot win any more; then it is noted what is left out, and why."""
        cell, rival = SearchCell.of(trial), self._rival(trial.variant)
        first = cell == self._space.over_batches(trial.variant)[0]
        if first and not any(probe.holds for probe in self._probes(cell)):
            return False
        most = potential(self._probes(cell))
        if rival is None or most >= (1 - THROUGHPUT_TIE) * rival.inferences_per_s:
            return False
        self._leave_out(
            trial, f"it can give at most {number(most)} {throughput_unit(trial.workload)}", rival
        )
        return True

    def _left_out_of_reach(self, trial: Trial, base: Assessment) -> bool:
        """Whether a variant is too far behind for another configuration; then it is noted."""
        rival = self._rival(trial.variant)
        valid = [one for one in self._swept_of(trial.variant) if one.result.valid]
        capacity = max((one.inferences_per_s for one in valid), default=0.0)
        most = capacity * SERVING_SLACK * resource_ratio(trial.serving, base.trial.serving)
        if rival is None or self._probes(SearchCell.of(trial)) or most >= rival.inferences_per_s:
            return False
        why = (
            f"{trial.variant} gave at most {number(capacity)} {throughput_unit(trial.workload)} on "
            f"{base.trial.serving.label}, too little for another configuration to make up"
        )
        self._leave_out(trial, why, rival)
        return True

    def _leave_out(self, trial: Trial, why: str, rival: Assessment) -> None:
        reason = (
            f"not measured: {why}; {rival.trial.variant} ({trial_words(rival.trial)}) meets the "
            f"load clauses with {number(rival.inferences_per_s)}"
        )
        self._pruned[trial.trial_id] = Rejection(trial.variant, trial.trial_id, "dominated", reason)

    def _rival(self, variant: str) -> Assessment | None:
        """The most throughput that passed, of variants that may be preferred to this one."""
        rivals = (one for one in self._beside(variant) if one.decision is Decision.PASS)
        return max(rivals, key=lambda one: one.inferences_per_s, default=None)


def _failed(ladder: Ladder, one: Assessment) -> TriedLoad:
    """What a load that does not hold tells of those beside it.

    A closed loop has Little's law, which speaks of the response alone: the first token waits only
    once all slots are taken, so what is many times too slow may hold at little less load. An open
    loop is limited only by the rate it offers: what an overloaded server still achieves may be less
    than it gives at a lighter load.
    """
    workload = one.trial.workload
    load = load_of(workload)
    if one.decision is Decision.INVALID:
        return TriedLoad(load, holds=False, valid=False)
    if workload.load_mode is LoadMode.OPEN:
        lighter_per_s = ladder.below(load) * workload.client_batch_size
        return TriedLoad(load, holds=False, ceiling=load, potential=lighter_per_s)
    if not one.overloaded:
        return TriedLoad(load, holds=False, ceiling=load)
    ceiling = load / max(1.0, one.response_strain)
    return TriedLoad(load, holds=False, ceiling=ceiling, potential=one.inferences_per_s)
