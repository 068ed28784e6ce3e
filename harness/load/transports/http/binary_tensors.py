"""Bodies of KServe v2 over HTTP with the binary tensor extension.

https://github.com/kserve/open-inference-protocol and Triton's `protocol/extension_binary_data.md`:
a JSON header of `Inference-Header-Content-Length` bytes, then the tensors' raw bytes in its order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from harness.load.transports.contract import (
    Layout,
    OutputTensor,
    RequestFailure,
    check_echo,
    datatype_of,
    layout_of,
    tensor_bytes,
)
from harness.load.transports.request_ids import MARK


class Body(NamedTuple):
    """An encoded request's body."""

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
