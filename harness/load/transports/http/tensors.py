"""Bodies of KServe v2 over HTTP: tensors as raw bytes, or as JSON numbers.

https://github.com/kserve/open-inference-protocol. With the binary tensor extension (Triton's
`protocol/extension_binary_data.md`) a JSON header of `Inference-Header-Content-Length` bytes stands
before the tensors' raw bytes, in its order. For servers without it tensors are JSON numbers. Either
request is encoded once. JSON answers have no form to be recognised by, so each is parsed, and its
numbers are laid out as raw tensors: from there on it is checked as a binary answer is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from harness.errors import DataError
from harness.load.transports.contract import (
    ELEMENTS,
    MARK,
    Layout,
    OutputTensor,
    RequestFailure,
    WireAnswer,
    check_echo,
    datatype_of,
    layout_of,
    tensor_bytes,
)


class Body(NamedTuple):
    """The encoded body of a request."""

    header_length: int
    data: bytes


def encode_body(inputs: Mapping[str, NDArray[Any]]) -> Body:
    """JSON header and raw tensors of a request that wants its outputs in binary."""
    raw = {name: tensor_bytes(array) for name, array in inputs.items()}
    description = {
        "id": MARK.decode(),
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatype_of(array),
                "parameters": {"binary_data_size": len(raw[name])},
            }
            for name, array in inputs.items()
        ],
        "parameters": {"binary_data_output": True},
    }
    header = json.dumps(description, separators=(",", ":")).encode()
    return Body(len(header), header + b"".join(raw.values()))


def read_layout(
    data: bytes, *, body_start: int, tensors_start: int, identity: bytes = b""
) -> Layout:
    """Where the tensors of an accepted answer lie in its data.

    Args:
        data: the answer, to its end.
        body_start: where its JSON header starts.
        tensors_start: where that ends.
        identity: the request's id, empty if it had none.

    Raises:
        RequestFailure: `malformed`, when header and tensors do not fit each other, or the answer
            is another request's.
    """
    header = data[body_start:tensors_start]
    if identity:  # so that headers which differ in nothing else are parsed once
        header = header.replace(identity, MARK)
    layout, echoed = _parse_layout(header, tensors_start)
    check_echo(identity.decode() if echoed == MARK.decode() else echoed, identity)
    announced = layout.outputs[-1].end if layout.outputs else tensors_start
    if announced != len(data):
        raise RequestFailure(
            "malformed",
            f"the header announces {announced - tensors_start} bytes of tensors, "
            f"{len(data) - tensors_start} came",
        )
    return layout


@lru_cache(maxsize=64)
def _parse_layout(header: bytes, start: int) -> tuple[Layout, Any]:
    """The layout and the id of a JSON header whose tensors start there.

    Remembered, as answers of one shape share it.

    Raises:
        RequestFailure: `malformed`.
    """
    outputs = []
    try:
        description = json.loads(header)
        for described in description["outputs"]:
            if "data" in described:
                raise RequestFailure(
                    "malformed", "the server answers in JSON: it lacks the binary tensor extension"
                )
            size = int(described.get("parameters", {}).get("binary_data_size", 0))
            if size < 0:
                raise ValueError("a size below zero")
            shape = tuple(int(length) for length in described["shape"])
            name, datatype = str(described["name"]), str(described["datatype"])
            outputs.append(OutputTensor(name, datatype, shape, start, start + size))
            start += size
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestFailure(
            "malformed", f"the answer's JSON header is not KServe v2: {header[:200]!r}"
        ) from error
    return layout_of(tuple(outputs)), description.get("id")


_HALVES = {"FP16": "half precision", "BF16": "bfloat16"}
_LENGTH = "<u4"


def encode_json(inputs: Mapping[str, NDArray[Any]]) -> bytes:
    """The whole body of a request.

    Raises:
        DataError: what JSON does not have: half precision, NaN, infinity, bytes that are no text.
    """
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype_of(array),
            "data": _data(name, array),
        }
        for name, array in inputs.items()
    ]
    try:
        body = {"id": MARK.decode(), "inputs": tensors}
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise DataError("the payloads hold NaN or infinity, which JSON does not have") from error


def _data(name: str, array: NDArray[Any]) -> list[Any]:
    """The elements, row by row."""
    datatype = datatype_of(array)
    if datatype in _HALVES:
        raise DataError(
            f"input {name} is of {_HALVES[datatype]} ({datatype}), which JSON bodies cannot "
            "carry, and the server takes no binary ones",
            next_step="send FP32, or measure over gRPC",
        )
    elements: list[Any] = array.ravel().tolist()
    if datatype != "BYTES":
        return elements
    try:
        return [one if isinstance(one, str) else one.decode() for one in elements]
    except UnicodeDecodeError as error:
        raise DataError(
            f"input {name} holds bytes that are no UTF-8 text ({error}), which JSON bodies cannot "
            "carry, and the server takes no binary ones",
            next_step="measure over gRPC",
        ) from error


def read_json(body: bytes, identity: bytes = b"") -> WireAnswer:
    """An accepted answer: its tensors' elements as raw little-endian bytes, one after another.

    Args:
        body: the answer's.
        identity: the request's id, empty if it had none.

    Raises:
        RequestFailure: `malformed`, when it is not an answer of KServe v2, or another request's.
    """
    outputs, parts, start = [], [], 0
    try:
        answer = from_json(body)
        for described in answer["outputs"]:
            datatype = str(described["datatype"])
            raw = _raw(datatype, described["data"])
            shape = tuple(int(length) for length in described["shape"])
            outputs.append(
                OutputTensor(str(described["name"]), datatype, shape, start, start + len(raw))
            )
            parts.append(raw)
            start += len(raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise RequestFailure(
            "malformed", f"the answer is not KServe v2 JSON ({error}): {body[:200]!r}"
        ) from error
    check_echo(answer.get("id"), identity)
    return WireAnswer(layout_of(tuple(outputs)), b"".join(parts))


def _raw(datatype: str, data: Any) -> bytes:
    """Elements, nested or flat, as the binary extension has them."""
    if datatype == "BYTES":
        texts = [str(one).encode() for one in _flat(data)]
        return b"".join(np.array(len(one), _LENGTH).tobytes() + one for one in texts)
    if datatype == "BF16":
        raise ValueError("bfloat16, which has no JSON")
    numbers = np.asarray(data)
    if numbers.size and numbers.dtype.kind not in "biuf":
        raise ValueError("data that are not numbers")
    # From the numbers themselves: what numpy makes of large whole ones by itself are floats.
    return np.asarray(data, ELEMENTS[datatype]).tobytes()


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for one in data:
            yield from _flat(one)
    else:
        yield data
