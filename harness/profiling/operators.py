"""Where a model's time goes, operator by operator, and what its matrix products cost.

A product of (m, k) and (k, n) takes m k n multiplications and as many additions. Bytes are the
least that has to move: each input read and each output written once. Other operators move their
bytes too, but their few operations an element are not counted: none of them is bound by arithmetic.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.profiling.subjects import ArtefactSubject, Inputs, Opened, OpenedArtefact
from harness.types.profiles import OperatorCost

Shape = Sequence[int]

ITEM_BYTES = {
    "float": 4, "float16": 2, "double": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes per element, by ONNX Runtime's names of types."""

FLOAT_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul"})
INTEGER_PRODUCTS = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"}
)
TORCH_PRODUCTS = frozenset({"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"})
_MATRIX = 2


@dataclass(frozen=True)
class Tensor:
    """An operator's input or output."""

    item: str
    """Element type, by ONNX Runtime's name."""
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all elements in bytes."""
        return math.prod(self.shape) * ITEM_BYTES.get(self.item, 4)


@dataclass(frozen=True)
class Cost:
    """What one call of an operator costs."""

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


WARM_CALLS = 5
_KERNEL = "_kernel_time"
_CALL = "model_run"


@dataclass(frozen=True)
class Profiled:
    """The operators and times that a profiler saw."""

    operators: tuple[OperatorCost, ...]
    trace: Path


def profile_checkpoint(opened: Any, batch: Inputs, runs: int, folder: Path) -> Profiled:
    """Profile a checkpoint with PyTorch Profiler; the trace is TensorBoard's.

    Args:
        opened: an OpenedCheckpoint.
        batch: what every call is given.
        runs: calls.
        folder: gets `<worker>.pt.trace.json`.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell standard error of each step
    import torch
    from torch.profiler import ProfilerActivity, profile, tensorboard_trace_handler

    prepared = opened.ready(batch)
    for _ in range(WARM_CALLS):
        opened.run(prepared)
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    with (
        torch.inference_mode(),
        profile(
            activities=[ProfilerActivity.CPU],
            record_shapes=True,
            with_flops=True,
            on_trace_ready=tensorboard_trace_handler(str(folder)),
        ) as profiler,
    ):
        for _ in range(runs):
            opened.module(**prepared)
    costs = torch_operators(profiler.key_averages(group_by_input_shape=True), runs)
    (trace,) = set(folder.iterdir()) - before
    return Profiled(costs, trace)


def torch_operators(events: Iterable[Any], runs: int) -> tuple[OperatorCost, ...]:
    """Costs a call of the model, heaviest first, of PyTorch's averages by operator and shapes."""
    costs = []
    for event in events:
        if event.self_cpu_time_total <= 0:
            continue
        cost = torch_cost(event.key, event.input_shapes)
        shapes = " ".join("x".join(map(str, shape)) for shape in event.input_shapes if shape)
        calls = event.count / runs
        costs.append(
            OperatorCost(
                name=f"{event.key.removeprefix('aten::')} {shapes}".strip(),
                kind=event.key,
                calls=calls,
                time_us=event.self_cpu_time_total / runs,
                datatype=cost.datatype if cost else "",
                operations=cost.operations * calls if cost and cost.operations else None,
                moved_bytes=cost.moved_bytes * calls if cost else None,
            )
        )
    return _heaviest_first(costs)


def profile_artefact(
    _: Opened, subject: ArtefactSubject, batch: Inputs, runs: int, prefix: Path
) -> Profiled:
    """Profile an artefact with ONNX Runtime's profiler; the trace is Chrome's.

    A separate session is made for it, from the same options.

    Args:
        subject: the artefact.
        batch: what every call is given.
        runs: calls that count; a few before them do not.
        prefix: the trace is `<prefix>_<date>.json`.
    """
    options = subject.make_options()
    options.enable_profiling = True
    prefix.parent.mkdir(parents=True, exist_ok=True)
    options.profile_file_prefix = str(prefix)
    session = subject.session(options)
    opened = OpenedArtefact(session)
    prepared = opened.ready(batch)
    for _call in range(WARM_CALLS + runs):
        opened.run(prepared)
    trace = Path(session.end_profiling())
    events = json.loads(trace.read_text(encoding="utf-8"))
    return Profiled(onnx_operators(events, runs), trace)


@dataclass
class _Node:
    kind: str
    time_us: float = 0.0
    calls: int = 0
    operations: float = 0.0
    counted: bool = False
    moved_bytes: float = 0.0
    datatype: str = ""


def onnx_operators(events: Sequence[Mapping[str, Any]], runs: int) -> tuple[OperatorCost, ...]:
    """Costs a call of the model, heaviest first, of the last `runs` calls of a Chrome trace."""
    calls = sorted(
        (event for event in events if event.get("name") == _CALL), key=lambda event: event["ts"]
    )
    since = calls[-runs]["ts"] if len(calls) >= runs else 0
    nodes: dict[str, _Node] = defaultdict(lambda: _Node(""))
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
            continue
        if event["ts"] < since:
            continue
        arguments = event["args"]
        node = nodes[event["name"].removesuffix(_KERNEL)]
        cost = onnx_cost(
            arguments["op_name"],
            _tensors(arguments.get("input_type_shape", ())),
            _tensors(arguments.get("output_type_shape", ())),
        )
        node.kind, node.datatype = arguments["op_name"], cost.datatype
        node.time_us += event["dur"]
        node.calls += 1
        node.moved_bytes += cost.moved_bytes
        node.counted = cost.operations is not None
        node.operations += cost.operations or 0.0
    return _heaviest_first(
        OperatorCost(
            name=name,
            kind=node.kind,
            calls=node.calls / runs,
            time_us=node.time_us / runs,
            datatype=node.datatype,
            operations=node.operations / runs if node.counted else None,
            moved_bytes=node.moved_bytes / runs,
        )
        for name, node in nodes.items()
    )


def _tensors(described: Sequence[Mapping[str, Sequence[int]]]) -> list[Tensor]:
    return [Tensor(item, tuple(shape)) for one in described for item, shape in one.items()]


def _heaviest_first(costs: Iterable[OperatorCost]) -> tuple[OperatorCost, ...]:
    return tuple(sorted(costs, key=lambda cost: -cost.time_us))
