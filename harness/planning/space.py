"""The space a search moves in: variants, serving configurations, workloads, and cells of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from harness.planning.bracketing import Ladder, in_flight_ladder, rate_ladder
from harness.types import LoadMode, ServingConfig, Trial, WireProtocol, Workload


def load_of(workload: Workload) -> float:
    """What a ladder goes up in: requests in flight, or requests a second (0: a trace's own)."""
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
    """Those that are likely to be fast first."""
    serving: tuple[ServingConfig, ...]
    """The simplest first."""
    workloads: tuple[Workload, ...]
    own: Mapping[str, tuple[ServingConfig, ...]] = field(default_factory=dict)
    """Of the variants that have configurations of their own."""

    @property
    def most_instances(self) -> int:
        """Of any serving configuration."""
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
    """Whether a request of so many rows is taken; a server that tells no maximum may take any."""
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
