"""The space a search moves in: cells, and the ladder of loads that each is bracketed on.

The highest load that holds is found by bracketing and bisection, in pure functions.
Upwards the load doubles while it holds and still brings throughput; downwards it at least halves;
between the heaviest that held and the lightest that did not it is bisected, to one rung.

In a closed loop two laws save trials (Lazowska et al., Quantitative System Performance, 1984,
chapters 3 and 5). Throughput does not fall as more requests are in flight, so by Little's law N
requests whose response is s times too late rule out all loads above N / s. And a saturated server
gives no more throughput for more load, only more latency: the search stops there.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from harness.planning.assessment import THROUGHPUT_TIE
from harness.types import LoadMode, ServingConfig, Trial, WireProtocol, Workload

GROWTH = 0.05
"""A doubled load that adds no more throughput than this has met a saturated server."""
CEILING_SLACK = 1.1
"""What noise and a changing shape of the distribution may add to a ceiling by Little's law."""
INVALID_TRIES = 3
"""So many trials that cannot be trusted, and none that can, end the search of a ladder."""
IN_FLIGHT_RUNGS = 2
RATE_RUNGS = 14
"""Rungs a doubling: rates are found to 5%, requests in flight to the nearest of 1 2 3 4 6 8 11."""


@dataclass(frozen=True)
class Ladder:
    """The loads that may be tried, ascending: requests in flight, or requests per second."""

    loads: tuple[float, ...]
    is_open: bool = False

    @property
    def middle(self) -> float:
        """Where to begin when nothing is known."""
        return self.loads[(len(self.loads) - 1) // 2]

    def at_most(self, load: float) -> float:
        """The highest rung that is no higher than a load; else the lowest."""
        return self.loads[max(0, bisect_right(self.loads, load) - 1)]

    def below(self, load: float) -> float:
        """The next rung down; zero under the lowest."""
        return max((rung for rung in self.loads if rung < load), default=0.0)


@dataclass(frozen=True)
class TriedLoad:
    """What one load told of a ladder."""

    load: float
    holds: bool
    inferences_per_s: float = 0.0
    ceiling: float = math.inf
    """Where it does not hold: heavier loads than this cannot hold either."""
    potential: float = math.inf
    """Where it does not hold: the most inferences/s that a lighter load can give."""
    valid: bool = True


def in_flight_ladder(lowest: int, highest: int) -> Ladder:
    """Geometric, rounded to whole requests; both ends are rungs."""
    rungs = {float(round(load)) for load in _geometric(lowest, highest, IN_FLIGHT_RUNGS)}
    return Ladder(tuple(sorted(rungs)))


def rate_ladder(lowest: float, highest: float) -> Ladder:
    """Geometric in steps of 5%, in three digits; both ends are rungs."""
    rounded = (float(f"{rate:.3g}") for rate in _geometric(lowest, highest, RATE_RUNGS))
    rungs = {lowest, highest, *(rate for rate in rounded if lowest < rate < highest)}
    return Ladder(tuple(sorted(rungs)), is_open=True)


def next_load(ladder: Ladder, probes: Sequence[TriedLoad]) -> float | None:
    """The load to try next, one that was not tried; None once the ladder has told all it can."""
    held = [probe for probe in probes if probe.holds]
    if not held:
        return _lighter(ladder, probes)
    top = max(held, key=lambda probe: probe.load)
    heavier = [probe for probe in probes if probe.load > top.load]
    above = _still_open(ladder, top, heavier)
    if not above or (_saturated(held, heavier) and not ladder.is_open):
        return None
    if heavier:
        return above[len(above) // 2]
    return next((rung for rung in above if rung >= 2 * top.load), above[-1])


def calmer_load(ladder: Ladder, probes: Sequence[TriedLoad]) -> float | None:
    """Half the lightest load that gives all the throughput, to see whether it gives it too.

    None where a lighter load is known, and in an open loop: there half the load is half of it.
    """
    held = [probe for probe in probes if probe.holds]
    if ladder.is_open or not held:
        return None
    most = max(probe.inferences_per_s for probe in held)
    equals = [p.load for p in held if p.inferences_per_s >= (1 - THROUGHPUT_TIE) * most]
    lightest = min(equals)
    if lightest <= ladder.loads[0] or any(probe.load < lightest for probe in probes):
        return None
    return ladder.at_most(lightest / 2)


def potential(probes: Sequence[TriedLoad]) -> float:
    """The most inferences/s that loads which were not tried can still give."""
    return min((probe.potential for probe in probes if not probe.holds), default=math.inf)


def _lighter(ladder: Ladder, probes: Sequence[TriedLoad]) -> float | None:
    """Half the lightest load or less: as much less as its ceiling says."""
    lightest = min(probes, key=lambda probe: probe.load)
    hopeless = len(probes) >= INVALID_TRIES and not any(probe.valid for probe in probes)
    if hopeless or lightest.load <= ladder.loads[0]:
        return None
    return ladder.at_most(min(lightest.ceiling, lightest.load / 2))


def _still_open(ladder: Ladder, top: TriedLoad, heavier: Sequence[TriedLoad]) -> list[float]:
    """Rungs above the heaviest load that held, as far as what did not hold leaves them open."""
    failed_at = min((probe.load for probe in heavier), default=math.inf)
    ceiling = CEILING_SLACK * min((probe.ceiling for probe in heavier), default=math.inf)
    return [rung for rung in ladder.loads if top.load < rung < failed_at and rung <= ceiling]


def _saturated(held: Sequence[TriedLoad], heavier: Sequence[TriedLoad]) -> bool:
    """Whether a load heavier than the heaviest that held promises no more throughput."""
    most = max(probe.inferences_per_s for probe in held)
    if heavier:
        return min(probe.potential for probe in heavier) <= (1 + GROWTH) * most
    ranked = sorted(held, key=lambda probe: probe.load)
    return len(ranked) > 1 and ranked[-1].inferences_per_s <= (1 + GROWTH) * max(
        probe.inferences_per_s for probe in ranked[:-1]
    )


def _geometric(lowest: float, highest: float, rungs_a_doubling: int) -> list[float]:
    steps = math.ceil(rungs_a_doubling * math.log2(highest / lowest))
    between = [lowest * 2 ** (step / rungs_a_doubling) for step in range(1, steps)]
    return [lowest, *between, highest]


def load_of(workload: Workload) -> float:
    """What a ladder goes up in: requests in flight, or requests per second (0: a trace's own)."""
    if workload.load_mode is LoadMode.OPEN:
        return workload.rate_per_s or 0.0
    return float(workload.concurrency)


@dataclass(frozen=True)
class SearchCell:
    """All of a configuration but its load."""

    variant: str
    serving: ServingConfig
    protocol: WireProtocol
    client_batch_size: int

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """The cell that a trial lies in."""
        workload = trial.workload
        return cls(trial.variant, trial.serving, workload.protocol, workload.client_batch_size)


@dataclass(frozen=True)
class SearchSpace:
    """All that may be combined."""

    variants: tuple[str, ...]
    """Variants in the order they are tried: those that are likely to be fast first."""
    serving: tuple[ServingConfig, ...]
    """Serving configurations, the simplest first."""
    workloads: tuple[Workload, ...]
    own: Mapping[str, tuple[ServingConfig, ...]] = field(default_factory=dict)
    """Serving configurations of the variants that have their own."""

    @property
    def most_instances(self) -> int:
        """The largest instance count of any serving configuration."""
        return max((serving.instance_count for serving in self.serving), default=1)

    def combinations(self) -> list[tuple[str, ServingConfig, Workload]]:
        """Every combination that Triton would take."""
        return [
            (variant, serving, workload)
            for variant in self.variants
            for serving in self._offered(variant)
            for workload in self.workloads
            if takes(serving, workload.client_batch_size)
        ]

    def over_batches(self, variant: str) -> list[SearchCell]:
        """A cell a client batch size, each as simple as it can be had; batches ascending."""
        homes = [
            (workload, self._taking(variant, size))
            for size in sorted({workload.client_batch_size for workload in self.workloads})
            for workload in [next(w for w in self.workloads if w.client_batch_size == size)]
        ]
        return [
            SearchCell(variant, serving[0], workload.protocol, workload.client_batch_size)
            for workload, serving in homes
            if serving
        ]

    def over_protocols(self, cell: SearchCell) -> list[SearchCell]:
        """The cell on each protocol that offers its batch size."""
        size = cell.client_batch_size
        offered = dict.fromkeys(w.protocol for w in self.workloads if w.client_batch_size == size)
        return [dataclasses.replace(cell, protocol=protocol) for protocol in offered]

    def over_serving(self, cell: SearchCell) -> list[SearchCell]:
        """The cell on each serving configuration that takes its batch size."""
        return [
            dataclasses.replace(cell, serving=serving)
            for serving in self._taking(cell.variant, cell.client_batch_size)
        ]

    def around(self, cell: SearchCell) -> list[SearchCell]:
        """The cell on its serving configuration with each other protocol, or each other batch."""
        offered = dict.fromkeys((w.protocol, w.client_batch_size) for w in self.workloads)
        return [
            dataclasses.replace(cell, protocol=protocol, client_batch_size=size)
            for protocol, size in offered
            if (protocol is cell.protocol) != (size == cell.client_batch_size)
            and takes(cell.serving, size)
        ]

    def ladder(self, cell: SearchCell) -> Ladder:
        """The loads between the lightest and the heaviest that the workloads name."""
        own = self._workloads(cell)
        loads = [load_of(workload) for workload in own]
        if own[0].load_mode is LoadMode.CLOSED:
            return in_flight_ladder(round(min(loads)), round(max(loads)))
        if min(loads) == 0:
            return Ladder((0.0,), is_open=True)  # a trace has one load, its own
        return rate_ladder(min(loads), max(loads))

    def workload(self, cell: SearchCell, load: float) -> Workload:
        """The cell's workload at a rung of its ladder."""
        template = self._workloads(cell)[0]
        if template.load_mode is LoadMode.CLOSED:
            return dataclasses.replace(template, concurrency=round(load))
        return dataclasses.replace(template, rate_per_s=load or None)

    def _workloads(self, cell: SearchCell) -> list[Workload]:
        wanted = (cell.protocol, cell.client_batch_size)
        return [w for w in self.workloads if (w.protocol, w.client_batch_size) == wanted]

    def _offered(self, variant: str) -> tuple[ServingConfig, ...]:
        return self.own.get(variant, self.serving)

    def _taking(self, variant: str, batch: int) -> list[ServingConfig]:
        return [serving for serving in self._offered(variant) if takes(serving, batch)]


def takes(serving: ServingConfig, batch: int) -> bool:
    """Whether a request of this many rows is taken; a server that tells no maximum may take any."""
    return batch <= serving.max_batch_size or not serving.max_batch_size


def resource_ratio(serving: ServingConfig, base: ServingConfig) -> float:
    """How many times the resources of another: instances, threads and batch, each at least once.

    A bound of the throughput to be gained by them: each adds its own share at best.
    """
    ratios = (
        serving.instance_count / max(1, base.instance_count),
        serving.intra_op_threads / max(1, base.intra_op_threads),
        serving.max_batch_size / max(1, base.max_batch_size),
    )
    product = 1.0
    for ratio in ratios:
        product *= max(1.0, ratio)
    return product
