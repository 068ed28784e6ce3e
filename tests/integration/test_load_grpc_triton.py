"""Our gRPC on the real Triton, answer for answer beside grpcio's and NVIDIA's own client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as tritonclient
from endpoint_models import VOCABULARY, language_model
from numpy.typing import NDArray

from harness.load.transports.address import parse_target
from harness.load.transports.contract import RequestFailure, Transport, WireAnswer
from harness.load.transports.grpc.grpcio import GrpcioTransport
from harness.load.transports.grpc.messages import AnswerForms
from harness.load.transports.grpc.transport import GrpcTransport
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient

pytestmark = pytest.mark.triton

ELEMENTS = {"FP32": np.float32, "INT64": np.int64}
_REQUEST_ID = re.compile(r"\[request id: [0-9a-f]{24}\]")
SHAPES = [(1, 1), (1, 7), (2, 8), (3, 333), (8, 64), (8, 5000), (1, 400_000)]
"""The last: 6.4 MB asked, 4.8 MB answered by the language model."""


def inputs_of(shape: tuple[int, int], seed: int = 0) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(0, VOCABULARY, shape, dtype=np.int64),
        "attention_mask": np.ones(shape, np.int64),
    }


def arrays(answer: WireAnswer) -> dict[str, NDArray[np.generic]]:
    return {
        output.name: np.frombuffer(answer.bytes_of(output), ELEMENTS[output.datatype]).reshape(
            output.shape
        )
        for output in answer.layout.outputs
    }


@pytest.fixture(scope="module")
def address(embedded_triton: EmbeddedTriton, tiny_repository: Path) -> str:
    if not (tiny_repository / "speaker").exists():
        language_model(tiny_repository)
    with TritonClient(embedded_triton.endpoint) as client:
        client.load("tiny")
        client.load("speaker")
    return embedded_triton.endpoint.grpc


@pytest.fixture
def ours(address: str) -> Iterator[Transport]:
    transport = GrpcTransport(parse_target(address), timeout_s=30)
    yield transport
    transport.close()


@pytest.fixture
def reference(address: str) -> Iterator[Transport]:
    transport = GrpcioTransport(parse_target(address), timeout_s=30)
    yield transport
    transport.close()


def tritonclients_answer(
    address: str, model: str, inputs: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.generic]]:
    with tritonclient.InferenceServerClient(address) as client:
        tensors = []
        for name, array in inputs.items():
            tensors.append(tritonclient.InferInput(name, list(array.shape), "INT64"))
            tensors[-1].set_data_from_numpy(array)
        result = client.infer(model, tensors)
    names = [output.name for output in result.get_response().outputs]
    return {name: result.as_numpy(name) for name in names}


@pytest.mark.parametrize("model", ["tiny", "speaker"])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_three_get_the_same(
    address: str, ours: Transport, reference: Transport, model: str, shape: tuple[int, int]
) -> None:
    inputs = inputs_of(shape)
    expected = tritonclients_answer(address, model, inputs)
    for transport in (ours, reference):
        request = transport.encode(model, inputs)
        answers = [transport.send(request) for _ in range(3)]
        for answer in answers:
            got = arrays(answer)
            assert list(got) == list(expected)
            for name, array in expected.items():
                np.testing.assert_array_equal(got[name], array)
        # The first is read frame by frame, what looks like it is recognised whole: a form each.
        assert len({id(answer.layout) for answer in answers}) <= 2


def test_shapes_mixed_on_one_connection(address: str, ours: Transport) -> None:
    cases = []
    for index, shape in enumerate(SHAPES[:-1]):
        for model in ("tiny", "speaker"):
            inputs = inputs_of(shape, seed=index)
            cases.append((ours.encode(model, inputs), tritonclients_answer(address, model, inputs)))
    order = np.random.default_rng(1).integers(0, len(cases), 300)
    for index in order:
        request, expected = cases[index]
        got = arrays(ours.send(request))
        assert all(np.array_equal(got[name], array) for name, array in expected.items())


@pytest.mark.parametrize(
    ("model", "shape", "kind"),
    [("nobody", (1, 8), "grpc_NOT_FOUND"), ("tiny", (64, 8), "grpc_INVALID_ARGUMENT")],
)
def test_refusals_are_the_same(
    ours: Transport, reference: Transport, model: str, shape: tuple[int, int], kind: str
) -> None:
    words = []
    for transport in (ours, reference):
        request = transport.encode(model, inputs_of(shape))
        for _ in range(2):
            with pytest.raises(RequestFailure) as caught:
                transport.send(request)
            assert caught.value.kind == kind
        said = str(caught.value).partition(kind)[2].lstrip(": ")
        words.append(_REQUEST_ID.sub("[request id: X]", said))
        assert arrays(transport.send(transport.encode("tiny", inputs_of((1, 8)))))
    assert words[1].endswith(words[0])


def test_answers_that_repeat_the_requests_id_are_recognised(
    ours: Transport, reference: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for transport in (ours, reference):
        request = transport.encode("tiny", inputs_of((2, 8)))
        first = arrays(transport.send(request))
        with monkeypatch.context() as patched:
            patched.setattr(AnswerForms, "learn", lambda *_: pytest.fail("read again"))
            for _ in range(5):
                answer = arrays(transport.send(request))
                assert all(np.array_equal(answer[name], array) for name, array in first.items())


def test_a_connection_serves_thousands_of_requests(ours: Transport) -> None:
    """Flow control and stream numbers go on past the first windows."""
    inputs = inputs_of((4, 64))  # 4 kB each way of 65,535
    request = ours.encode("speaker", inputs)
    first = arrays(ours.send(request))
    connection = ours._connection  # type: ignore[attr-defined]
    for _ in range(2000):
        answer = arrays(ours.send(request))
        assert all(np.array_equal(answer[name], array) for name, array in first.items())
    assert ours._connection is connection  # type: ignore[attr-defined]
