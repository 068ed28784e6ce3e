"""KServe v2's inference bodies over HTTP, for the client that is not under load.

Written apart from the transports under load, so that what they misread does not agree with itself.
Binary where the server has that extension (JSON has no half precision), else JSON.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from harness.serving.remote import Tensors

HEADER_LENGTH = "Inference-Header-Content-Length"
_NO_NUMBERS = {"BYTES", "BF16"}


def encode(inputs: Tensors, *, binary: bool) -> tuple[int | None, bytes]:
    """Length of the JSON header (None: it is all JSON), and the body."""
    tensors: list[dict[str, Any]] = [
        {"name": name, "shape": list(array.shape), "datatype": np_to_triton_dtype(array.dtype)}
        for name, array in inputs.items()
    ]
    if not binary:
        for tensor, array in zip(tensors, inputs.values(), strict=True):
            tensor["data"] = array.flatten().tolist()
        return None, json.dumps({"inputs": tensors}).encode()
    for tensor, array in zip(tensors, inputs.values(), strict=True):
        tensor["parameters"] = {"binary_data_size": array.nbytes}
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return len(header), header + b"".join(array.tobytes() for array in inputs.values())


def decode(body: bytes, header_length: int | None) -> dict[str, NDArray[Any]]:
    """Outputs by name; those that numpy has no number for (BYTES, BF16) are left out.

    Raises:
        KeyError, TypeError, ValueError: it is no answer of KServe v2.
    """
    at = len(body) if header_length is None else header_length
    outputs = {}
    for one in json.loads(body[:at])["outputs"]:
        size = 0 if "data" in one else int(one["parameters"]["binary_data_size"])
        at, raw = at + size, body[at : at + size]
        if one["datatype"] in _NO_NUMBERS:
            continue
        elements = triton_to_np_dtype(one["datatype"])
        array = np.array(one["data"], elements) if "data" in one else np.frombuffer(raw, elements)
        outputs[one["name"]] = array.reshape(one["shape"])
    return outputs
