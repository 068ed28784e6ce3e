"""gRPC requests and answers: our transport and grpcio's, side by side, over grpcio's server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritonclient
from grpc_client import BOTH, IDS, NOWHERE, failure_of, send, tensors
from grpcio_server import grpcio_server
from http2_server import (
    ANSWER_HEADERS,
    OK_TRAILERS,
    Fields,
    Peer,
    envelope,
    infer_response,
    scripted_server,
)
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.grpc.service_pb2 import InferParameter

from harness.load.transports.address import Target
from harness.load.transports.contract import MARK, RequestFailure, next_id
from harness.load.transports.grpc.frames import FrameReader
from harness.load.transports.grpc.messages import AnswerForms
from harness.load.transports.grpc.transport import GrpcTransport


def message_of(request: bytes) -> service_pb2.ModelInferRequest:
    """Out of HTTP/2 frames."""
    reader = FrameReader()
    reader.feed(request)
    _, *data = list(iter(reader.next, None))
    body = b"".join(payload for *_, payload in data)
    assert body[:5] == envelope(bytes(len(body) - 5))[:5]
    return service_pb2.ModelInferRequest.FromString(body[5:])


# Requests


@pytest.mark.parametrize("rows", [2, 5000])
def test_a_request_is_what_tritonclient_would_send(rows: int) -> None:
    ids = np.arange(4 * rows, dtype=np.int64).reshape(rows, 4)
    ours = message_of(GrpcTransport(NOWHERE, timeout_s=1).encode("bert", {"input_ids": ids}))
    tensor = tritonclient.InferInput("input_ids", [rows, 4], "INT64")
    tensor.set_data_from_numpy(ids)
    theirs = _get_inference_request(
        model_name="bert", inputs=[tensor], model_version="", request_id=MARK.decode(),
        outputs=None,
        sequence_id=0, sequence_start=False, sequence_end=False, priority=0, timeout=None,
        parameters=None,
    )  # fmt: skip
    assert ours == theirs


@pytest.mark.parametrize(
    ("timeout_s", "text"),
    [(0.5, "500000u"), (99, "99000000u"), (100, "100000m"), (1e6, "1000000S"), (1e12, "99999999S")],
)
def test_the_server_is_told_the_deadline(timeout_s: float, text: str) -> None:
    request = GrpcTransport(NOWHERE, timeout_s=timeout_s).encode("m", {"input_ids": IDS})
    assert b"grpc-timeout" + bytes([len(text)]) + text.encode() in request


# Answers


@BOTH
@pytest.mark.parametrize("size", [4, 16_000, 70_000, 6_000_000])
def test_answers_and_requests_of_any_size(transport_class: type, size: int) -> None:
    values = np.random.default_rng(0).bytes(size)

    def echo(request: bytes, context: Any) -> bytes:
        raw = service_pb2.ModelInferRequest.FromString(request).raw_input_contents[0]
        return infer_response(raw)

    with grpcio_server(echo) as port:
        transport = transport_class(Target("127.0.0.1", port), timeout_s=20)
        ids = np.frombuffer(values, np.float32).reshape(1, -1)
        request = transport.encode("m", {"input_ids": ids})
        layouts = set()
        for _ in range(3):
            answer = transport.send(request)
            layouts.add(id(answer.layout))
            assert tensors(answer) == {"logits": ("FP32", (1, size // 4), values)}
        # Read from frames the first time, recognised in one piece from then on.
        assert len(layouts) <= 2
        transport.close()


@BOTH
def test_forms_that_alternate_are_kept_apart(transport_class: type) -> None:
    """Also such as have the same length, and a number that differs in every answer."""
    turns = [
        infer_response(b"abcdefgh"),
        infer_response(b"abcdefgh", name="stigol"),
        infer_response(b"abcdefgh", parameters={"n": InferParameter(int64_param=1)}),
        infer_response(b"abcdefgh", parameters={"n": InferParameter(int64_param=2)}),
        infer_response(b"ABCDefghijkl"),
    ]
    calls = []

    def handler(request: bytes, context: Any) -> bytes:
        calls.append(request)
        return turns[(len(calls) - 1) % len(turns)]

    with grpcio_server(handler) as port:
        transport = transport_class(Target("127.0.0.1", port), timeout_s=10)
        request = transport.encode("m", {"input_ids": IDS})
        for _ in range(4):
            for sent in turns:
                expected = service_pb2.ModelInferResponse.FromString(sent)
                (output,) = expected.outputs
                assert tensors(transport.send(request)) == {
                    output.name: ("FP32", tuple(output.shape), expected.raw_output_contents[0])
                }
        transport.close()


outputs = st.lists(
    st.tuples(
        st.text(max_size=5), st.lists(st.integers(0, 300), max_size=3), st.binary(max_size=9)
    ),
    max_size=4,
)
identities = st.text(max_size=4) | st.just(MARK.decode())
responses = st.tuples(identities, outputs, st.integers(0, 4), st.sampled_from([0, 5]))


@given(st.lists(responses, max_size=6))
def test_answers_mean_what_protobuf_says_they_mean(drawn) -> None:
    """Seen before or not, in any order, with fewer raw tensors than outputs or more.

    An answer whose id is the mark stands for one that repeats its request's.
    """
    forms = {0: AnswerForms(), 5: AnswerForms(envelope_bytes=5)}
    for identity, described, missing, skipped in [*drawn, *drawn]:
        sent = next_id() if identity == MARK.decode() else b""
        message = service_pb2.ModelInferResponse(model_name="m", id=sent.decode() or identity)
        for name, shape, values in described:
            message.outputs.add(name=name, datatype="FP32", shape=shape)
            message.raw_output_contents.append(values)
        if missing < len(described):
            del message.raw_output_contents[missing:]
        data = bytes(skipped) + message.SerializeToString()
        layout = forms[skipped].recall(data, sent) or forms[skipped].learn(data, sent)
        raw = [*message.raw_output_contents, *[b""] * len(described)]
        assert [(one.name, one.shape, data[one.start : one.end]) for one in layout.outputs] == [
            (one.name, tuple(one.shape), values)
            for one, values in zip(message.outputs, raw, strict=False)
        ]


def test_fields_out_of_order_are_read_but_not_remembered() -> None:
    whole = infer_response(b"abcdefgh")
    late = service_pb2.ModelInferResponse(model_version="77").SerializeToString()
    forms = AnswerForms()
    layout = forms.learn(whole + late)
    assert (whole + late)[layout.outputs[0].start : layout.outputs[0].end] == b"abcdefgh"
    assert forms.recall(whole + late) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    try:
        layout = AnswerForms().learn(data)
    except RequestFailure as failure:
        assert failure.kind == "malformed"  # noqa: PT017  (only some bytes fail)
        return
    message = service_pb2.ModelInferResponse.FromString(data)
    assert len(layout.outputs) == len(message.outputs)


# Refusals


@BOTH
@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in {grpc.StatusCode.OK}]
)
def test_every_status_is_a_failure_in_the_servers_words(
    transport_class: type, code: grpc.StatusCode
) -> None:
    words = "50 % of it failed: größer\nthan that"

    def refuse(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-more", "1"), ("x-raw-bin", b"\xff\0")))
        return context.abort(code, words)

    with grpcio_server(refuse) as port:
        failure = failure_of(Target("127.0.0.1", port), transport_class)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        assert failure.kind == "timeout"
    else:
        assert failure.kind == f"grpc_{code.name}"
        assert words in str(failure)


def test_a_refusal_does_not_cost_the_connection() -> None:
    calls = []

    def sometimes(request: bytes, context: Any) -> bytes:
        calls.append(context.peer())
        if len(calls) % 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"overloaded {len(calls)}")
        return infer_response()

    with grpcio_server(sometimes) as port:
        transport = GrpcTransport(Target("127.0.0.1", port), timeout_s=10)
        request = transport.encode("m", {"input_ids": IDS})
        for turn in range(1, 200, 2):
            with pytest.raises(RequestFailure, match=f"overloaded {turn}$"):
                transport.send(request)
            assert tensors(transport.send(request))["logits"][2] == bytes(8)
        transport.close()
        transport.close()
    assert len(set(calls)) == 1


BAD_ANSWERS: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "another's": ({"headers": [(":status", "200")]}, "malformed", "content type"),
    "html": (
        {"headers": [(":status", "200"), ("content-type", "text/html")]}, "malformed", "text/html",
    ),
    "grpc-web": (
        {"headers": [(":status", "200"), ("content-type", "application/grpc-web")]},
        "malformed", "grpc-web",
    ),
    "proxy": (
        {"headers": [(":status", "503"), ("content-type", "text/html")]}, "http_503", "503",
    ),
    "no http status": (
        {"headers": [("content-type", "application/grpc")]}, "http_(none)", "HTTP status",
    ),
    "no grpc status": ({"trailers": [("x", "y")]}, "malformed", "without a grpc-status"),
    "unknown status": ({"trailers": [("grpc-status", "99")]}, "grpc_UNKNOWN", "no message"),
    "no number": ({"trailers": [("grpc-status", "fine")]}, "grpc_UNKNOWN", "no message"),
    "compressed": ({"body": envelope(b"x", compressed=1)}, "malformed", "compressed"),
    "too short": ({"body": envelope(b"x", length=2)}, "malformed", "2 bytes announced, 1 came"),
    "two messages": ({"body": envelope(b"") * 2}, "malformed", "0 bytes announced, 5 came"),
    "no message": ({"body": b""}, "malformed", "without a message"),
    "no protobuf": ({"body": envelope(b"\x0b")}, "malformed", "wire type 3"),
    "cut protobuf": ({"body": envelope(b"\x0a\x05a")}, "malformed", "middle of a field"),
    "bad text": ({"body": envelope(b"\x0a\x01\xff")}, "malformed", "ModelInferResponse"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_what_is_no_answer_fails_each_time_and_the_next_one_counts(name: str) -> None:
    changes, kind, words = BAD_ANSWERS[name]

    def script(peer: Peer) -> None:
        peer.greet()
        peer.serve()
        for _ in range(2):
            peer.answer(peer.request().stream_id, **changes)
        peer.serve()

    with scripted_server(script) as server:
        transport = GrpcTransport(server.target, timeout_s=10)
        request = transport.encode("m", {"input_ids": IDS})
        transport.send(request)
        for _ in range(2):
            with pytest.raises(RequestFailure, match=words) as caught:
                transport.send(request)
            assert caught.value.kind == kind
        assert transport.send(request)
        transport.close()


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([*ANSWER_HEADERS, ("grpc-status", "5"), ("grpc-message", "no%20model")], "grpc_NOT_FOUND"),
        ([*ANSWER_HEADERS, *OK_TRAILERS], "malformed"),
        (ANSWER_HEADERS, "malformed"),
        ([(":status", "404")], "http_404"),
    ],
)
def test_trailers_only(headers: Fields, kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        for _ in range(2):
            number = peer.request().stream_id
            peer.send(peer.headers(number, headers, "END_STREAM"))
        peer.serve()

    with scripted_server(script) as server:
        transport = GrpcTransport(server.target, timeout_s=10)
        request = transport.encode("m", {"input_ids": IDS})
        for _ in range(2):
            with pytest.raises(RequestFailure) as caught:
                transport.send(request)
            assert caught.value.kind == kind
        assert transport.send(request)
        transport.close()


def test_compression_that_was_not_asked_for_is_not_used_by_a_real_server() -> None:
    with grpcio_server(compression=grpc.Compression.Gzip) as port:
        assert tensors(send(Target("127.0.0.1", port), GrpcTransport))["logits"][2] == bytes(8)
