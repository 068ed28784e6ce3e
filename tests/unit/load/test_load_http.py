"""HTTP framing over real sockets, and KServe's binary extension against tritonclient's own."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.load.transports.contract import RequestFailure, host_and_port
from harness.load.transports.http import HttpTransport, read_answer
from harness.load.transports.http1 import Head, HttpConnection, ProtocolViolation, parse_head

IDS = np.arange(8, dtype=np.int64).reshape(2, 4)


def exchange(*pieces: bytes, close: bool = False, timeout_s: float = 5.0) -> tuple[Head, bytes]:
    """What a connection makes of an answer that comes in these pieces."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        theirs.recv(65536)
        for piece in pieces:
            theirs.sendall(piece)
            time.sleep(0)
        if close:
            theirs.close()

    server = threading.Thread(target=serve)
    server.start()
    connection = HttpConnection(ours, timeout_s=timeout_s)
    try:
        return connection.exchange(b"POST /")
    finally:
        server.join()
        connection.close()
        theirs.close()


def cut(text: bytes, places: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return (text[start:end] for start, end in pairwise(edges))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 2000), max_size=5))
def test_an_answer_of_known_length_may_come_in_any_pieces(body: bytes, places: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: %d\r\nX: y\r\n\r\n%b" % (len(body), body)
    head, got = exchange(*cut(answer, places))
    assert (head.status, head.keep_alive, got) == (200, True, body)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=80), max_size=4),
    st.lists(st.integers(0, 2000), max_size=5),
    st.booleans(),
)
def test_a_chunked_answer_may_come_in_any_pieces(
    chunks: list[bytes], places: list[int], trailer: bool
) -> None:
    framed = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    end = b"0\r\nChecksum: 1\r\n\r\n" if trailer else b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + end
    head, got = exchange(*cut(answer, places))
    assert head.keep_alive
    assert got == b"".join(chunks)


def test_an_answer_without_length_ends_with_the_connection() -> None:
    head, body = exchange(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)
    assert (body, head.keep_alive) == (b"all of it", False)


def test_two_answers_on_one_connection_stay_apart() -> None:
    ours, theirs = socket.socketpair()
    connection = HttpConnection(ours, timeout_s=5)
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na" * 2)
    assert [connection.exchange(b"x")[1] for _ in range(2)] == [b"a", b"a"]
    connection.close()
    theirs.close()


def test_an_interim_answer_is_passed_over() -> None:
    head, body = exchange(
        b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    assert (head.status, body) == (200, b"ok")


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.0 200 OK\r\nContent-Length: 0",
        "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0",
    ],
)
def test_a_connection_that_ends_is_not_kept(head: str) -> None:
    assert not parse_head(head.encode() + b"\r\n\r\n").keep_alive


def test_the_server_closing_early_is_an_error() -> None:
    with pytest.raises(ConnectionResetError, match="before its answer ended"):
        exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", close=True)


def test_a_trickle_does_not_outlive_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
        while not stop.wait(0.02):
            theirs.sendall(b".")

    server = threading.Thread(target=trickle)
    server.start()
    with pytest.raises(TimeoutError):
        HttpConnection(ours, timeout_s=0.3).exchange(b"x")
    stop.set()
    server.join()
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        exchange(answer)


def test_a_request_is_what_tritonclient_would_send() -> None:
    request = HttpTransport("localhost:8000", timeout_s=1).encode(
        "bert", {"input_ids": IDS, "attention_mask": np.ones((2, 4), np.int32)}
    )
    head, _, body = request.partition(b"\r\n\r\n")
    theirs = [
        tritonclient.InferInput("input_ids", [2, 4], "INT64"),
        tritonclient.InferInput("attention_mask", [2, 4], "INT32"),
    ]
    theirs[0].set_data_from_numpy(IDS)
    theirs[1].set_data_from_numpy(np.ones((2, 4), np.int32))
    expected, split = tritonclient.InferenceServerClient.generate_request_body(theirs)
    fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:])
    ours = int(fields[b"Inference-Header-Content-Length"])
    assert head.startswith(b"POST /v2/models/bert/infer HTTP/1.1\r\n")
    assert int(fields[b"Content-Length"]) == len(body)
    assert json.loads(body[:ours]) == json.loads(expected[:split])
    assert body[ours:] == expected[split:]


def test_the_request_names_its_server_and_model_as_http_wants() -> None:
    request = HttpTransport("http://[::1]:8000", timeout_s=1).encode("a b/c", {"x": IDS})
    assert request.startswith(b"POST /v2/models/a%20b%2Fc/infer HTTP/1.1\r\nHost: [::1]:8000\r\n")


def test_a_slice_is_encoded_as_the_rows_it_shows() -> None:
    request = HttpTransport("localhost:8000", timeout_s=1).encode("m", {"x": IDS[:, ::2]})
    assert request.endswith(np.array([0, 2, 4, 6], np.int64).tobytes())


def described(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def answer_of(header: bytes, raw: bytes) -> tuple[Head, bytes]:
    head = Head(200, len(header) + len(raw), False, True, len(header))
    return head, header + raw


def test_an_answer_is_read_as_tritonclient_reads_it() -> None:
    outputs = [described("a", "FP32", [2, 1], 8), described("b", "INT64", [2], 16)]
    header = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()
    raw = np.array([1.5, 2.5], "<f4").tobytes() + np.array([3, 4], "<i8").tobytes()
    theirs = tritonclient.InferResult.from_response_body(header + raw, header_length=len(header))
    for tensor in read_answer(*answer_of(header, raw)):
        expected = theirs.as_numpy(tensor.name)
        assert tensor.shape == expected.shape
        assert tensor.data == expected.tobytes()


@pytest.mark.parametrize(
    "header",
    [b"", b"[]", b"{}", b'{"outputs":[{"name":"a"}]}', b'{"outputs":{"a":1}}', b"\xff\xfe", b"5"],
)
def test_a_header_that_is_not_kserve_is_malformed(header: bytes) -> None:
    with pytest.raises(RequestFailure, match="malformed"):
        read_answer(*answer_of(header, b""))


def test_an_answer_in_json_is_told_from_an_empty_one() -> None:
    output = {"name": "a", "datatype": "FP32", "shape": [1], "data": [1.0]}
    header = json.dumps({"outputs": [output]}).encode()
    with pytest.raises(RequestFailure, match="lacks the binary tensor extension"):
        read_answer(*answer_of(header, b""))


def test_fewer_bytes_than_announced_are_malformed() -> None:
    header = json.dumps({"outputs": [described("a", "FP32", [1], 4)]}).encode()
    with pytest.raises(RequestFailure, match="announces 4 bytes of tensors, 3 came"):
        read_answer(*answer_of(header, b"abc"))


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 70))
def test_no_answer_breaks_the_reader(body: bytes, split: int) -> None:
    # Tensors or a failure that has a kind; any other exception would escape.
    try:
        tensors = read_answer(Head(200, len(body), False, True, split), body)
    except RequestFailure as failure:
        kind = failure.kind
    else:
        kind = "read" if isinstance(tensors, list) else ""
    assert kind in {"read", "malformed"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("http://triton:8000/", ("triton", 8000)),
        ("grpc://[::1]:8001", ("::1", 8001)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected


@pytest.mark.parametrize("address", ["", "triton", "https://triton:443", ":8000", "a:b", "h:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="no server address"):
        host_and_port(address)
