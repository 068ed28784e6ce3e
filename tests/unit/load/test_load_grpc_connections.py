"""Deadlines, addresses, TLS, metadata and crowds: our gRPC transport and grpcio's, side by side."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_server import Behaviour, FakeServer, constant
from grpc_client import BOTH, IDS, failure_of, send, tensors
from grpcio_server import grpcio_server
from http1_server import make_certificate
from http2_server import infer_response
from load_rig import environment

from harness.errors import UsageError
from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.grpcio import GrpcioTransport
from harness.load.transports.grpc.transport import GrpcTransport
from tests.ports import free_port

# Time and place


@BOTH
def test_no_answer_in_time(transport_class: type) -> None:
    def slow(request: bytes, context: Any) -> bytes:
        time.sleep(1)
        return infer_response()

    with grpcio_server(slow) as port:
        target = Target("127.0.0.1", port)
        failure = failure_of(target, transport_class, timeout_s=0.2)
    assert failure.kind == "timeout"
    assert "0.2 s" in str(failure)


@pytest.mark.parametrize(
    ("transport_class", "kind"),
    [(GrpcTransport, "connection"), (GrpcioTransport, "grpc_UNAVAILABLE")],
)
def test_a_server_that_is_not_there(transport_class: type, kind: str) -> None:
    transport = transport_class(Target("127.0.0.1", 1), timeout_s=5)
    with pytest.raises(RequestFailure, match=r"127\.0\.0\.1:1") as caught:
        transport.connect()
    assert caught.value.kind == kind
    transport.close()


@BOTH
def test_a_server_that_comes_back(transport_class: type) -> None:
    with grpcio_server(port=free_port()) as port:
        transport = transport_class(Target("127.0.0.1", port), timeout_s=5)
        request = transport.encode("m", {"input_ids": IDS})
        transport.connect()
        assert transport.send(request)
    with pytest.raises(RequestFailure):
        transport.send(request)
    with FakeServer(ports=(0, port)):
        time.sleep(1.2)  # grpcio's back-off
        assert transport.send(request)
        transport.close()


@contextmanager
def slow_to_accept(port: int, wait_s: float) -> Iterator[int]:
    """A port whose connections are taken up late, and then passed on to a server's."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        time.sleep(wait_s)
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=pass_on, args=(server, client))
            back.start()
            pass_on(client, server)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1]
        serving.join()


@BOTH
def test_a_server_that_is_slow_to_accept(transport_class: type) -> None:
    """Such as a distant one, or one whose machine stalls: only the request's own limit counts."""
    with grpcio_server() as port, slow_to_accept(port, 0.5) as slow:
        transport = transport_class(Target("127.0.0.1", slow), timeout_s=30)
        transport.connect()
        assert transport.send(transport.encode("m", {"input_ids": IDS}))
        transport.close()


@BOTH
def test_ipv6(transport_class: type) -> None:
    with grpcio_server(host="[::1]") as port:
        assert tensors(send(Target("::1", port), transport_class))["logits"][2] == bytes(8)


def make_credentials(folder: Path) -> tuple[Path, Any]:
    """A certificate for localhost, and a server's credentials with it."""
    certificate, _ = make_certificate(folder)
    pair = (folder / "key.pem").read_bytes(), certificate.read_bytes()
    return certificate, grpc.ssl_server_credentials([pair])


@BOTH
def test_tls(transport_class: type, tmp_path: Path) -> None:
    certificate, credentials = make_credentials(tmp_path)
    with grpcio_server(credentials=credentials) as port:
        trusted = Target("localhost", port, encrypted=True, ca_file=certificate)
        assert tensors(send(trusted, transport_class, count=20))["logits"][2] == bytes(8)
        distrusted = Target("localhost", port, encrypted=True)
        failure = failure_of(distrusted, transport_class, timeout_s=3)
        assert failure.kind in {"connection", "grpc_UNAVAILABLE"}
        plain = failure_of(Target("localhost", port), transport_class, timeout_s=3)
        assert plain.kind in {"connection", "malformed", "grpc_UNAVAILABLE"}


def test_tls_unverified(tmp_path: Path) -> None:
    _, credentials = make_credentials(tmp_path)
    with grpcio_server(credentials=credentials) as port:
        target = Target("localhost", port, encrypted=True, verify=False)
        assert tensors(send(target, GrpcTransport))["logits"][2] == bytes(8)
        with pytest.raises(UsageError, match="without verifying"):
            GrpcioTransport(target, timeout_s=1)


# Metadata


@BOTH
def test_metadata_arrives(transport_class: type) -> None:
    got = {}

    def note(request: bytes, context: Any) -> bytes:
        got.update(context.invocation_metadata())
        return infer_response()

    headers = (("Authorization", "Bearer abc"), ("trace-bin", "AP8="), ("more-bin", "AAH/"))
    with grpcio_server(note) as port:
        send(Target("127.0.0.1", port, headers=headers), transport_class)
    assert got["authorization"] == "Bearer abc"
    assert (got["trace-bin"], got["more-bin"]) == (b"\0\xff", b"\0\1\xff")


@BOTH
@pytest.mark.parametrize(
    ("header", "words"),
    [
        (("a b", "x"), "not a name"),
        ((":path", "/x"), "not a name"),
        (("grpc-timeout", "1S"), "sets it itself"),
        (("Content-Type", "x"), "sets it itself"),
        (("x", "größe"), "printable ASCII"),
        (("x", "a\r\nb"), "printable ASCII"),
        (("x-bin", "no base64!"), "not base64"),
    ],
)
def test_metadata_that_cannot_be_sent(
    transport_class: type, header: tuple[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        transport_class(Target("h", 1, headers=(header,)), timeout_s=1)


def test_too_much_metadata() -> None:
    with pytest.raises(UsageError, match="bytes of metadata"):
        GrpcTransport(Target("h", 1, headers=(("x", "y" * 20_000),)), timeout_s=1)


# Many at once

CROWD = """
import sys, time
if sys.argv[3] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import threading
from pathlib import Path
import numpy as np
from harness.load.transports.address import parse_target
from harness.load.transports.grpc.transport import GrpcTransport

certificate = Path(sys.argv[4]) if len(sys.argv) > 4 else None
target, users = parse_target(sys.argv[1], ca_file=certificate), int(sys.argv[2])
ids = np.arange(16).reshape(2, 8)
request = GrpcTransport(target, timeout_s=30).encode("m", {"input_ids": ids})
answered = []

def use():
    transport = GrpcTransport(target, timeout_s=30)
    transport.connect()
    for _ in range(4):
        answer = transport.send(request)
        answered.append(answer.layout.outputs[0].name)
        time.sleep(0.03)  # idle for long enough to be looked after
    transport.close()

threads = [threading.Thread(target=use) for _ in range(users)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(answered), set(answered), "gevent" if "gevent" in sys.modules else "threads")
"""


def run_crowd(*arguments: str) -> str:
    """What it prints; it must end by itself, and without a complaint."""
    done = subprocess.run(
        [sys.executable, "-c", CROWD, *arguments],
        env=environment(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("users", [1, 64, 512])
@pytest.mark.parametrize("world", ["gevent", "threads"])
def test_no_cap_and_no_hang_however_many_are_in_flight(users: int, world: str) -> None:
    with FakeServer(Behaviour(latency_s=constant(0.2))) as server:
        start = time.monotonic()
        assert run_crowd(server.grpc, str(users), world) == f"{users * 4} {{'logits'}} {world}"
        if users == 64:  # one after another they would take 51 s
            assert time.monotonic() - start < 25
    assert len(server.served) == users * 4


def test_tls_under_gevent(tmp_path: Path) -> None:
    certificate, credentials = make_credentials(tmp_path)
    with grpcio_server(credentials=credentials) as port:
        printed = run_crowd(f"grpcs://localhost:{port}", "16", "gevent", str(certificate))
    assert printed == "64 {'logits'} gevent"
