"""A variant's cold start, measured on purpose and kept out of every trial.

What a rollout or an autoscaler waits for: the loading, the first request, and the time until
latency is what it will stay.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.analysis.steady_state import steady_after
from harness.errors import ServerError
from harness.flow.serving import ModelControl
from harness.load.engine.closed_loop import drive_alone
from harness.load.requests.traffic import make_traffic
from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.opening import transport_opener
from harness.types import ColdStart, ModelVariant, ServingConfig, WireProtocol, Workload

MOST_REQUESTS = 300
LONGEST_S = 2.0
TIMEOUT_S = 60.0


def measure_cold_start(
    control: ModelControl,
    targets: Mapping[WireProtocol, Target],
    variant: ModelVariant,
    serving: ServingConfig,
    payloads: Path,
    *,
    seed: int,
) -> ColdStart:
    """Load a variant that is not loaded, and send it single requests until it is steady.

    Args:
        control: loads it.
        targets: the server's; HTTP is used where there is a choice.
        variant: not loaded.
        serving: to load it under.
        payloads: what is sent.
        seed: draws the requests.

    Raises:
        ServerError: the variant does not load, or does not answer.
    """
    protocol = next(one for one in WireProtocol if one in targets)
    opener = transport_opener(protocol, targets[protocol], timeout_s=TIMEOUT_S)
    workload = Workload(protocol, 1, 1, LONGEST_S, 0.0, seed)
    traffic = make_traffic(variant.served_name, opener, workload, payloads, outputs=variant.outputs)
    asked_ns = time.monotonic_ns()
    control.load(variant, serving)
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
