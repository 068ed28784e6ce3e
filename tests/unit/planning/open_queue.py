"""A served system made up for the tests of search: an open queue with one kind of worker.

Poisson arrivals at servers with exponential service, M/M/1 with the capacity of all servers at
once: the response time is exponential with rate mu - lambda (Kleinrock, Queueing Systems I, 1975,
section 3.2), so its p95 is ln(20) / (mu - lambda), and the highest rate under a bound is known.
Noise is seeded by the trial's name.
"""

import math
import zlib

import numpy as np
from planning_samples import make_result

from harness.types import LoadMode, ServingConfig, WireProtocol, Workload

NOISE = 0.01
CAPACITY_PER_S = {"teacher": 300.0, "student": 1500.0}
"""Requests a second of one row on one instance over gRPC; a second instance adds half of it."""


def open_space(lowest=10.0, highest=5000.0):
    """Two variants, two serving configurations, two protocols, two client batches."""
    serving = [ServingConfig(16, instance_count=instances) for instances in (1, 2)]
    workloads = [
        Workload(
            protocol, batch, 512, 2.0, 0.5, seed=1, load_mode=LoadMode.OPEN, rate_per_s=rate,
            min_duration_s=0.5,
        )
        for protocol in (WireProtocol.GRPC, WireProtocol.HTTP)
        for batch in (1, 4)
        for rate in (lowest, highest)
    ]  # fmt: skip
    return ["student", "teacher"], serving, workloads


def capacity_per_s(trial):
    """Requests a second that the servers can answer."""
    rows = trial.workload.client_batch_size
    front = 0.9 if trial.workload.protocol is WireProtocol.HTTP else 1.0
    instances = 1 + 0.5 * (trial.serving.instance_count - 1)
    return CAPACITY_PER_S[trial.variant] * front * instances / (0.4 + 0.6 * rows)


def highest_rate_per_s(trial, p95_ms):
    """The truth: the rate at which p95 is at a bound."""
    return capacity_per_s(trial) - 1000 * math.log(20) / p95_ms


def measure_open(trial, **changes):
    """What a load test of this system would have found."""
    rate, capacity = trial.workload.rate_per_s, capacity_per_s(trial)
    rng = np.random.default_rng(zlib.crc32(trial.trial_id.encode()))
    luck = float(np.exp(NOISE * rng.standard_normal()))
    p95_ms = 1000 * math.log(20) / (capacity - rate) * luck if rate < capacity else 4000.0
    rows = trial.workload.client_batch_size
    return make_result(
        trial,
        rate=min(rate, 0.8 * capacity if rate > capacity else rate) * rows,
        p95_ms=p95_ms,
        width=0.04,
        requests=max(1, int(min(rate, capacity) * trial.workload.duration_s)),
        **changes,
    )
