"""A variant's cold start, measured on purpose and kept out of every trial.

What a rollout or an autoscaler waits for: the loading, the first request, and the time until
latency is what it will stay.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from harness.analysis.steady_state import steady_after
from harness.errors import ServerError
from harness.load.alone import drive_alone
from harness.load.traffic import make_traffic
from harness.load.transports.address import parse_target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.opening import transport_opener
from harness.serving.endpoint import TritonClient
from harness.serving.repository import config_override
from harness.types import ColdStart, ModelVariant, ServingConfig, WireProtocol, Workload

MOST_REQUESTS = 300
LONGEST_S = 2.0
TIMEOUT_S = 60.0


def measure_cold_start(
    client: TritonClient,
    variant: ModelVariant,
    serving: ServingConfig,
    payloads: Path,
    *,
    seed: int,
) -> ColdStart:
    """Load a variant that is not loaded, and send it single requests until it is steady.

    Raises:
        ServerError: the variant does not load, or does not answer.
    """
    target = parse_target(client.endpoint.http)
    opener = transport_opener(WireProtocol.HTTP, target, timeout_s=TIMEOUT_S)
    workload = Workload(WireProtocol.HTTP, 1, 1, LONGEST_S, 0.0, seed)
    traffic = make_traffic(variant.name, opener, workload, payloads, outputs=variant.outputs)
    asked_ns = time.monotonic_ns()
    client.load(variant.name, config_override(variant, serving))
    ready_ns = time.monotonic_ns()
    transport = opener()
    try:
        records = drive_alone(
            transport, traffic.requests, traffic.check, most=MOST_REQUESTS, longest_s=LONGEST_S
        )
    except RequestFailure as failure:
        raise ServerError(f"{variant.name} failed on its cold start: {failure}") from failure
    finally:
        transport.close()
    latencies_ms = np.array([one.completed_ns - one.sent_ns for one in records]) / 1e6
    steady = steady_after(latencies_ms.tolist())
    return ColdStart(
        variant=variant.name,
        sha256=variant.sha256,
        serving=serving,
        load_s=(ready_ns - asked_ns) / 1e9,
        first_request_ms=float(latencies_ms[0]),
        requests=len(records),
        steady_after_requests=steady,
        steady_after_s=None if steady is None else (records[steady].sent_ns - ready_ns) / 1e9,
        steady_ms=None if steady is None else float(latencies_ms[steady:].mean()),
    )
