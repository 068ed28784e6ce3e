"""A served system made up for the tests of search: a closed queue with dynamic batching.

By the operational laws of closed queueing networks (Lazowska et al., Quantitative System
Performance, chapter 5): N requests in flight, a cycle of client and server time, instances that
each run up to a batch at once; throughput is the lesser of N over the empty cycle and the
server's capacity, latency is N over throughput. Noise is seeded by the trial's name.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from planning_samples import make_result

from harness.types import ServingConfig, WireProtocol, Workload
from harness.types.latency import TTFT

CORES = 2
NOISE = 0.015


@dataclass(frozen=True)
class ServedModel:
    """Compute time of a batch: fixed_ms + sample_ms a sample."""

    fixed_ms: float
    sample_ms: float


DEMO_MODELS = {
    "teacher-fp32": ServedModel(0.3, 1.1),
    "teacher-int8": ServedModel(0.3, 0.75),
    "student-fp32": ServedModel(0.2, 0.11),
    "student-int8": ServedModel(0.2, 0.075),
}


def demo_space():
    """The reference study's space: variants, serving configurations, workloads.

    The likely fastest variant comes first, as the flow orders them.
    """
    serving = [
        ServingConfig(16, queue_delay_us=delay, instance_count=instances)
        for instances in (1, 2)
        for delay in (0, 2000)
    ]
    workloads = [
        Workload(
            protocol, batch, concurrency, duration_s=2.0, warmup_s=0.5, seed=20, min_duration_s=0.5
        )
        for protocol in (WireProtocol.HTTP, WireProtocol.GRPC)
        for batch in (1, 4, 8, 16)
        for concurrency in (1, 4, 16, 64)
    ]
    return list(DEMO_MODELS)[::-1], serving, workloads


def measure(trial, models=DEMO_MODELS, **changes):
    """What a load test of this system would have found."""
    rate_per_s, latency_ms = operate(models[trial.variant], trial.serving, trial.workload)
    rng = np.random.default_rng(zlib.crc32(trial.trial_id.encode()))
    luck = np.exp(NOISE * rng.standard_normal(2))
    return make_result(
        trial,
        rate=rate_per_s * luck[0],
        p95_ms=1.3 * latency_ms * luck[1],
        width=0.04,
        requests=max(1, int(rate_per_s * trial.workload.duration_s)),
        **changes,
    )


def operate(model, serving, workload):
    """Inferences per second and mean latency in ms."""
    batch, in_flight = workload.client_batch_size, workload.concurrency
    front_ms = (0.35 if workload.protocol is WireProtocol.HTTP else 0.25) + 0.004 * batch
    instances = min(serving.instance_count, CORES)
    slowdown = 1.15 if serving.instance_count > 1 else 1.0
    joined = max(1, min(serving.max_batch_size // batch, in_flight // instances))
    compute_ms = slowdown * (model.fixed_ms + model.sample_ms * batch * joined)
    delay_ms = serving.queue_delay_us / 1000 if joined * batch < serving.max_batch_size else 0.0
    per_ms = min(
        in_flight / (front_ms + delay_ms + compute_ms),
        instances * joined / (compute_ms + delay_ms),
        1 / (front_ms / 2),
    )
    return 1000 * per_ms * batch, in_flight / per_ms


@dataclass(frozen=True)
class Slots:
    """A server of streams: so many answers at a time, the rest wait for their first token."""

    number: int
    answer_s: float

    def per_s(self, in_flight):
        """Answers per second."""
        return min(in_flight, self.number) / self.answer_s

    def ttft_ms(self, in_flight):
        """A few milliseconds up to the number of slots; beyond, what is waited for one."""
        return 5.0 + 1000 * (in_flight / self.per_s(in_flight) - self.answer_s)


def measure_slots(trial, slots):
    """What a load test of such servers would have found; `slots` are those of each variant."""
    own, in_flight = slots[trial.variant], trial.workload.concurrency
    found = make_result(trial, p95_ms=1000 * in_flight / own.per_s(in_flight),
                        rate=own.per_s(in_flight))  # fmt: skip
    first = make_result(trial, p95_ms=own.ttft_ms(in_flight)).latency
    return replace(found, latencies={**found.latencies, TTFT: first})
