"""The points that a study's sweep is made of."""

from __future__ import annotations

from harness.study import ServingSpace, Study, Traffic
from harness.types import ServingConfig, Workload


def serving_configs(space: ServingSpace) -> tuple[ServingConfig, ...]:
    """Every combination of the space, the simplest first."""
    return tuple(
        ServingConfig(
            max_batch_size=max_batch,
            queue_delay_us=delay,
            instance_count=instances,
            instance_kind=space.instance_kind,
            intra_op_threads=threads,
        )
        for max_batch in space.max_batch_sizes
        for threads in space.intra_op_threads
        for instances in space.instance_counts
        for delay in space.queue_delays_us
    )


def workloads(study: Study, traffic: Traffic) -> tuple[Workload, ...]:
    """Every combination of the traffic, batch and concurrency ascending within a protocol."""
    return tuple(
        Workload(
            protocol=protocol,
            client_batch_size=batch,
            concurrency=concurrency,
            duration_s=traffic.duration_s,
            warmup_s=traffic.warmup_s,
            seed=study.seed,
        )
        for protocol in traffic.protocols
        for batch in sorted(traffic.client_batch_sizes)
        for concurrency in sorted(traffic.concurrencies)
    )
