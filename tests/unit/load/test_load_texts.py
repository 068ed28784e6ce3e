"""Texts as payloads: BYTES tensors on disk, over HTTP and over gRPC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.load.answers import AnswerCheck
from harness.load.payload_fit import check_payloads_fit
from harness.load.payloads import EncodedRequest, draw_payloads, read_payloads, write_payloads
from harness.load.transports.binary_tensors import encode_body
from harness.load.transports.contract import Answer, OutputTensor, RequestFailure, layout_of
from harness.load.transports.kserve import encode_infer_request
from harness.types import TensorSpec

texts = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    min_size=1,
    max_size=5,
)


@given(texts)
def test_a_request_of_texts_is_what_tritonclient_would_send(rows: list[str]) -> None:
    array = np.array([row.encode() for row in rows])[:, None]
    theirs = over_http.InferInput("TEXT", list(array.shape), "BYTES")
    theirs.set_data_from_numpy(array.astype(object))
    expected, split = over_http.InferenceServerClient.generate_request_body([theirs])
    ours = encode_body({"TEXT": array})
    assert ours.data[ours.header_length :] == expected[split:]

    other = over_grpc.InferInput("TEXT", list(array.shape), "BYTES")
    other.set_data_from_numpy(array.astype(object))
    message = over_grpc.service_pb2.ModelInferRequest.FromString(
        encode_infer_request("m", {"TEXT": array})
    )
    assert message.inputs[0].datatype == "BYTES"
    assert message.raw_input_contents[0] == other._get_content()


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


def test_texts_that_are_no_bytes_are_refused_with_the_way_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither numbers nor bytes") as caught:
        write_payloads(tmp_path / "p.npz", [{"TEXT": np.array([["unicode"]])}])
    assert "numpy.char.encode" in caught.value.next_step


def test_an_answer_in_bytes_must_hold_its_elements_lengths() -> None:
    check = AnswerCheck((TensorSpec("LABEL", "BYTES", (1,)),))
    data = b"\4\0\0\0good\3\0\0\0bad"
    layout = layout_of((OutputTensor("LABEL", "BYTES", (2, 1), 0, len(data)),))
    check.check(Answer(layout, data), EncodedRequest(b"", 2, frozenset({1})))
    short = layout_of((OutputTensor("LABEL", "BYTES", (2, 1), 0, 7),))
    with pytest.raises(RequestFailure, match="too few for its elements' lengths"):
        check.check(Answer(short, data[:7]), EncodedRequest(b"", 2, frozenset({1})))
