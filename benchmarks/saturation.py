"""A client that keeps a model's queue full at the least cost: one request's bytes, over and over.

Every connection sends the same encoded HTTP request as soon as its answer is there: 25 us of
processor time a request, an order of magnitude under what `tritonclient` takes, so that the server
is the limit even where both share two cores.
"""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

_READ_BYTES = 1 << 18
_OK = b"HTTP/1.1 200"


def encode_request(host: str, model: str, inputs: dict[str, NDArray[np.int64]]) -> bytes:
    """One HTTP request of the KServe v2 protocol with binary tensors, head and body."""
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    body, json_bytes = triton.InferenceServerClient.generate_request_body(tensors)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\n"
        f"Inference-Header-Content-Length: {json_bytes}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + bytes(body)


@dataclass
class _Connection:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)

    def answered(self) -> bool:
        """Read what is there; whether that completes an answer."""
        chunk = self.socket.recv(_READ_BYTES)
        self.received += chunk
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not chunk or (separator and not head.startswith(_OK)):
            raise ConnectionError(f"the server answered: {bytes(self.received[:500])!r}")
        if not separator or len(body) < _content_length(head):
            return False
        self.received.clear()
        return True


def answers_per_s(
    address: str, request: bytes, *, in_flight: int, warmup_s: float, seconds: float
) -> float:
    """Answers per second with this many requests always in flight.

    Raises:
        ConnectionError: an answer that is not 200, or none.
    """
    host, port = address.split(":")
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(in_flight):
            peer = stack.enter_context(socket.create_connection((host, int(port))))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(request)
            selector.register(peer, selectors.EVENT_READ, _Connection(peer))
        _pump(selector, request, warmup_s)
        start = time.perf_counter()
        answers = _pump(selector, request, seconds)
        return answers / (time.perf_counter() - start)


def _pump(selector: selectors.BaseSelector, request: bytes, seconds: float) -> int:
    answers = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(timeout=0.1):
            connection: _Connection = key.data
            if connection.answered():
                answers += 1
                connection.socket.sendall(request)
    return answers


def _content_length(head: bytearray) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError(f"an answer without Content-Length: {bytes(head)!r}")
