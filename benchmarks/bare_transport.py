"""Our transports without Locust: so many greenlets that send, and nothing else.

A separate script, because gevent has to patch the interpreter before anything is imported. It
drives load for this many seconds and prints its percentiles as one JSON object.

    python benchmarks/bare_transport.py grpc 127.0.0.1:8001 cached payloads.npz 16 5
"""

# ruff: noqa: E402  (the patch comes before whatever imports a socket)

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gevent
import numpy as np

from harness import hdr
from harness.load.requests.payloads import (
    EncodedRequest,
    draw_payloads,
    encode_payloads,
    read_payloads,
)
from harness.load.transports.address import parse_target
from harness.load.transports.contract import Transport
from harness.load.transports.opening import transport_opener
from harness.types import WireProtocol
from harness_locust.socket_waiter import GeventWaiter

_TIMEOUT_S = 30.0
_PERCENTILES = (50, 95, 99)


def main() -> None:
    """Drive and report."""
    protocol, address, model, payloads_file, in_flight, seconds = sys.argv[1:]
    target = parse_target(address)
    opener = transport_opener(
        WireProtocol(protocol), target, timeout_s=_TIMEOUT_S, waiter=GeventWaiter
    )
    transports = [opener() for _ in range(int(in_flight))]
    payloads = draw_payloads(read_payloads(Path(payloads_file)), batch_size=1, seed=0)
    requests = encode_payloads(payloads, transports[0], model)
    end_ns = time.monotonic_ns() + int(float(seconds) * 1e9)
    jobs = [gevent.spawn(_send_until, end_ns, each, requests) for each in transports]
    gevent.joinall(jobs, raise_error=True)
    spans_ns = np.concatenate([np.array(job.value, dtype=np.int64) for job in jobs])
    histogram = hdr.of_nanoseconds(spans_ns)
    print(json.dumps({f"p{q}": hdr.value_at(histogram, q / 100) for q in _PERCENTILES}))


def _send_until(end_ns: int, transport: Transport, requests: Sequence[EncodedRequest]) -> list[int]:
    """Latencies in nanoseconds; a failed request ends the run."""
    spans_ns = []
    turn = 0
    last_ns = time.monotonic_ns()
    while last_ns < end_ns:
        transport.send(requests[turn % len(requests)].body)
        spans_ns.append(transport.received_ns - last_ns)
        last_ns = time.monotonic_ns()
        turn += 1
    transport.close()
    return spans_ns


if __name__ == "__main__":
    main()
