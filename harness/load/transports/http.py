"""KServe v2 over HTTP with the binary tensor extension.

https://github.com/kserve/open-inference-protocol and Triton's `protocol/extension_binary_data.md`:
a JSON header of `Inference-Header-Content-Length` bytes, then the tensors' raw bytes in its order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from harness.load.transports.contract import (
    DATATYPES,
    OutputTensor,
    RequestFailure,
    authority,
    host_and_port,
)
from harness.load.transports.http1 import Head, HttpConnection, ProtocolViolation

_OK = 200
_WORDS_OF_A_REFUSAL = 500


class HttpTransport:
    """A `Transport` over one kept-alive connection."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._host, self._port = host_and_port(address)
        self._authority = authority(self._host, self._port)
        self._timeout_s = timeout_s
        self._connection: HttpConnection | None = None

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """Head, JSON header and raw tensors, ready for the socket."""
        tensors = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        description = {
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": DATATYPES[array.dtype.name],
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in tensors.items()
            ],
            "parameters": {"binary_data_output": True},
        }
        header = json.dumps(description, separators=(",", ":")).encode()
        raw = b"".join(array.tobytes() for array in tensors.values())
        head = (
            f"POST /v2/models/{quote(model, safe='')}/infer HTTP/1.1\r\n"
            f"Host: {self._authority}\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(header)}\r\n"
            f"Content-Length: {len(header) + len(raw)}\r\n\r\n"
        )
        return head.encode() + header + raw

    def connect(self) -> None:
        """Open the connection if there is none."""
        try:
            self._open()
        except OSError as error:
            raise self._broken(error) from error

    def send(self, request: bytes) -> Sequence[OutputTensor]:
        """Send a request and read its tensors."""
        try:
            connection = self._open()
            head, body = connection.exchange(request)
        except (OSError, ProtocolViolation) as error:
            raise self._broken(error) from error
        if not head.keep_alive:
            self.close()
        if head.status != _OK:
            words = body[:_WORDS_OF_A_REFUSAL].decode(errors="replace")
            raise RequestFailure(f"http_{head.status}", words or "(no message)")
        return read_answer(head, body)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> HttpConnection:
        if self._connection is None:
            self._connection = HttpConnection.open(
                self._host, self._port, timeout_s=self._timeout_s
            )
        return self._connection

    def _broken(self, error: Exception) -> RequestFailure:
        self.close()
        where = self._authority
        if isinstance(error, TimeoutError):
            return RequestFailure("timeout", f"no answer from {where} in {self._timeout_s:g} s")
        kind = "malformed" if isinstance(error, ProtocolViolation) else "connection"
        return RequestFailure(kind, f"{where}: {error}")


class _Layout(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_answer(head: Head, body: bytes) -> list[OutputTensor]:
    """Cut the body of an accepted request into its tensors.

    Raises:
        RequestFailure: `malformed`, when header and body do not fit each other.
    """
    split = len(body) if head.header_length is None else head.header_length
    layouts = _parse_layouts(body[:split])
    raw = body[split:]
    if layouts and layouts[-1].end != len(raw):
        raise RequestFailure(
            "malformed",
            f"the header announces {layouts[-1].end} bytes of tensors, {len(raw)} came",
        )
    return [
        OutputTensor(layout.name, layout.datatype, layout.shape, raw[layout.start : layout.end])
        for layout in layouts
    ]


@lru_cache(maxsize=64)
def _parse_layouts(header: bytes) -> tuple[_Layout, ...]:
    """Parse a JSON header; answers of one shape share theirs, so it is remembered."""
    layouts, start = [], 0
    try:
        for output in json.loads(header)["outputs"]:
            if "data" in output:
                raise RequestFailure(
                    "malformed", "the server answers in JSON: it lacks the binary tensor extension"
                )
            end = start + int(output.get("parameters", {}).get("binary_data_size", 0))
            shape = tuple(int(size) for size in output["shape"])
            layouts.append(_Layout(output["name"], output["datatype"], shape, start, end))
            start = end
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestFailure(
            "malformed", f"the answer's JSON header is not KServe v2: {header[:200]!r}"
        ) from error
    return tuple(layouts)
