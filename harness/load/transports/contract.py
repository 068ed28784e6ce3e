"""What a transport is: the only plug-in point between a user and the wire.

A request is encoded once, before the load starts, and sent many times: what a transport does
for each request is what the generator costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from numpy.typing import NDArray

from harness.errors import UsageError

DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""KServe v2 datatype by numpy's name."""


class RequestFailure(Exception):  # noqa: N818  (the term of serving: a failed request)
    """A request that was not answered as it should have been.

    A datum of the measurement, counted by `kind`, and never a reason to stop the harness: so it
    stands outside the tree of `harness.errors`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class OutputTensor(NamedTuple):
    """One output of an answer, as it came."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """With the batch dimension."""
    data: bytes
    """Raw little-endian elements; empty if the server sent none."""


class Transport(Protocol):
    """One connection to one server; used by one user at a time."""

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """The whole request as it goes over the wire; every array has the batch dimension."""

    def connect(self) -> None:
        """Connect now; without it `send` connects when it needs to.

        Raises:
            RequestFailure: the server cannot be reached.
        """

    def send(self, request: bytes) -> Sequence[OutputTensor]:
        """Send an encoded request and wait for its answer.

        Raises:
            RequestFailure: no answer, or one that says no. The next `send` starts afresh.
        """

    def close(self) -> None:
        """Give the connection up; closing twice is fine."""


def host_and_port(address: str) -> tuple[str, int]:
    """Parse `127.0.0.1:8000`, `http://host:8000` or `grpc://[::1]:8001`.

    Raises:
        UsageError: no host, no port, or an encrypted scheme, which is not supported.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"'{address}' is no server address: {error}") from error
    if parts.scheme not in ("", "http", "grpc") or not host or port is None:
        raise UsageError(
            f"'{address}' is no server address that the load generator can use",
            next_step="write it as HOST:PORT, http://HOST:PORT or grpc://HOST:PORT",
        )
    return host, port


def authority(host: str, port: int) -> str:
    """HOST:PORT as it stands in a Host header or a gRPC target; brackets for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
