"""KServe v2's inference bodies over HTTP, for the client that is not under load.

Written apart from the transports under load, so that what they misread does not agree with itself.
Binary where the server has that extension (JSON has no half precision), else JSON.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import (
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from harness.errors import ServerError
from harness.serving.endpoint import native
from harness.serving.remote import Tensors

HEADER_LENGTH = "Inference-Header-Content-Length"


def encode(inputs: Tensors, *, binary: bool) -> tuple[int | None, bytes]:
    """Length of the JSON header (None: it is all JSON), and the body.

    Raises:
        ServerError: bytes that are no text, to a server that takes JSON alone.
    """
    arrays = {name: native(array) for name, array in inputs.items()}
    tensors: list[dict[str, Any]] = [
        {"name": name, "shape": list(array.shape), "datatype": np_to_triton_dtype(array.dtype)}
        for name, array in arrays.items()
    ]
    if not binary:
        for tensor, array in zip(tensors, arrays.values(), strict=True):
            tensor["data"] = _json_elements(tensor["name"], array)
        return None, json.dumps({"inputs": tensors}).encode()
    raw = [_raw(array) for array in arrays.values()]
    for tensor, content in zip(tensors, raw, strict=True):
        tensor["parameters"] = {"binary_data_size": len(content)}
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return len(header), header + b"".join(raw)


def _raw(array: NDArray[Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return bytes(serialize_byte_tensor(array).item()) if array.size else b""


def _json_elements(name: str, array: NDArray[Any]) -> list[Any]:
    elements: list[Any] = array.flatten().tolist()
    try:
        return [one.decode() if isinstance(one, bytes) else one for one in elements]
    except UnicodeDecodeError as error:
        raise ServerError(
            f"the input {name} holds bytes that are no UTF-8 text, which JSON cannot carry: {error}"
        ) from error


def decode(body: bytes, header_length: int | None) -> dict[str, NDArray[Any]]:
    """Outputs by name; bfloat16 as float32, and BYTES, which are no numbers, left out.

    Raises:
        KeyError, TypeError, ValueError: it is no answer of KServe v2.
    """
    at = len(body) if header_length is None else header_length
    outputs = {}
    for one in json.loads(body[:at])["outputs"]:
        size = 0 if "data" in one else int(one["parameters"]["binary_data_size"])
        at, raw = at + size, body[at : at + size]
        if one["datatype"] == "BYTES":
            continue
        elements = triton_to_np_dtype(one["datatype"])
        array = np.array(one["data"], elements) if "data" in one else np.frombuffer(raw, elements)
        if one["datatype"] == "BF16":
            array = array.astype(np.float32)
        outputs[one["name"]] = array.reshape(one["shape"])
    return outputs
