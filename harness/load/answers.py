"""Checks of every answer: a fast server that answers wrongly has answered nothing.

Triton with a broken python stub answers HTTP 200 with empty tensors; a status code proves little.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from harness.load.payloads import EncodedRequest
from harness.load.transports.contract import OutputTensor, RequestFailure
from harness.types import TensorSpec

_ELEMENTS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    # numpy has no bfloat16: as integers its size is checked and its finiteness is not.
    "BF16": np.dtype("<u2"),
}
"""Elements by KServe v2 datatype; those of BYTES have no fixed size."""


class AnswerCheck:
    """Holds answers against the model's outputs.

    Args:
        outputs: what the model answers with; none when it is not known, and then an answer is
            only held against its request and itself.
    """

    def __init__(self, outputs: Sequence[TensorSpec] = ()) -> None:
        self._expected = {spec.name: spec for spec in outputs}

    def check(self, answer: Sequence[OutputTensor], request: EncodedRequest) -> None:
        """Pass in silence, or say what is wrong.

        Raises:
            RequestFailure: of kind missing_output, empty_output, wrong_datatype, wrong_shape,
                wrong_size or non_finite.
        """
        present = {tensor.name for tensor in answer}
        missing = [name for name in self._expected if name not in present]
        if missing or not answer:
            wanted = ", ".join(missing) or "any output"
            raise RequestFailure("missing_output", f"the answer lacks {wanted}")
        for tensor in answer:
            spec = self._expected.get(tensor.name)
            if not tensor.data:
                raise _wrong("empty_output", tensor, "has no bytes")
            if spec is not None and tensor.datatype != spec.datatype:
                raise _wrong("wrong_datatype", tensor, f"the model promises {spec.datatype}")
            _check_shape(tensor, spec, request)
            _check_elements(tensor)


def _check_shape(tensor: OutputTensor, spec: TensorSpec | None, request: EncodedRequest) -> None:
    batch, *sizes = tensor.shape or (0,)
    if batch != request.batch_size:
        raise _wrong("wrong_shape", tensor, f"the request has a batch of {request.batch_size}")
    if spec is None:
        return
    if len(sizes) != len(spec.shape):
        raise _wrong("wrong_shape", tensor, f"the model promises {spec.shape} after the batch")
    for size, promised in zip(sizes, spec.shape, strict=True):
        # A dynamic size follows the request: scores of a sequence are as many as its tokens.
        allowed = request.lengths if promised == -1 else {promised}
        if size not in allowed:
            wanted = " or ".join(str(one) for one in sorted(allowed))
            raise _wrong("wrong_shape", tensor, f"{size} should be {wanted}")


def _check_elements(tensor: OutputTensor) -> None:
    elements = _ELEMENTS.get(tensor.datatype)
    if elements is None:
        return
    if len(tensor.data) != elements.itemsize * prod(tensor.shape):
        raise _wrong("wrong_size", tensor, f"has {len(tensor.data)} bytes")
    if elements.kind == "f" and not np.isfinite(np.frombuffer(tensor.data, elements)).all():
        raise _wrong("non_finite", tensor, "holds NaN or infinity")


def _wrong(kind: str, tensor: OutputTensor, why: str) -> RequestFailure:
    what = f"output {tensor.name} ({tensor.datatype} {list(tensor.shape)})"
    return RequestFailure(kind, f"{what}: {why}")
