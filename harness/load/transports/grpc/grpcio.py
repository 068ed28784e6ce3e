"""KServe v2 over gRPC with grpcio: the reference that `grpc.py` is compared with, and the fallback.

Under gevent a blocking call waits in gevent's native thread pool: whoever runs many users must
call `grpc.experimental.gevent.init_gevent()` before the first channel and let that pool grow to
the number of users.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import grpc
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure, WireAnswer, stamped
from harness.load.transports.grpc.headers import BINARY_SUFFIX, decode_binary, read_metadata
from harness.load.transports.grpc.messages import (
    MODEL_INFER,
    SERVICE,
    AnswerForms,
    encode_infer_request,
)
from harness.words.numbers import asked

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A connection a user, as over HTTP, and no back-off inherited from an earlier trial.
    ("grpc.use_local_subchannel_pool", 1),
    # A dead server that comes back is noticed within a second, not within two minutes. The least
    # back-off stays at its default: it also bounds how long one attempt to connect may take, and a
    # distant or stalled server needs longer than a tenth of a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A retry would hide a failure and pass two latencies off as one.
    ("grpc.enable_retries", 0),
    # Load goes straight to the server, whatever proxies the environment names.
    ("grpc.enable_http_proxy", 0),
]


class GrpcioTransport:
    """A `Transport` over one channel.

    Raises:
        UsageError: metadata that gRPC cannot carry, certificates that cannot be read, or
            certificates not to be verified, which grpcio cannot do.
    """

    _forms: ClassVar = AnswerForms()

    def __init__(self, target: Target, *, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._credentials = _credentials(target)
        self._metadata = [
            (name, decode_binary(name, value) if name.endswith(BINARY_SUFFIX) else value)
            for name, value in read_metadata(target.headers)
        ]
        self._channel: Any = None
        self._infer: Any = None
        self.received_ns = 0
        self.identity = b""

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """Encode a request as a serialised `ModelInferRequest`."""
        return encode_infer_request(model, inputs)

    def connect(self) -> None:
        """Open the channel and ask whether the server lives: a channel itself connects lazily."""
        self._open()
        live = self._channel.unary_unary(f"{SERVICE}/ServerLive")
        try:
            live(b"", timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            if not _answered(error):
                raise self._failure(error) from error

    def send(self, request: bytes) -> WireAnswer:
        """Call `ModelInfer` under its own id."""
        if self._infer is None:
            self._open()
        request, identity = stamped(request)
        self.identity = identity
        try:
            data = self._infer(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        self.received_ns = time.monotonic_ns()
        layout = self._forms.recall(data, identity) or self._forms.learn(data, identity)
        return WireAnswer(layout, data)

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._infer = None

    def _open(self) -> None:
        if self._channel is not None:
            return
        address = self._target.authority
        self._channel = (
            grpc.insecure_channel(address, options=_OPTIONS)
            if self._credentials is None
            else grpc.secure_channel(address, self._credentials, options=_OPTIONS)
        )
        self._infer = self._channel.unary_unary(MODEL_INFER)  # bytes in, bytes out

    def _failure(self, error: Any) -> RequestFailure:
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            where = self._target.authority
            return RequestFailure(
                "timeout", f"no answer from {where} in {asked(self._timeout_s)} s"
            )
        return RequestFailure(f"grpc_{code.name}", f"{self._target.authority}: {error.details()}")


def _answered(error: Any) -> bool:
    """Whether a server said no, rather than none saying anything: it may well take requests."""
    if "is restricted, expecting header" in (error.details() or ""):  # Triton's UNAVAILABLE
        return True
    return error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}


def _credentials(target: Target) -> Any:
    if not target.encrypted:
        return None
    if not target.verify:
        raise UsageError(
            "grpcio cannot take a server's certificate without verifying it",
            next_step="name the certificate as one to trust, or use the transport 'native'",
        )
    target.tls_context("h2")  # says in words what is wrong with the certificates
    roots = None if target.ca_file is None else target.ca_file.read_bytes()
    return grpc.ssl_channel_credentials(root_certificates=roots)
