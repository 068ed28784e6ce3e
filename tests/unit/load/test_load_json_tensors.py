"""JSON bodies: as right as the binary ones, by the transport and by the client beside it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from kserve_server import kserve_server

from harness.errors import DataError
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.payloads import Payload, encode_payloads
from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.http.tensors import encode_json, read_json
from harness.load.transports.http.transport import HttpTransport
from harness.serving.external import http as remote_bodies
from harness.types import TensorSpec

TYPES = ["bool", "int8", "int32", "int64", "uint8", "uint64", "float32", "float64"]


@given(
    st.sampled_from(TYPES).flatmap(
        lambda kind: arrays.arrays(
            kind,
            arrays.array_shapes(max_dims=3, max_side=4),
            elements={"allow_nan": False, "allow_infinity": False} if "float" in kind else None,
        )
    )
)
def test_numbers_go_there_and_back_to_the_last_bit(array):
    body = json.loads(encode_json({"x": array}))
    (tensor,) = body["inputs"]
    assert len(tensor["data"]) == array.size
    answer = read_json(json.dumps({"outputs": [tensor]}).encode())
    (output,) = answer.layout.outputs
    assert (output.name, output.shape) == ("x", array.shape)
    assert answer.bytes_of(output) == np.ascontiguousarray(array).tobytes()
    split, plain = remote_bodies.encode({"x": array}, binary=False)
    assert split is None
    assert json.loads(plain)["inputs"] == body["inputs"]
    theirs = remote_bodies.decode(json.dumps({"outputs": [tensor]}).encode(), None)
    np.testing.assert_array_equal(theirs["x"], array)


def test_nested_data_and_several_outputs_lie_one_after_another():
    outputs = [
        {"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]},
        {"name": "b", "datatype": "BYTES", "shape": [2], "data": ["x", "yz"]},
        {"name": "c", "datatype": "INT64", "shape": [1], "data": [2**40]},
    ]
    answer = read_json(json.dumps({"outputs": outputs}).encode())
    a, b, c = map(answer.bytes_of, answer.layout.outputs)
    assert a == np.array([1, 2, 3, 4], "<f4").tobytes()
    assert b == b"\1\0\0\0x\2\0\0\0yz"
    assert c == np.array([2**40], "<i8").tobytes()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[1]", b'{"outputs": [{"name": "a"}]}', b"\xff",
        b'{"outputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": ["x"]}]}',
        b'{"outputs": [{"name": "a", "datatype": "FP99", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "a", "datatype": "FP32", "shape": ["x"], "data": [1]}]}',
    ],
)  # fmt: skip
def test_what_is_no_answer_is_malformed(body):
    with pytest.raises(RequestFailure, match="malformed"):
        read_json(body)


@pytest.mark.parametrize(
    ("array", "said"),
    [(np.ones(2, np.float16), "half precision"), (np.array([np.nan], np.float32), "NaN")],
)
def test_what_json_does_not_have_is_said(array, said):
    with pytest.raises(DataError, match=said):
        encode_json({"x": array})


def exchange(binary, spec):
    """One request to a server that takes only this kind of body, its answer checked."""
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    with kserve_server(binary=binary) as port:
        transport = HttpTransport(Target("127.0.0.1", port, binary=binary), timeout_s=5)
        (request,) = encode_payloads([Payload({"numbers": numbers})], transport, "doubled")
        try:
            for _ in range(3):
                answer = transport.send(request.body)
                AnswerCheck([spec]).check(answer, request)
        finally:
            transport.close()
    (output,) = answer.layout.outputs
    return np.frombuffer(answer.bytes_of(output), "<f4")


@pytest.mark.parametrize("binary", [True, False])
def test_both_bodies_carry_the_same_numbers_and_are_checked_alike(binary):
    twice = exchange(binary, TensorSpec("twice", "FP32", (-1,)))
    np.testing.assert_array_equal(twice, 2 * np.arange(6))
    with pytest.raises(RequestFailure, match="wrong_datatype"):
        exchange(binary, TensorSpec("twice", "INT64", (-1,)))
    with pytest.raises(RequestFailure, match="missing_output"):
        exchange(binary, TensorSpec("thrice", "FP32", (-1,)))


def test_a_server_that_takes_no_binary_refuses_it():
    with kserve_server(binary=False) as port:
        transport = HttpTransport(Target("127.0.0.1", port), timeout_s=5)
        request = transport.encode("doubled", {"numbers": np.ones((1, 2), np.float32)})
        with pytest.raises(RequestFailure, match="http_422"):
            transport.send(request)
        transport.close()
