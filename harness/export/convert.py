"""Graph files: torch to ONNX, to fp16, and to int8 for ONNX Runtime and for TensorRT.

TensorRT takes no dynamic quantisation. It wants the nodes in the graph, symmetric, weights by
channel; the ranges of the activations are taken from samples of the task's data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError, EnvironmentFailure
from harness.system.libraries import plain_reason, quiet
from harness.tasks.encoding import EncodedDataset

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from harness.tasks.graphs import Graph


BATCH = 16
"""Rows a calibration batch; a batch has one padded length, as requests do."""
QUANTISED = ("MatMul", "Gemm")
"""What is worth eight bits; the rest would pay more for conversion than it gains."""


def calibration_batches(
    encoded: EncodedDataset, samples: int, seed: int
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Draw rows without replacement, batch by batch, each of one padded length.

    Args:
        encoded: the task's data as the checkpoint's tokenizer makes it.
        samples: rows to draw at most.
        seed: the study's.

    Yields:
        Arrays (rows, length) by input name; no labels.
    """
    drawn = np.random.default_rng(seed).permutation(encoded.size)[:samples]
    for group in encoded.groups:
        places = np.flatnonzero(np.isin(group.rows, drawn))
        for start in range(0, len(places), BATCH):
            chosen = places[start : start + BATCH]
            yield {name: values[chosen] for name, values in group.inputs.items()}


def write_static_int8(
    source: Path, path: Path, encoded: EncodedDataset, *, samples: int, seed: int
) -> None:
    """Quantise the matrix products of a graph for TensorRT.

    Args:
        source: the single-precision graph.
        path: the file to write; weights beside it where the source has them beside.
        encoded: data to calibrate with.
        samples: rows to calibrate with at most.
        seed: draws them.

    Raises:
        EnvironmentFailure: the result is too new for the pinned server.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches = calibration_batches(encoded, samples, seed)

        def get_next(self) -> Mapping[str, NDArray[np.int64]] | None:
            return next(self._batches, None)

    with quiet():
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=[*QUANTISED],
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=len(artefact_files(source)) > 1,
            # Symmetric, as TensorRT asks; no pair is shared, so that it can fuse each.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "DedicatedQDQPair": True,
            },
        )
    finish_graph(path)


MAX_IR_VERSION = 10
MAX_OPSET = 21
"""Newest that ONNX Runtime 1.19 loads, which tritonserver 24.10 carries."""
OPSET = 20
SINGLE_FILE_LIMIT_BYTES = 1_800_000_000
"""Protobuf ends at 2 GB; above this the weights go to a file beside the graph."""
_SINGLE_PRECISION_OPERATORS = ("ReduceLogSumExp", "ReduceSum", "ReduceMean", "Exp", "Log", "Pow")


def write_fp32(
    graph: Graph,
    example: Mapping[str, NDArray[np.int64]],
    path: Path,
    *,
    single_file_limit_bytes: int = SINGLE_FILE_LIMIT_BYTES,
) -> None:
    """Export a graph with dynamic batch and sequence.

    Args:
        graph: the wrapped checkpoint.
        example: inputs to trace with, each (batch, sequence), both at least 2: the exporter
            takes an axis of length 1 for a constant.
        path: the file to write.
        single_file_limit_bytes: weights larger than this go to `<path>.data`.

    Raises:
        CheckpointError: torch cannot export this architecture.
        EnvironmentFailure: the result is too new for the pinned server.
    """
    import torch

    try:
        trace(
            graph,
            path,
            kwargs={name: torch.from_numpy(values) for name, values in example.items()},
            input_names=list(example),
            output_names=list(graph.output_names),
            dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in example},
            external_data=weights_bytes(graph) > single_file_limit_bytes,
        )
    except OSError:
        raise  # the disk, not the model
    except Exception as error:
        # The exporter raises what it likes; torch.onnx.errors are only some of it.
        raise CheckpointError(
            f"torch cannot export {type(graph.model).__name__} to ONNX: {plain_reason(error)}",
            next_step="export it by other means and serve it yourself: the harness measures models "
            "of any server (docs/external-servers.md)",
        ) from error
    finish_graph(path)


def weights_bytes(module: nn.Module) -> int:
    """What a module's parameters take, in bytes."""
    return sum(one.numel() * one.element_size() for one in module.parameters())


def trace(module: nn.Module, path: Path, arguments: tuple[Any, ...] = (), **settings: Any) -> None:
    """Write a module as an ONNX graph with torch's exporter, in the opset of the pinned server.

    Args:
        module: ready for inference.
        path: the file to write.
        arguments: inputs to trace with.
        settings: others of `torch.onnx.export`.

    Raises:
        Exception: whatever the exporter raises of a module that it cannot trace.
    """
    import torch

    with quiet(), torch.inference_mode():
        torch.onnx.export(
            module, arguments, path, dynamo=True, opset_version=OPSET, verbose=False, **settings
        )


def write_int8(
    source: Path, path: Path, *, by_column: bool = False, kept: Sequence[str] = ()
) -> None:
    """Quantise weights to int8 (symmetric); activations at run time, with a scale per tensor.

    Weights keep to seven bits: processors without VNNI add products of eight bits in sixteen, which
    overflow, and the same file would answer differently there.

    Args:
        source: the single-precision graph.
        path: the file to write; weights beside it where the source has them beside.
        by_column: whether each column of a matrix has a scale of its own, not each matrix.
        kept: nodes that stay as they are, by name.

    Raises:
        EnvironmentFailure: the result is too new for the pinned server.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    external = _data_file(source).exists()
    with quiet():
        quantize_dynamic(
            source,
            path,
            weight_type=QuantType.QInt8,
            per_channel=by_column,
            reduce_range=True,
            nodes_to_exclude=list(kept),
            use_external_data_format=external,
        )
    finish_graph(path)


def write_fp16(source: Path, path: Path) -> None:
    """Convert weights and arithmetic to half precision, for a GPU.

    Inputs and outputs keep their types. What half precision cannot hold stays in single: sums over
    the vocabulary would lose the third decimal, and the squares of root-mean-square norms overflow
    from 256 on.

    Raises:
        EnvironmentFailure: the result is too new for the pinned server.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    with quiet():
        model = convert_float_to_float16(
            onnx.load(source),
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_SINGLE_PRECISION_OPERATORS],
        )
        external = _data_file(source).exists()
        onnx.save_model(model, path, save_as_external_data=external, location=_data_file(path).name)
    finish_graph(path)


def check_loadable(model: onnx.ModelProto, name: str) -> None:
    """Check that the pinned server's ONNX Runtime reads this file's format.

    Raises:
        EnvironmentFailure: naming the IR version and the opset, found and allowed.
    """
    opset = max(
        (one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), default=0
    )
    if model.ir_version <= MAX_IR_VERSION and opset <= MAX_OPSET:
        return
    raise EnvironmentFailure(
        f"{name} has IR version {model.ir_version} and opset {opset}; the pinned server loads "
        f"IR version {MAX_IR_VERSION} and opset {MAX_OPSET} at most",
        next_step="install the pinned exporter: pip install 'torch==2.13.0'",
    )


def artefact_files(path: Path) -> list[Path]:
    """A graph's file, and its weights' file where there is one."""
    return [file for file in (path, _data_file(path)) if file.exists()]


def _data_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def finish_graph(path: Path) -> None:
    """Take out what differs from machine to machine, and check what is left."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.doc_string = ""
    _strip(model.graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            _strip_node(node)
    del model.metadata_props[:]
    check_loadable(model, path.name)
    # Written by protobuf itself: onnx.save would raise the IR version to its own newest.
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            _strip(attribute.g)
