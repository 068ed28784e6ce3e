"""KServe v2 over gRPC with grpcio, requests serialised once.

Under gevent a blocking call waits in gevent's native thread pool: whoever runs many users must
call `grpc.experimental.gevent.init_gevent()` before the first channel and let that pool grow to
the number of users (`locustfiles/triton.py` does both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from harness.load.transports.contract import (
    DATATYPES,
    OutputTensor,
    RequestFailure,
    authority,
    host_and_port,
)

_SERVICE = "/inference.GRPCInferenceService"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A connection a user, as over HTTP, and no back-off inherited from an earlier trial.
    ("grpc.use_local_subchannel_pool", 1),
    # A dead server that comes back is noticed within a second, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A retry would hide a failure and pass two latencies off as one.
    ("grpc.enable_retries", 0),
    # Load goes straight to the server, whatever proxies the environment names.
    ("grpc.enable_http_proxy", 0),
]


class GrpcTransport:
    """A `Transport` over one channel."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._target = authority(*host_and_port(address))
        self._timeout_s = timeout_s
        self._channel: Any = None
        self._infer: Any = None

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """A serialised `ModelInferRequest`."""
        request = service_pb2.ModelInferRequest(model_name=model)
        for name, array in inputs.items():
            request.inputs.add(
                name=name, datatype=DATATYPES[array.dtype.name], shape=list(array.shape)
            )
            request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
        serialised: bytes = request.SerializeToString()
        return serialised

    def connect(self) -> None:
        """Open the channel and ask whether the server lives: a channel itself connects lazily."""
        self._open()
        live = self._channel.unary_unary(f"{_SERVICE}/ServerLive")
        try:
            live(b"", timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def send(self, request: bytes) -> Sequence[OutputTensor]:
        """Call `ModelInfer`."""
        if self._infer is None:
            self._open()
        try:
            answer = self._infer(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        raw = answer.raw_output_contents
        return [
            OutputTensor(
                output.name,
                output.datatype,
                tuple(output.shape),
                raw[index] if index < len(raw) else b"",
            )
            for index, output in enumerate(answer.outputs)
        ]

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._infer = None

    def _open(self) -> None:
        if self._channel is not None:
            return
        self._channel = grpc.insecure_channel(self._target, options=_OPTIONS)
        self._infer = self._channel.unary_unary(
            f"{_SERVICE}/ModelInfer",
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def _failure(self, error: Any) -> RequestFailure:
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RequestFailure(
                "timeout", f"no answer from {self._target} in {self._timeout_s:g} s"
            )
        return RequestFailure(f"grpc_{code.name}", f"{self._target}: {error.details()}")
