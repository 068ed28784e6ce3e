"""What the tests of gRPC's HTTP/2 ask a scripted server, and how they hear it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from http2_server import ANSWER_HEADERS, Peer, envelope, infer_response

from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.headers import encode_headers
from harness.load.transports.grpc.transport import GrpcTransport

IDS = np.arange(8, dtype=np.int64).reshape(1, 8)
LARGE = np.zeros((1, 50_000), np.int64)  # 400,000 bytes: six first windows
MESSAGE = envelope(infer_response())

PLAIN_HEADERS = encode_headers(ANSWER_HEADERS)


def transport_to(target: Target, timeout_s: float = 10) -> GrpcTransport:
    return GrpcTransport(target, timeout_s=timeout_s)


def send_all(transport: GrpcTransport, count: int = 1, ids: np.ndarray = IDS) -> None:
    """Send requests that must be answered, and close."""
    request = transport.encode("m", {"input_ids": ids})
    for _ in range(count):
        answer = transport.send(request)
        (output,) = answer.layout.outputs
        assert (output.name, output.shape) == ("logits", (1, 2))
        assert answer.bytes_of(output) == bytes(8)
    transport.close()


def failure_of(transport: GrpcTransport, ids: np.ndarray = IDS) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        transport.send(transport.encode("m", {"input_ids": ids}))
    return caught.value


def greeted(script: Callable[[Peer], object]) -> Callable[[Peer], None]:
    def run(peer: Peer) -> None:
        peer.greet()
        script(peer)

    return run
