"""KServe's binary tensor extension against tritonclient's own, and what is remembered of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient
from hypothesis import given
from hypothesis import strategies as st

from harness.load.transports.address import parse_target
from harness.load.transports.contract import (
    MARK,
    Layout,
    OutputTensor,
    RequestFailure,
    WireAnswer,
    layout_of,
)
from harness.load.transports.http.tensors import read_layout
from harness.load.transports.http.transport import HttpTransport
from harness.load.transports.recognition import FORMS_PER_LENGTH, LONGEST_PREFIX, KnownForms

IDS = np.arange(8, dtype=np.int64).reshape(2, 4)


def encode(address: str, model: str, **inputs: np.ndarray) -> bytes:
    return HttpTransport(parse_target(address), timeout_s=1).encode(model, inputs)


def test_a_request_is_what_tritonclient_would_send() -> None:
    mask = np.ones((2, 4), np.int32)
    request = encode("localhost:8000", "bert", input_ids=IDS, attention_mask=mask)
    head, _, body = request.partition(b"\r\n\r\n")
    theirs = [
        tritonclient.InferInput("input_ids", [2, 4], "INT64"),
        tritonclient.InferInput("attention_mask", [2, 4], "INT32"),
    ]
    theirs[0].set_data_from_numpy(IDS)
    theirs[1].set_data_from_numpy(mask)
    expected, split = tritonclient.InferenceServerClient.generate_request_body(
        theirs, request_id=MARK.decode()
    )
    fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:])
    ours = int(fields[b"Inference-Header-Content-Length"])
    assert head.startswith(b"POST /v2/models/bert/infer HTTP/1.1\r\n")
    assert int(fields[b"Content-Length"]) == len(body)
    assert json.loads(body[:ours]) == json.loads(expected[:split])
    assert body[ours:] == expected[split:]


def test_the_request_names_its_server_and_model_as_http_wants() -> None:
    request = encode("http://[::1]:8000", "a b/c", x=IDS)
    assert request.startswith(b"POST /v2/models/a%20b%2Fc/infer HTTP/1.1\r\nHost: [::1]:8000\r\n")


def test_a_slice_is_encoded_as_the_rows_it_shows() -> None:
    request = encode("localhost:8000", "m", x=IDS[:, ::2])
    assert request.endswith(np.array([0, 2, 4, 6], np.int64).tobytes())


def described(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def layout_in(header: bytes, raw: bytes, *, before: bytes = b"") -> WireAnswer:
    data = before + header + raw
    split = len(before) + len(header)
    return WireAnswer(read_layout(data, body_start=len(before), tensors_start=split), data)


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_answer_is_read_as_tritonclient_reads_it(before: bytes) -> None:
    outputs = [described("a", "FP32", [2, 1], 8), described("b", "INT64", [2], 16)]
    header = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()
    raw = np.array([1.5, 2.5], "<f4").tobytes() + np.array([3, 4], "<i8").tobytes()
    theirs = tritonclient.InferResult.from_response_body(header + raw, header_length=len(header))
    answer = layout_in(header, raw, before=before)
    assert [output.name for output in answer.layout.outputs] == ["a", "b"]
    for output in answer.layout.outputs:
        expected = theirs.as_numpy(output.name)
        assert output.shape == expected.shape
        assert answer.bytes_of(output) == expected.tobytes()


def one_output(**fields: Any) -> bytes:
    output = {**described("a", "FP32", [1], 4), **fields}
    return json.dumps({"outputs": [output]}).encode()


NOT_KSERVE = [
    *(b"", b"[]", b"{}", b'{"outputs":[{"name":"a"}]}', b'{"outputs":{"a":1}}', b"\xff\xfe", b"5"),
    *(one_output(parameters=wrong) for wrong in ([], {"binary_data_size": -4})),
    *(one_output(shape=wrong) for wrong in (1, None, ["x"])),
]


@pytest.mark.parametrize("header", NOT_KSERVE)
def test_a_header_that_is_not_kserve_is_malformed(header: bytes) -> None:
    with pytest.raises(RequestFailure, match="malformed: the answer's JSON header is not KServe"):
        layout_in(header, b"")


def test_an_answer_in_json_is_told_from_an_empty_one() -> None:
    with pytest.raises(RequestFailure, match="lacks the binary tensor extension"):
        layout_in(one_output(data=[1.0]), b"")


@pytest.mark.parametrize("raw", [b"abc", b"abcde"])
def test_bytes_other_than_announced_are_malformed(raw: bytes) -> None:
    with pytest.raises(RequestFailure, match=f"announces 4 bytes of tensors, {len(raw)} came"):
        layout_in(one_output(), raw)


@given(st.binary(max_size=60), st.integers(0, 70))
def test_no_body_breaks_the_reader(body: bytes, split: int) -> None:
    # A layout within the data or a failure that has a kind; any other exception would escape.
    try:
        layout = read_layout(body, body_start=0, tensors_start=split)
    except RequestFailure as failure:
        fits = failure.kind == "malformed"
    else:
        fits = all(output.end <= len(body) for output in layout.outputs)
    assert fits


def layout(name: str, start: int) -> Layout:
    return layout_of((OutputTensor(name, "INT8", (1,), start, start + 1),))


def test_equal_layouts_are_one_object_and_offsets_are_part_of_them() -> None:
    assert layout("a", 5) is layout("a", 5)
    assert layout("a", 5) is not layout("a", 6)
    assert layout("a", 5) is not layout("b", 5)


def test_a_form_is_recalled_by_its_prefix_and_length_only() -> None:
    forms = KnownForms()
    forms.remember(b"head1", 4, layout("a", 4))
    assert forms.recall(b"head2") is layout("a", 4)
    assert forms.recall(b"heap1") is None
    assert forms.recall(b"head") is None
    assert forms.recall(b"head12") is None


def test_only_the_latest_forms_of_a_length_are_kept() -> None:
    forms = KnownForms()
    for i in range(FORMS_PER_LENGTH + 1):
        forms.remember(b"%dx" % i, 1, layout(str(i), 1))
    assert forms.recall(b"0x") is None
    for i in range(1, FORMS_PER_LENGTH + 1):
        assert forms.recall(b"%dy" % i) is layout(str(i), 1)


def test_a_prefix_that_is_too_long_is_not_kept() -> None:
    forms = KnownForms()
    data = bytes(LONGEST_PREFIX + 2)
    forms.remember(data, LONGEST_PREFIX + 1, layout("a", 1))
    assert forms.recall(data) is None
