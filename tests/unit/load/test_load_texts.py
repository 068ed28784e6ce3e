"""Texts as payloads: BYTES tensors on disk, over HTTP and over gRPC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.fit import check_payloads_fit
from harness.load.requests.payloads import (
    EncodedRequest,
    draw_payloads,
    read_payloads,
    write_payloads,
)
from harness.load.transports.contract import OutputTensor, RequestFailure, WireAnswer, layout_of
from harness.load.transports.grpc.messages import encode_infer_request
from harness.load.transports.http.tensors import encode_body, encode_json
from harness.serving.endpoint import native
from harness.serving.external import http as remote_bodies
from harness.types import TensorSpec

elements = st.lists(
    st.one_of(st.text(st.characters(codec="utf-8"), max_size=20), st.binary(max_size=20)),
    min_size=1,
    max_size=6,
)
ODD = [b"", b"\0", b"a\0\0", b"\0a", "naïve 東京\0".encode(), b"\xff\xfe"]


def objects(rows: Sequence[object]) -> NDArray[np.object_]:
    array = np.empty((len(rows), 1), object)
    array[:, 0] = rows
    return array


@given(elements)
def test_a_request_of_texts_is_what_tritonclient_would_send(rows: list[str | bytes]) -> None:
    check_against_tritonclient(objects(rows), "BYTES")


def check_against_tritonclient(array: NDArray[Any], datatype: str) -> None:
    theirs = over_http.InferInput("x", list(array.shape), datatype)
    theirs.set_data_from_numpy(native(array))
    expected, split = over_http.InferenceServerClient.generate_request_body([theirs])
    for at, body in (encode_body({"x": array}), remote_bodies.encode({"x": array}, binary=True)):
        assert at is not None
        assert body[at:] == expected[split:]
        (tensor,) = json.loads(body[:at])["inputs"]
        assert tensor == json.loads(expected[:split])["inputs"][0]

    other = over_grpc.InferInput("x", list(array.shape), datatype)
    other.set_data_from_numpy(native(array))
    message = over_grpc.service_pb2.ModelInferRequest.FromString(
        encode_infer_request("m", {"x": array})
    )
    assert message.inputs[0] == other._get_tensor()
    assert message.raw_input_contents[0] == other._get_content()


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        ("?", "BOOL"), ("i1", "INT8"), ("i2", "INT16"), ("i4", "INT32"), ("i8", "INT64"),
        ("u1", "UINT8"), ("u2", "UINT16"), ("u4", "UINT32"), ("u8", "UINT64"),
        ("f2", "FP16"), ("f4", "FP32"), ("f8", "FP64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_are_what_tritonclient_would_send(kind: str, datatype: str, order: str) -> None:
    numbers = np.arange(24).reshape(4, 6).astype(np.dtype(kind).newbyteorder(order))
    for array in (numbers, numbers[:, ::2], numbers.T, np.asfortranarray(numbers)):
        check_against_tritonclient(array, datatype)
        assert encode_body({"x": array}).data.endswith(
            array.astype(np.dtype(kind).newbyteorder("<")).tobytes()
        )
    if datatype != "FP16":
        for body in (
            encode_json({"x": numbers}),
            remote_bodies.encode({"x": numbers}, binary=False)[1],
        ):
            (tensor,) = json.loads(body)["inputs"]
            assert (tensor["datatype"], tensor["data"]) == (datatype, numbers.ravel().tolist())


def test_bfloat16_is_what_tritonclient_would_send(tmp_path: Path) -> None:
    array = np.array([[1.5, -2.0], [3.14159, 1e30]], ml_dtypes.bfloat16)
    check_against_tritonclient(array, "BF16")
    assert encode_body({"x": array}).data.endswith(b"\xc0\x3f\x00\xc0\x49\x40\x4a\x71")
    write_payloads(tmp_path / "p.npz", [{"x": array}])
    (group,) = read_payloads(tmp_path / "p.npz")
    assert group["x"].dtype == ml_dtypes.bfloat16
    assert group["x"].tolist() == array.tolist()
    with pytest.raises(DataError, match=r"is of bfloat16 \(BF16\)"):
        encode_json({"x": array})


def test_every_byte_of_a_text_comes_back_from_a_payload_file(tmp_path: Path) -> None:
    write_payloads(tmp_path / "ours.npz", [{"TEXT": objects(ODD)}])
    np.savez(tmp_path / "theirs.npz", TEXT=objects(ODD))
    for name in ("ours.npz", "theirs.npz"):
        (group,) = read_payloads(tmp_path / name)
        assert group["TEXT"].tolist() == [[one] for one in ODD]
        raw = encode_body(group)
        assert raw.data[raw.header_length :] == b"".join(
            len(one).to_bytes(4, "little") + one for one in ODD
        )


@pytest.mark.parametrize("texts", [["", "naïve", "東京"], [b"", b"x", b"yz"]])
def test_texts_of_numpys_own_types_are_taken(tmp_path: Path, texts: list[Any]) -> None:
    np.savez(tmp_path / "p.npz", TEXT=np.array(texts)[:, None], ids=np.arange(3)[:, None])
    (group,) = read_payloads(tmp_path / "p.npz")
    encoded = [one.encode() if isinstance(one, str) else one for one in texts]
    assert group["TEXT"].tolist() == [[one] for one in encoded]
    (tensor, _) = json.loads(encode_json(group))["inputs"]
    assert tensor == {
        "name": "TEXT",
        "shape": [3, 1],
        "datatype": "BYTES",
        "data": [one.decode() for one in encoded],
    }
    body = remote_bodies.encode(group, binary=False)[1]
    assert json.loads(body)["inputs"][0] == tensor


class _Call:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_a_pickle_that_runs_code_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "p.npz", TEXT=objects([_Call()]))
    with pytest.raises(DataError, match="TEXT is a pickle that is not read, as it may run code"):
        read_payloads(tmp_path / "p.npz")
    assert not capsys.readouterr().out


def test_bytes_that_are_no_text_are_refused_where_bodies_are_json() -> None:
    with pytest.raises(DataError, match="input TEXT holds bytes that are no UTF-8 text"):
        encode_json({"TEXT": objects([b"\xff"])})


def test_texts_come_back_from_a_payload_file_and_are_drawn(tmp_path: Path) -> None:
    array = np.array([["naïve 東京".encode()], [b"a, longer than the other"]])
    write_payloads(tmp_path / "p.npz", [{"TEXT": array}])

    (group,) = read_payloads(tmp_path / "p.npz")

    assert group["TEXT"].tolist() == array.tolist()
    assert draw_payloads([group], batch_size=2, seed=1)[0].batch_size == 2
    specs = (TensorSpec("TEXT", "BYTES", (1,)),)
    check_payloads_fit([group], specs, 4, batch_size=2)
    with pytest.raises(DataError, match="hold BYTES, not INT64"):
        check_payloads_fit([group], (TensorSpec("TEXT", "INT64", (1,)),), 4, batch_size=2)


def test_objects_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="TEXT holds a float among its objects"):
        write_payloads(tmp_path / "p.npz", [{"TEXT": objects([b"a", 1.5])}])
    with pytest.raises(DataError, match="when holds datetime64"):
        write_payloads(tmp_path / "p.npz", [{"when": np.array(["2026-01-01"], "M8[s]")}])


def test_an_answer_in_bytes_must_hold_its_elements_lengths() -> None:
    check = AnswerCheck((TensorSpec("LABEL", "BYTES", (1,)),))
    data = b"\4\0\0\0good\3\0\0\0bad"
    layout = layout_of((OutputTensor("LABEL", "BYTES", (2, 1), 0, len(data)),))
    check.check(WireAnswer(layout, data), EncodedRequest(b"", 2, frozenset({1})))
    short = layout_of((OutputTensor("LABEL", "BYTES", (2, 1), 0, 7),))
    with pytest.raises(RequestFailure, match="too few for its elements' lengths"):
        check.check(WireAnswer(short, data[:7]), EncodedRequest(b"", 2, frozenset({1})))
