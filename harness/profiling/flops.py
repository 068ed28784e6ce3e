"""What matrix products cost, from their shapes: operations and bytes.

A product of (m, k) and (k, n) takes m k n multiplications and as many additions. Bytes are the
least that has to move: each input read and each output written once. Other operators move their
bytes too, but their few operations an element are not counted: none of them is bound by arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = Sequence[int]

ITEM_BYTES = {
    "float": 4, "float16": 2, "double": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""By ONNX Runtime's names of element types."""

FLOAT_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul"})
INTEGER_PRODUCTS = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"}
)
TORCH_PRODUCTS = frozenset({"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"})
COUNTED = tuple(sorted(FLOAT_PRODUCTS | INTEGER_PRODUCTS | TORCH_PRODUCTS))
_MATRIX = 2


@dataclass(frozen=True)
class Tensor:
    """An operator's input or output."""

    item: str
    """Element type, by ONNX Runtime's name."""
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """All of its elements."""
        return math.prod(self.shape) * ITEM_BYTES.get(self.item, 4)


@dataclass(frozen=True)
class Cost:
    """Of one call."""

    operations: float | None
    moved_bytes: float
    datatype: str = ""


def inner_size(left: Shape, out: Shape) -> int | None:
    """The summed dimension k, from the left input and the output; None where there is none.

    It is what is left of the left input's matrix beside the output's rows, so that a transposed
    input needs no saying.
    """
    if not left or not out:
        return None
    if len(left) < _MATRIX or len(out) < _MATRIX:
        return int(left[-1])
    rows = out[-2]
    return int(left[-2] * left[-1] // rows) if rows else None


def onnx_cost(kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    """Cost of an ONNX operator.

    ONNX Runtime packs constant weights and then no longer lists them among the inputs: a product
    whose right side is missing has one of the size that its shapes ask for.
    """
    moved = float(sum(one.size_bytes for one in (*inputs, *outputs)))
    integer = kind in INTEGER_PRODUCTS
    if not inputs or not outputs or not (integer or kind in FLOAT_PRODUCTS):
        return Cost(None, moved)
    out = outputs[0].shape
    inner = inner_size(inputs[0].shape, out)
    if inner is None or not out:
        return Cost(None, moved)
    if not any(len(one.shape) >= _MATRIX for one in inputs[1:]):
        moved += inner * out[-1] * (1 if integer else ITEM_BYTES.get(inputs[0].item, 4))
    return Cost(2.0 * math.prod(out) * inner, moved, "int8" if integer else "fp32")


def torch_cost(kind: str, shapes: Sequence[Shape]) -> Cost | None:
    """Cost of a PyTorch matrix product in single precision; None for other operators.

    Args:
        kind: `aten::addmm` and its like.
        shapes: of the inputs, as the profiler records them.
    """
    if kind not in TORCH_PRODUCTS:
        return None
    matrices = [tuple(shape) for shape in shapes if len(shape) >= _MATRIX]
    if len(matrices) < _MATRIX:
        return None
    left, right = matrices[-2:]
    out = (*left[:-1], right[-1])
    biases = [tuple(shape) for shape in shapes if shape][: kind in {"aten::addmm", "aten::baddbmm"}]
    moved = sum(math.prod(shape) for shape in (left, right, out, *biases)) * 4.0
    return Cost(2.0 * math.prod(out) * left[-1], moved, "fp32")
