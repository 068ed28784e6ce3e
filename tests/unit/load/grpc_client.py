"""What the tests of both gRPC transports ask a server, and how they read its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure, WireAnswer
from harness.load.transports.grpc.grpcio import GrpcioTransport
from harness.load.transports.grpc.transport import GrpcTransport

IDS = np.arange(8, dtype=np.int64).reshape(2, 4)
NOWHERE = Target("localhost", 8001)
BOTH = pytest.mark.parametrize("transport_class", [GrpcTransport, GrpcioTransport])


def send(
    target: Target, transport_class: type, *, timeout_s: float = 10, count: int = 1
) -> WireAnswer:
    """The last answer to this many equal requests."""
    transport = transport_class(target, timeout_s=timeout_s)
    try:
        request = transport.encode("m", {"input_ids": IDS})
        for _ in range(count):
            answer = transport.send(request)
        return answer
    finally:
        transport.close()


def failure_of(target: Target, transport_class: type, **options: Any) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        send(target, transport_class, **options)
    return caught.value


def tensors(answer: WireAnswer) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        output.name: (output.datatype, output.shape, answer.bytes_of(output))
        for output in answer.layout.outputs
    }
