"""What the tests of the HTTP transport ask a scripted server, and how they read its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from http1_server import ScriptedServer, kserve_answer

from harness.load.transports.address import parse_target
from harness.load.transports.contract import RequestFailure, WireAnswer
from harness.load.transports.http.transport import HttpTransport

IDS = np.arange(8, dtype=np.int64).reshape(2, 4)
ONE, TWO, WIDE = kserve_answer(1.5), kserve_answer(2.5), kserve_answer(1.0, 2.0)


@contextmanager
def talking_to(server: ScriptedServer, *, timeout_s: float = 5.0) -> Iterator[HttpTransport]:
    with server:
        transport = HttpTransport(parse_target(server.address), timeout_s=timeout_s)
        try:
            yield transport
        finally:
            transport.close()


def ask(transport: HttpTransport) -> WireAnswer:
    return transport.send(transport.encode("m", {"ids": IDS}))


def values(answer: WireAnswer) -> list[float]:
    (output,) = answer.layout.outputs
    assert (output.name, output.datatype) == ("logits", "FP32")
    numbers: list[float] = np.frombuffer(answer.bytes_of(output), "<f4").tolist()
    assert output.shape == (1, len(numbers))
    return numbers


def kind_of_failure(transport: HttpTransport) -> str:
    with pytest.raises(RequestFailure) as caught:
        ask(transport)
    return caught.value.kind
