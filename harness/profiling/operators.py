"""Where a model's time goes, operator by operator, by the runtime's own profiler.

These run in the model's own process; the traces that the profilers write stay as they are, for
TensorBoard and chrome://tracing (or ui.perfetto.dev).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.profiling.flops import Tensor, onnx_cost, torch_cost
from harness.profiling.subjects import ArtefactSubject, Inputs, Opened, OpenedArtefact
from harness.types.profiles import OperatorCost

WARM_CALLS = 5
_KERNEL = "_kernel_time"
_CALL = "model_run"


@dataclass(frozen=True)
class Profiled:
    """What a profiler saw."""

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

    A session of its own is made for it, from the same options.

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
    durations: list[float] = field(default_factory=list)


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
