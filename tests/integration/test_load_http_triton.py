"""The HTTP transport against the real server, answer for answer with tritonclient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as tritonclient
from numpy.typing import NDArray

from harness.load.transports.address import parse_target
from harness.load.transports.contract import RequestFailure, WireAnswer
from harness.load.transports.http import transport as http
from harness.load.transports.http.transport import HttpTransport
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def address(embedded_triton: EmbeddedTriton) -> str:
    with TritonClient(embedded_triton.endpoint) as client:
        client.load("tiny")
    return embedded_triton.endpoint.http


@pytest.fixture
def transport(address: str) -> Iterator[HttpTransport]:
    made = HttpTransport(parse_target(address), timeout_s=30)
    yield made
    made.close()


def inputs_of(rows: int, length: int) -> dict[str, NDArray[np.int64]]:
    ids = np.random.default_rng(rows * length).integers(0, 1000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones((rows, length), np.int64)}


def theirs(address: str, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    tensors = []
    for name, array in inputs.items():
        tensors.append(tritonclient.InferInput(name, list(array.shape), "INT64"))
        tensors[-1].set_data_from_numpy(array)
    bare_address = address.partition("://")[2] or address
    client = tritonclient.InferenceServerClient(bare_address, network_timeout=30)
    try:
        logits: NDArray[np.float32] = client.infer("tiny", tensors).as_numpy("logits")
    finally:
        client.close()
    return logits


def logits_of(answer: WireAnswer) -> NDArray[np.float32]:
    (output,) = answer.layout.outputs
    assert (output.name, output.datatype) == ("logits", "FP32")
    return np.frombuffer(answer.bytes_of(output), "<f4").reshape(output.shape)


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("length", [1, 17, 50_000])
def test_answers_are_those_that_tritonclient_gets(
    transport: HttpTransport, address: str, rows: int, length: int
) -> None:
    inputs = inputs_of(rows, length)
    expected = theirs(address, inputs)
    request = transport.encode("tiny", inputs)
    answers = [transport.send(request) for _ in range(3)]
    for answer in answers:
        np.testing.assert_array_equal(logits_of(answer), expected)
    assert len({id(answer.layout) for answer in answers}) == 1


def test_answers_that_repeat_the_requests_id_are_recognised(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = transport.encode("tiny", inputs_of(2, 4))
    expected = logits_of(transport.send(request))
    monkeypatch.setattr(http, "read_message", lambda *_: pytest.fail("read again"))
    for _ in range(5):
        np.testing.assert_array_equal(logits_of(transport.send(request)), expected)


def test_a_refused_request_leaves_the_connection_to_the_next(transport: HttpTransport) -> None:
    with pytest.raises(RequestFailure, match=r"http_400: .*batch-size must be <="):
        transport.send(transport.encode("tiny", inputs_of(64, 4)))
    with pytest.raises(RequestFailure, match=r"http_404: .*nobody"):
        transport.send(transport.encode("nobody", inputs_of(1, 4)))
    assert logits_of(transport.send(transport.encode("tiny", inputs_of(2, 4)))).shape == (2, 3)
