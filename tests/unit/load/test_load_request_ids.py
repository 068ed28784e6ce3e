"""Every request bears its own id, and its answer, where it repeats one, bears the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from grpcio_server import grpcio_server
from http1_server import Peer as HttpPeer
from http1_server import ScriptedServer, kserve_answer
from http2_server import Peer, envelope, infer_response, scripted_server
from tritonclient.grpc import service_pb2

from harness.load.transports.address import Target, parse_target
from harness.load.transports.contract import (
    MARK,
    WIDTH,
    Layout,
    RequestFailure,
    Transport,
    WireAnswer,
    holes_of,
    next_id,
    stamped,
)
from harness.load.transports.grpc import http2
from harness.load.transports.grpc.grpcio import GrpcioTransport
from harness.load.transports.grpc.messages import AnswerForms
from harness.load.transports.grpc.transport import GrpcTransport
from harness.load.transports.http import transport as http
from harness.load.transports.http.transport import HttpTransport
from harness.load.transports.recognition import KnownForms
from harness.load.transports.streams.tokens import StreamRequest

Echo = Callable[[str], str]
"""A request's id to its answer's."""
DOORS = ["http", "json", "grpc", "grpcio"]
IDS = np.arange(8, dtype=np.int64).reshape(2, 4)
LARGE = np.zeros((1, 50_000), np.int64)  # 400,000 bytes: many frames


class Door(NamedTuple):
    """A transport, and the ids of the requests that its server got."""

    transport: Transport
    seen: list[str]


@contextmanager
def opened(door: str, echo: Echo) -> Iterator[Door]:
    """The n-th answer holds the number n."""
    seen: list[str] = []
    serve = {"http": _over_http, "json": _over_http, "grpc": _over_grpc, "grpcio": _over_grpcio}
    with serve[door](door, echo, seen) as transport:
        try:
            yield Door(transport, seen)
        finally:
            transport.close()


@contextmanager
def _over_http(door: str, echo: Echo, seen: list[str]) -> Iterator[Transport]:
    def script(peer: HttpPeer) -> None:
        while request := peer.request():
            body = request.partition(b"\r\n\r\n")[2]
            text = body.decode("latin-1")
            seen.append(json.JSONDecoder().raw_decode(text)[0]["id"])
            number, identity = float(len(seen)), echo(seen[-1])
            if door == "http":
                peer.say(kserve_answer(number, identity=identity))
            else:
                peer.say(_json_answer(number, identity))

    server = ScriptedServer(*[script] * 10)
    with server:
        address = parse_target(server.address)
        target = Target(address.host, address.port, binary=door == "http")
        transport = HttpTransport(target, timeout_s=10)
        yield transport
        transport.close()


def _json_answer(number: float, identity: str) -> bytes:
    output = {"name": "logits", "datatype": "FP32", "shape": [1, 1], "data": [number]}
    body = json.dumps({"id": identity, "model_name": "m", "outputs": [output]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _message(request: bytes, echo: Echo, seen: list[str]) -> bytes:
    seen.append(service_pb2.ModelInferRequest.FromString(request).id)
    number = np.array([len(seen)], "<f4").tobytes()
    return infer_response(number, id=echo(seen[-1]))


@contextmanager
def _over_grpc(door: str, echo: Echo, seen: list[str]) -> Iterator[Transport]:
    def script(peer: Peer) -> None:
        peer.greet({4: 2**30})
        peer.send(b"\0\0\4\x08\0\0\0\0\0" + (2**30).to_bytes(4, "big"))  # a window for all
        with suppress(ConnectionResetError):
            while True:
                request = peer.request()
                peer.answer(request.stream_id, envelope(_message(request.body[5:], echo, seen)))

    with scripted_server(script) as server:
        transport = GrpcTransport(server.target, timeout_s=10)
        yield transport
        transport.close()


@contextmanager
def _over_grpcio(door: str, echo: Echo, seen: list[str]) -> Iterator[Transport]:
    def handler(request: bytes, context: grpc.ServicerContext) -> bytes:
        return _message(request, echo, seen)

    with grpcio_server(handler) as port:
        transport = GrpcioTransport(Target("127.0.0.1", port), timeout_s=10)
        yield transport
        transport.close()


def number_of(answer: WireAnswer) -> float:
    (output,) = answer.layout.outputs
    assert (output.name, output.shape) == ("logits", (1, 1))
    (number,) = np.frombuffer(answer.bytes_of(output), "<f4").tolist()
    return float(number)


def numbers(transport: Transport, count: int, ids: np.ndarray = IDS) -> list[float]:
    request = transport.encode("m", {"input_ids": ids})
    return [number_of(transport.send(request)) for _ in range(count)]


def same(identity: str) -> str:
    return identity


def none(identity: str) -> str:
    return ""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("ids", [IDS, LARGE], ids=["small", "large"])
def test_the_server_sees_an_id_of_one_width_that_no_other_request_has(
    door: str, ids: np.ndarray
) -> None:
    with opened(door, same) as (transport, seen):
        assert numbers(transport, 5, ids) == [1, 2, 3, 4, 5]
    assert len(set(seen)) == len(seen) == 5
    assert {len(one) for one in seen} == {WIDTH}
    assert MARK.decode() not in seen


def _no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on what is read, rather than recognised by its bytes, is an error."""

    def read_again(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(http, "read_message", read_again)
    monkeypatch.setattr(AnswerForms, "learn", read_again)
    monkeypatch.setattr(http2.Http2Connection, "_act", read_again)


@pytest.mark.parametrize("door", ["http", "grpc", "grpcio"])
@pytest.mark.parametrize("echo", [same, none])
def test_answers_are_recognised_whether_they_repeat_the_id_or_not(
    door: str, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(door, echo) as (transport, seen):
        assert numbers(transport, 3) == [1, 2, 3]
        with monkeypatch.context() as patched:
            _no_reading(patched)
            assert numbers(transport, 3) == [4, 5, 6]
    assert len(set(seen)) == 6


@pytest.mark.parametrize("door", DOORS)
def test_the_answer_to_another_request_is_a_failure(door: str) -> None:
    """Also where the form is known, and whether the id is one of ours or not."""
    earlier: list[str] = []

    def echo(identity: str) -> str:
        earlier.append(identity)
        replaced = {4: earlier[0], 5: next_id().decode(), 6: "7"}
        return replaced.get(len(earlier), identity)

    with opened(door, echo) as (transport, _):
        request = transport.encode("m", {"input_ids": IDS})
        assert numbers(transport, 3) == [1, 2, 3]
        for _ in range(3):
            with pytest.raises(RequestFailure, match=r"malformed: the answer to '.*' came to the"):
                transport.send(request)
        assert numbers(transport, 2) == [7, 8]


def test_after_the_answer_to_another_request_the_http_connection_is_given_up() -> None:
    def shifted(peer: HttpPeer) -> None:
        peer.answer(kserve_answer(1.0, identity=next_id().decode()))

    server = ScriptedServer(shifted, lambda peer: peer.answer(kserve_answer(2.0)))
    with server:
        transport = HttpTransport(parse_target(server.address), timeout_s=10)
        request = transport.encode("m", {"input_ids": IDS})
        with pytest.raises(RequestFailure, match="malformed"):
            transport.send(request)
        assert number_of(transport.send(request)) == 2
        transport.close()
    assert server.connections == 2


def test_an_id_repeated_twice_is_held_against_the_request_at_both_places() -> None:
    first, second, third = next_id(), next_id(), next_id()
    layout, forms = Layout(()), KnownForms()

    def answer(*ids: bytes) -> bytes:
        return b'x-id: %b {"id":"%b"}' % ids + b"data"

    forms.remember(answer(first, first), len(answer(first, first)) - 4, layout, first)
    assert forms.recall(answer(second, second), second) is layout
    refused: Sequence[tuple[bytes, bytes]] = [(second, third), (third, second), (third, third)]
    assert [forms.recall(answer(*ids), second) for ids in refused] == [None] * 3
    assert forms.recall(answer(second, second)) is None
    assert forms.recall(b'x-id:  {"id":""}' + bytes(2 * WIDTH) + b"data") is None


def test_a_request_without_a_mark_is_sent_as_it_is() -> None:
    assert stamped(b"no mark here") == (b"no mark here", b"")
    own_header = StreamRequest(b"X-Request-Id: a person's own")
    assert stamped(own_header) == (own_header, b"")
    assert holes_of(b"any", b"") == (b"any",)


def test_a_forked_process_has_ids_of_its_own() -> None:
    """As Locust's `--processes` forks its workers."""
    reading, writing = os.pipe()
    parent = next_id()
    child = os.fork()
    if not child:
        os.write(writing, next_id())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, WIDTH)
    os.close(reading)
    os.close(writing)
    digits = 12
    assert len(theirs) == WIDTH
    assert theirs[:-digits] != parent[:-digits] == next_id()[:-digits]


@pytest.mark.parametrize("transport_class", [GrpcTransport, GrpcioTransport])
def test_failures_that_differ_only_in_their_id_are_alike_to_locust(transport_class: type) -> None:
    """Triton's refusals name the request; Locust has a row, for ever, for each other `repr`."""

    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        identity = service_pb2.ModelInferRequest.FromString(request).id
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"[request id: {identity}] too long")
        raise AssertionError

    failures = []
    with grpcio_server(refuse) as port:
        transport = transport_class(Target("127.0.0.1", port), timeout_s=10)
        request = transport.encode("m", {"input_ids": IDS})
        for _ in range(3):
            with pytest.raises(RequestFailure) as caught:
                transport.send(request)
            failures.append(caught.value)
        transport.close()
    assert len({str(one) for one in failures}) == 3
    (shown,) = {repr(one) for one in failures}
    assert "[request id: ID] too long" in shown
