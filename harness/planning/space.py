"""The space a search moves in: variants, serving configurations, workloads, and steps in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.types import ServingConfig, WireProtocol, Workload


@dataclass(frozen=True)
class SearchSpace:
    """All that may be combined."""

    variants: tuple[str, ...]
    serving: tuple[ServingConfig, ...]
    """The simplest first."""
    workloads: tuple[Workload, ...]

    @property
    def protocols(self) -> list[WireProtocol]:
        """In the order given."""
        return list(dict.fromkeys(workload.protocol for workload in self.workloads))

    @property
    def batches(self) -> list[int]:
        """Client batch sizes, ascending."""
        return sorted({workload.client_batch_size for workload in self.workloads})

    @property
    def concurrencies(self) -> list[int]:
        """Requests in flight, ascending."""
        return sorted({workload.concurrency for workload in self.workloads})

    def combinations(self) -> list[tuple[str, ServingConfig, Workload]]:
        """Every combination that Triton would take."""
        return [
            (variant, serving, workload)
            for variant in self.variants
            for serving in self.serving
            for workload in self.workloads
            if workload.client_batch_size <= serving.max_batch_size
        ]

    def fitting(self, workload: Workload) -> Sequence[ServingConfig]:
        """Configurations that take the client's batch; the simplest first."""
        return [each for each in self.serving if workload.client_batch_size <= each.max_batch_size]

    def loads(self, batch: int) -> list[Workload]:
        """Workloads of one client batch size on the first protocol, lightest first."""
        loads = [
            workload
            for workload in self.workloads
            if workload.client_batch_size == batch and workload.protocol is self.protocols[0]
        ]
        return sorted(loads, key=lambda workload: workload.concurrency)

    def over_protocols(self, workload: Workload) -> list[Workload]:
        """The workload on every protocol that offers it."""
        return self._known(
            dataclasses.replace(workload, protocol=protocol) for protocol in self.protocols
        )

    def neighbours(self, workload: Workload) -> list[Workload]:
        """The workload with one step of concurrency more, and one less."""
        steps = self.concurrencies
        place = steps.index(workload.concurrency)
        near = [*steps[place + 1 : place + 2], *steps[max(0, place - 1) : place]]
        return self._known(dataclasses.replace(workload, concurrency=each) for each in near)

    def _known(self, wanted: Iterable[Workload]) -> list[Workload]:
        offered = set(self.workloads)
        return [workload for workload in wanted if workload in offered]
